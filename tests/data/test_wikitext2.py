"""WikiText-2 is read whole and in order, cached once, and never replaced without being said."""

import hashlib
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

import pyarrow
import pyarrow.parquet
import pytest

import jaxkd
from jaxkd.data.corpora import wikitext2
from jaxkd.data.corpora.wikitext2 import FILES, WIKITEXT2
from jaxkd.data.rows.survey import read_survey
from jaxkd.data.rows.text import MaskedText
from jaxkd.data.sources import embedded
from jaxkd.data.sources import hub as hub_files
from jaxkd.data.sources.embedded import embedded_documents
from jaxkd.data.sources.find import find

REAL = pathlib.Path(os.environ.get("JAXKD_DATA", "")) / "wikitext-2"
needs_wikitext = pytest.mark.skipif(
    "JAXKD_DATA" not in os.environ or not REAL.is_dir(),
    reason="$JAXKD_DATA/wikitext-2 is not here",
)
LINES = [" ", " = One = ", " ", " first <unk> ", " ", " = = Part = = ", " ", " more ", " "]
FILE = "\n".join([*LINES, " = Two = ", " ", " last ", ""])


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No folder and no hub, unless a test gives one."""
    monkeypatch.delenv("JAXKD_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(folder: pathlib.Path, text: str = FILE, ending: str = "tokens") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for part in FILES.values():
        (folder / f"wiki.{part}.{ending}").write_text(text, encoding="utf-8")
    return str(folder)


def elsewhere(code: str, **environment: str) -> dict:
    """What `code` prints as JSON, run by a new Python that takes warnings for errors."""
    environment = {"PYTHONPATH": str(pathlib.Path(jaxkd.__path__[0]).parent), **environment}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "JAXKD_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


OPEN = """
import json, pathlib, sys, time
from jaxkd.data.corpora.wikitext2 import WIKITEXT2
from jaxkd.data.rows.survey import read_survey
from jaxkd.data.sources.find import find
start, cache = time.monotonic(), pathlib.Path({cache!r})
corpus = find(WIKITEXT2, "", "auto", cache)
texts = {{split: list(rows) for split, rows in corpus.splits.items()}}
print(json.dumps(dict(name=corpus.name, origin=corpus.origin, texts=texts,
                      fingerprint=read_survey(corpus, cache).digest,
                      seconds=time.monotonic() - start, tensorflow="tensorflow" in sys.modules)))
