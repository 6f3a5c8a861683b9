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
from jaxkd.data.corpora.wikitext2 import SPLITS, open_corpus
from jaxkd.data.sources import embedded
from jaxkd.data.sources import hub as hub_files
from jaxkd.data.sources.embedded import embedded_documents

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
    for part in SPLITS.values():
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
from jaxkd.data.corpora.wikitext2 import SPLITS, open_corpus
start = time.monotonic()
corpus = open_corpus(cache=pathlib.Path({cache!r}))
texts = {{split: list(corpus.documents(split)) for split in SPLITS}}
print(json.dumps(dict(name=corpus.name, origin=corpus.origin, fingerprint=corpus.fingerprint,
                      texts=texts, seconds=time.monotonic() - start,
                      tensorflow="tensorflow" in sys.modules)))
"""


def listing(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}


@needs_wikitext
@pytest.mark.parametrize("split", SPLITS)
def test_real_splits_have_every_article_and_every_word(split, tmp_path_factory):
    raw = (REAL / f"wiki.{SPLITS[split]}.tokens").read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^ \n (= (?!=).* =) \n(?= \n)", raw)
    published = {"train": 600, "validation": 60, "test": 60}[split]  # Merity et al. (2016), table 1
    corpus = open_corpus(str(REAL), cache=tmp_path_factory.getbasetemp() / "real")
    documents = corpus.documents(split)
    assert len(documents) == len(headings) == published
    assert [text.split("\n")[0] for text in documents] == headings
    assert [word for text in documents for word in text.split()] == raw.split()


def test_documents_are_cut_at_level_one_headings_and_lines_are_stripped(tmp_path):
    corpus = open_corpus(write(tmp_path / "w"), cache=tmp_path)
    expected = ["= One =\nfirst <unk>\n= = Part = =\nmore", "= Two =\nlast"]
    assert {split: list(corpus.documents(split)) for split in SPLITS} == dict.fromkeys(
        SPLITS, expected
    )
    assert corpus.documents("test")[-1] == expected[1]
    assert corpus.documents("test")[:1] == expected[:1]
    assert (corpus.name, corpus.embedded) == ("WikiText-2", False)


def test_raw_files_are_not_called_wikitext_2(tmp_path):
    corpus = open_corpus(write(tmp_path / "w", ending="raw"), cache=tmp_path)
    assert corpus.name == "WikiText-2 (raw)"


def test_folder_of_the_environment_is_found(tmp_path, monkeypatch):
    write(tmp_path / "wikitext-2")
    monkeypatch.setenv("JAXKD_DATA", str(tmp_path))
    # As it is called on any machine; a folder elsewhere by its whole name.
    assert open_corpus(cache=tmp_path / "cache").origin == "folder $JAXKD_DATA/wikitext-2"
    monkeypatch.delenv("JAXKD_DATA")
    elsewhere = write(tmp_path / "else")
    assert open_corpus(elsewhere, cache=tmp_path).origin == f"folder {elsewhere}"


def test_second_open_writes_nothing(tmp_path):
    folder = write(tmp_path / "w")
    first = open_corpus(folder, cache=tmp_path / "cache")
    before = listing(tmp_path / "cache")
    assert open_corpus(folder, cache=tmp_path / "cache") == first
    assert before and listing(tmp_path / "cache") == before


def test_two_contents_do_not_collide_and_one_content_is_kept_once(tmp_path):
    one = open_corpus(write(tmp_path / "a"), cache=tmp_path)
    other = open_corpus(write(tmp_path / "b", FILE.replace("last", "lost")), cache=tmp_path)
    same = open_corpus(write(tmp_path / "c", FILE.replace("\n", "\r\n")), cache=tmp_path)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.documents("train")[1] == "= Two =\nlast"
    assert other.documents("train")[1] == "= Two =\nlost"
    assert len(list((tmp_path / "tfds").iterdir())) == 2


def test_killed_preparation_is_done_again(tmp_path):
    folder = write(tmp_path / "w")
    killed = """
import os, pathlib, sys
from jaxkd.data.corpora import wikitext2
begin = wikitext2.Wikitext2.__init__
class Deadly(list):
    def __iter__(self):
        yield self[0]
        print("true", file=sys.__stdout__, flush=True)  # TFDS is kept from printing
        os._exit(0)
def deadly(self, *, content, **more):
    begin(self, content=content | {{"test": Deadly(content["test"])}}, **more)