"""


def open_corpus(folder="", *, origin="auto", cache):
    """The resolved corpus, and the documents of its splits."""
    actual = find(WIKITEXT2, folder, origin, cache)
    return actual, {split: list(rows) for split, rows in actual.splits.items()}


@needs_wikitext
@pytest.mark.parametrize("split", FILES)
def test_real_splits_have_every_article_and_every_word(split, tmp_path_factory):
    raw = (REAL / f"wiki.{FILES[split]}.tokens").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^ \n (= (?!=).* =) \n(?= \n)", raw)
    published = {"train": 600, "validation": 60, "test": 60}[split]  # Merity et al. (2016), table 1
    actual, every = open_corpus(str(REAL), cache=tmp_path_factory.getbasetemp() / "real")
    documents = every[split]
    assert actual.name == "WikiText-2"
    assert len(documents) == len(headings) == published
    assert [text.split("\n")[0] for text in documents] == headings
    assert [word for text in documents for word in text.split()] == raw.split()


def test_documents_are_cut_at_level_one_headings_and_lines_are_stripped(tmp_path):
    corpus, documents = open_corpus(write(tmp_path / "w"), cache=tmp_path)
    expected = ["= One =\nfirst <unk>\n= = Part = =\nmore", "= Two =\nlast"]
    assert documents == dict.fromkeys(FILES, expected)
    assert not corpus.embedded


@pytest.mark.parametrize("ending", ["tokens", "raw"])
def test_other_text_under_its_file_names_is_not_called_wikitext_2(tmp_path, ending):
    corpus, _ = open_corpus(write(tmp_path / "ships", ending=ending), cache=tmp_path)
    assert (corpus.name, corpus.expected) == ("ships", "WikiText-2")


def test_folder_of_the_environment_is_found(tmp_path, monkeypatch):
    write(tmp_path / "wikitext-2")
    monkeypatch.setenv("JAXKD_DATA", str(tmp_path))
    # As it is called on any machine; a folder elsewhere by its whole name.
    assert open_corpus(cache=tmp_path / "cache")[0].origin == "folder $JAXKD_DATA/wikitext-2"
    monkeypatch.delenv("JAXKD_DATA")
    elsewhere = write(tmp_path / "else")
    assert open_corpus(elsewhere, cache=tmp_path)[0].origin == f"folder {elsewhere}"


def opened(folder, cache):
    text = MaskedText(dir=folder, tokenizer="trained", trained_size=256, length=16)
    return text.open(cache)


def test_second_open_writes_nothing(tmp_path, capfd):
    folder = write(tmp_path / "w")
    first = opened(folder, tmp_path / "cache")
    before = listing(tmp_path / "cache")
    assert opened(folder, tmp_path / "cache").fingerprint == first.fingerprint
    assert before and listing(tmp_path / "cache") == before
    assert capfd.readouterr() == ("", "")


def listing(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}


def test_two_contents_do_not_collide_and_line_ends_do_not_matter(tmp_path):
    one = opened(write(tmp_path / "a"), tmp_path)
    other = opened(write(tmp_path / "b", FILE.replace("last", "lost")), tmp_path)
    same = opened(write(tmp_path / "c", FILE.replace("\n", "\r\n")), tmp_path)
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_folder_that_lacks_files_is_an_error_that_names_what_is_there(tmp_path):
    folder = write(tmp_path / "w")
    (tmp_path / "w" / "wiki.valid.tokens").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds wiki\.test\.tokens, wiki\.train\.tokens;"):
        open_corpus(folder, cache=tmp_path)
    with pytest.raises(FileNotFoundError, match="missing is not a folder"):
        open_corpus(str(tmp_path / "missing"), cache=tmp_path)


def test_incomplete_folder_of_the_environment_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "wikitext-2").mkdir()
    monkeypatch.setenv("JAXKD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds nothing"):
        open_corpus(cache=tmp_path / "cache")


def test_empty_and_undecodable_files_are_errors(tmp_path):
    folder = write(tmp_path / "w")
    (tmp_path / "w" / "wiki.test.tokens").write_bytes(b" \n \n")
    with pytest.raises(ValueError, match=r"wiki\.test\.tokens has 4 bytes and no text"):
        opened(folder, tmp_path)
    (tmp_path / "w" / "wiki.train.tokens").write_bytes(b" caf\xe9 \n")
    with pytest.raises(ValueError, match=r"wiki\.train\.tokens is not UTF-8: byte 4 is 0xe9"):
        opened(folder, tmp_path)


def test_a_misspelt_origin_is_named(tmp_path):
    with pytest.raises(ValueError, match="'folderr'. Did you mean 'folder'"):
        open_corpus(origin="folderr", cache=tmp_path)


def test_an_origin_insisted_on_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match="JAXKD_DATA is not set. Set data.dir"):
        open_corpus(origin="folder", cache=tmp_path)
    with pytest.raises(FileNotFoundError, match="OfflineModeIsEnabled"):
        open_corpus(origin="hub", cache=tmp_path)
    assert open_corpus(origin="embedded", cache=tmp_path)[0].embedded


def test_a_reason_names_no_address():
    message = "Client error '404 Not Found' for url 'http://127.0.0.1:9/x'\nmore"
    assert hub_files.reason(OSError(message)) == "OSError: Client error '404 Not Found'"
    assert hub_files.reason(TimeoutError()) == "TimeoutError"


def test_a_python_without_library_and_manual_has_no_embedded_text(tmp_path, monkeypatch):
    monkeypatch.setattr(wikitext2, "embedded_documents", lambda: dict.fromkeys(FILES, []))
    with pytest.raises(ValueError, match="the train split of embedded Python prose .* is empty"):
        MaskedText(origin="embedded", tokenizer="trained").open(tmp_path)


def test_no_network_falls_through_to_embedded_text_in_seconds(tmp_path):
    with socket.socket() as silent:  # connections are accepted by the kernel, and never answered
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code = OPEN.format(cache=str(tmp_path / "cache"))
        actual = elsewhere(code, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
    assert actual["name"] == "embedded Python prose"
    assert actual["seconds"] < 15  # of which 6 are the wait, at most
    assert re.search(
        r"embedded, .*JAXKD_DATA is not set; .*from the hub: \w*Time", actual["origin"]
    )


def test_a_name_that_is_never_resolved_does_not_hang(monkeypatch):
    monkeypatch.setattr(hub_files, "_PATIENCE", 0.1)
    release = threading.Event()
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: release.wait(60))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        hub_files._ask("a name")
    release.set()
    assert time.monotonic() - start < 10


class Hub(http.server.BaseHTTPRequestHandler):
    """Of the hub's protocol, what it takes to hand out a file."""

    def do_GET(self):
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            content = b""
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files = {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_hub_gives_the_documents_of_the_folder_and_then_needs_no_network(tmp_path, hub):
    rows = [f"{line}\n" if line.strip() else "" for line in FILE.split("\n")]
    for split in FILES:
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), sink)
        path = f"/datasets/Salesforce/wikitext/resolve/main/wikitext-2-v1/{split}-00000-of-00001"
        hub.files[f"{path}.parquet"] = sink.getvalue().to_pybytes()
    code = OPEN.format(cache=str(tmp_path / "cache"))
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    online = elsewhere(code, HF_ENDPOINT=address, **environment)
    assert (online["name"], online["origin"]) == ("WikiText-2", "hub Salesforce/wikitext")
    corpus, documents = open_corpus(write(tmp_path / "w"), cache=tmp_path / "other")
    assert online["fingerprint"] == read_survey(corpus, tmp_path / "other").digest
    assert online["texts"] == documents
    offline = elsewhere(code, HF_HUB_OFFLINE="1", **environment)
    assert offline["origin"] == "hub Salesforce/wikitext"


def test_embedded_text_is_the_same_in_every_process(tmp_path):
    actual = [
        elsewhere(
            OPEN.format(cache=str(tmp_path / seed)),
            PYTHONHASHSEED=seed,
            HF_HUB_OFFLINE="1",
            HF_HOME=str(tmp_path),
        )
        for seed in ("1", "2")
    ]
    assert actual[0]["texts"] == actual[1]["texts"]
    assert actual[0]["fingerprint"] == actual[1]["fingerprint"]
    assert not actual[0]["tensorflow"]


def test_embedded_text_does_not_change_when_the_library_is_patched(monkeypatch):
    before = embedded_documents()
    monkeypatch.setattr("textwrap.fill.__doc__", "Another text.")
    monkeypatch.setattr("heapq.merge", lambda: None)
    embedded._docstrings.cache_clear()
    assert embedded_documents() == before


def test_embedded_splits_share_no_line_of_prose_and_none_is_empty():
    splits = embedded_documents()
    words = {split: sum(len(text.split()) for text in texts) for split, texts in splits.items()}
    assert words["train"] > 100_000 and min(words.values()) > 2_000
    paragraph = "Assert statements are a convenient way to insert debugging assertions\ninto a"
    assert sum(paragraph in text for texts in splits.values() for text in texts) == 1
    blocks = {
        split: {line for text in texts for line in text.split("\n") if len(line) > 65}
        for split, texts in splits.items()
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = blocks[one] & blocks[other]
        assert len(shared) < 0.01 * len(blocks[other])