wikitext2.Wikitext2.__init__ = deadly
wikitext2.open_corpus({folder!r}, cache=pathlib.Path({cache!r}))
"""
    assert elsewhere(killed.format(folder=folder, cache=str(tmp_path / "cache"))) is True
    assert list((tmp_path / "cache").rglob("incomplete*"))
    corpus = open_corpus(folder, cache=tmp_path / "cache")
    assert {split: len(corpus.documents(split)) for split in SPLITS} == dict.fromkeys(SPLITS, 2)


def test_preparation_prints_nothing(tmp_path, capfd):
    open_corpus(write(tmp_path / "w"), cache=tmp_path)
    assert capfd.readouterr() == ("", "")


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
        open_corpus(folder, cache=tmp_path)
    (tmp_path / "w" / "wiki.train.tokens").write_bytes(b" caf\xe9 \n")
    with pytest.raises(ValueError, match=r"wiki\.train\.tokens is not UTF-8: byte 4 is 0xe9"):
        open_corpus(folder, cache=tmp_path)


def test_misspelt_source_and_split_are_named(tmp_path):
    with pytest.raises(ValueError, match="'folderr'. Did you mean 'folder'"):
        open_corpus(source="folderr", cache=tmp_path)
    corpus = open_corpus(write(tmp_path / "w"), cache=tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'validation'"):
        corpus.documents("valid")


def test_a_source_insisted_on_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match="JAXKD_DATA is not set. Set data.dir"):
        open_corpus(source="folder", cache=tmp_path)
    with pytest.raises(FileNotFoundError, match="OfflineModeIsEnabled"):
        open_corpus(source="hub", cache=tmp_path)
    assert open_corpus(write(tmp_path / "w"), source="embedded", cache=tmp_path).embedded


def test_a_reason_names_no_address():
    said = "Client error '404 Not ResolvedDataset' for url 'http://127.0.0.1:9/x'\nmore"
    assert hub_files.reason(OSError(said)) == "OSError: Client error '404 Not ResolvedDataset'"
    assert hub_files.reason(TimeoutError()) == "TimeoutError"


def test_a_python_without_library_and_manual_has_no_embedded_text(tmp_path, monkeypatch):
    monkeypatch.setattr(wikitext2, "embedded_documents", lambda: dict.fromkeys(SPLITS, []))
    with pytest.raises(ValueError, match="no documents in train and validation and test. Give"):
        open_corpus(source="embedded", cache=tmp_path)


def test_no_network_falls_through_to_embedded_text_in_seconds(tmp_path):
    with socket.socket() as silent:  # connections are accepted by the kernel, and never answered
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code = OPEN.format(cache=str(tmp_path / "cache"))
        found = elsewhere(code, HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
    assert found["name"] == "embedded Python prose"
    assert found["seconds"] < 15  # of which 6 are the wait, at most
    assert re.search(r"embedded, .*JAXKD_DATA is not set; .*from the hub: \w*Time", found["origin"])


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
    for split in SPLITS:
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), sink)
        path = f"/datasets/Salesforce/wikitext/resolve/main/wikitext-2-v1/{split}-00000-of-00001"
        hub.files[f"{path}.parquet"] = sink.getvalue().to_pybytes()
    code = OPEN.format(cache=str(tmp_path / "cache"))
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    online = elsewhere(code, HF_ENDPOINT=address, **environment)
    assert (online["name"], online["origin"]) == ("WikiText-2", "hub Salesforce/wikitext")
    corpus = open_corpus(write(tmp_path / "w"), cache=tmp_path / "other")
    assert online["fingerprint"] == corpus.fingerprint
    assert online["texts"] == {split: list(corpus.documents(split)) for split in SPLITS}
    offline = elsewhere(code, HF_HUB_OFFLINE="1", **environment)
    assert offline["origin"] == "hub Salesforce/wikitext"


def test_embedded_text_is_the_same_in_every_process(tmp_path):
    found = [
        elsewhere(
            OPEN.format(cache=str(tmp_path / seed)),
            PYTHONHASHSEED=seed,
            HF_HUB_OFFLINE="1",
            HF_HOME=str(tmp_path),
        )
        for seed in ("1", "2")
    ]
    assert found[0]["texts"] == found[1]["texts"]
    assert found[0]["fingerprint"] == found[1]["fingerprint"]
    assert not found[0]["tensorflow"]


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
