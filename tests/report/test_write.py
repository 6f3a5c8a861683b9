"""Facts about a written report: complete, self-contained, and loud about embedded text."""

import html.parser
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxkd.report import __main__ as command
from jaxkd.report import markup, sentences, tables, write

VOID = {"meta", "img", "br", "hr", "link"}


class Page(html.parser.HTMLParser):
    """Fails on tags that do not nest; gathers what the page shows and what it fetches."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.fetched += [v for k, v in attributes if k in {"src", "href", "srcset", "data"}]
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data


def test_report_is_two_pages_and_a_plot_a_file(results, tmp_path):
    written = write.write(results, tmp_path / "new" / "folder")
    assert [path.name for path in written] == [
        "report.md",
        "report.html",
        "paired-differences.png",
        "students-objective-over-steps.png",
        "teachers-validation-loss.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[2:])
    assert all(path.stat().st_size > 10_000 for path in written[2:])
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == sorted(p.name for p in written)
    text = written[0].read_text()
    assert re.findall(r"!\[.*\]\((.*)\)", text) == [path.name for path in written[2:]]
    assert results["command"] in text


def test_html_nests_and_needs_no_other_file(results, tmp_path):
    text = write.write(results, tmp_path)[1].read_text()
    page = Page(text)
    assert len(page.fetched) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not re.search(r"https?:|url\(|@import", text)
    assert page.text["h1"] == page.text["title"] == [results["title"]]


def test_markdown_and_html_have_the_same_tables(results, tmp_path):
    markdown, page = (path.read_text() for path in write.write(results, tmp_path)[:2])
    made = [p for s in write.sections(results) for p in s.parts if isinstance(p, markup.Table)]
    assert len(made) == 10
    assert all(markup.markdown(each).rstrip() in markdown for each in made)
    assert all(markup.html(each) in page for each in made)


def test_embedded_text_is_loud_in_title_banner_and_every_caption(results, tmp_path):
    results["data"] |= {"embedded": True, "wanted": "WikiText-2"}
    markdown, text = (path.read_text() for path in write.write(results, tmp_path)[:2])
    page = Page(text)
    loud = "EMBEDDED TEXT, NOT WIKITEXT-2"
    assert markdown.startswith(f"# {loud}") and page.text["title"][0].startswith(loud)
    assert page.text["h1"][0].startswith(loud)
    assert sentences.banner(results) in markdown and sentences.banner(results) in text
    assert len(page.text["caption"]) == len(page.text["table"]) == 9  # no references
    assert all(
        caption.startswith(tables.embedded_warning(results)) for caption in page.text["caption"]
    )
    assert markdown.count(f"*{tables.embedded_warning(results)}") == 9
    assert sentences.banner(results) in write.summary(results)
    assert tables.embedded_warning(results) in write.summary(results)


def test_a_corpus_report_has_no_banner(results, tmp_path):
    del results["curves"]
    text = write.write(results, tmp_path)[0].read_text()
    text += write.summary(results)
    assert "EMBEDDED" not in text and tables.embedded_warning(results) not in text


def test_readme_table_has_the_numbers_of_the_results(results):
    lines = [line for line in write.summary(results).splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    assert len(rows) == len(results["models"])
    for row, model in zip(rows, results["models"].values(), strict=True):
        cells = dict(zip(header, row, strict=True))
        assert cells["parameters"].replace(",", "") == str(model["parameters"])
        for name, metric, scale in (
            ("validation loss [nats]", "loss", 1),
            ("accuracy [%]", "accuracy", 100),
            ("agreement with teacher [%]", "agreement", 100),
        ):
            numbers = [s["validation"].get(metric) for s in model["seeds"].values()]
            if None in numbers:
                assert cells[name] == "–"
                continue
            mean, std = map(float, cells[name].split(" ± "))
            last_digit = 10.0 ** -len(cells[name].split(" ± ")[0].split(".")[1])
            assert abs(mean - scale * np.mean(numbers)) <= last_digit / 2 + 1e-9
            assert abs(std - scale * np.std(numbers, ddof=1)) <= last_digit / 2 + 1e-9


def test_originals_are_placed_by_the_datas_own_unigram_line(results):
    results["data"]["unigram_nats"]["validation"] = 6.50
    (first, note) = sentences.originals(results)
    assert "6.5397, lies 0.04 nats over the unigram line" in first  # 6.5397 - 6.50
    assert "same text, split and vocabulary" in note
    results["data"]["unigram_nats"]["validation"] = 6.68
    assert "lies 0.14 nats under" in sentences.originals(results)[0]  # 6.68 - 6.5397


def test_originals_are_not_placed_without_a_line_or_on_other_text(results):
    del results["data"]["unigram_nats"]
    assert sentences.originals(results) == []
    results["data"] |= {"embedded": True, "unigram_nats": {"validation": 5.0}}
    (only,) = sentences.originals(results)
    assert "not shown" in only and "nats" not in only


def test_findings_claim_no_difference_when_the_interval_contains_zero(results):
    losses = {"student_robust": (6.0, 6.1, 6.2), "student_plain": (6.1, 6.0, 6.2)}
    losses["student_random"] = (6.60, 6.51, 6.70)  # 0.50 0.51 0.50 above student_plain
    for model, three in losses.items():
        for seed, loss in zip("012", three, strict=True):
            results["models"][model]["seeds"][seed]["validation"]["loss"] = loss
    first, second, _ = sentences.findings(results)
    assert first.endswith("contains 0: no difference is shown.")
    assert second.endswith("does not contain 0: “student, pruned from LayerDrop 0” is better.")
    results["seeds"] = [0]
    assert sentences.findings(results) == []


def test_integer_seeds_straight_from_a_run_give_the_same_report(results, tmp_path):
    from_file = write.summary(results)
    for model in results["models"].values():
        model["seeds"] = {int(seed): splits for seed, splits in model["seeds"].items()}
    assert write.summary(results) == from_file


def test_only_models_are_needed(tmp_path):
    assert write.write({"models": {}}, tmp_path)
    Page((tmp_path / "report.html").read_text())
    sparse = {"seeds": [0], "models": {"m": {"seeds": {"0": {"validation": {"loss": 1.0}}}}}}
    write.write(sparse, tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| m |"))
    assert row == "| m | 1.000 |"


def test_special_characters_of_the_title_are_escaped(results, tmp_path):
    results["report"] = {}  # no plots to wait for
    results["title"] = "a < b & <script>alert(1)</script>"
    markdown, text = (path.read_text() for path in write.write(results, tmp_path)[:2])
    assert Page(text).text["h1"] == [results["title"]]
    assert "<script" not in text and "<script" not in markdown.replace("\\<", "")


def test_a_failed_write_leaves_the_old_report_whole(results, tmp_path, monkeypatch):
    del results["curves"]
    old = {path: path.read_bytes() for path in write.write(results, tmp_path)}
    results["title"] = "another"

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write.write(results, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_plots_of_one_title_do_not_overwrite_each_other(results, tmp_path):
    first, second = results["report"]["curves"]
    second["title"] = first["title"]
    names = [path.name for path in write.write(results, tmp_path)]
    assert names[-1] == "students-objective-over-steps-2.png"


def test_command_line_renders_beside_the_results_or_where_the_command_says(
    results, tmp_path, capsys
):
    path = tmp_path / "results.json"
    results["report"] = {}
    path.write_text(json.dumps(results))
    command.main([str(path)])
    assert write.summary(results) in capsys.readouterr().out
    command.main([str(path), str(tmp_path / "other")])
    first, second = tmp_path / "report.html", tmp_path / "other" / "report.html"
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read: No such file"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "no object 'models' in it, but list"),
        (b'{"mdels": {}}', "no object 'models' in it, but .'mdels'"),
        (b'{"models": {}, "report": {"curves": [{"models": ["x"]}]}}', "names the model 'x'"),
    ],
)
def test_command_line_says_what_is_wrong_with_a_file(content, message, tmp_path, capsys):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as exit:
        command.main([str(path)])
    assert exit.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_report_imports_no_jax():
    code = (
        "import sys, jaxkd.report.__main__; print([m for m in ('jax', 'flax') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_report_opens_with_its_main_result_and_n(results, tmp_path):
    text = sentences.headline(results)
    one, other = ([seed["validation"]["loss"] for seed in results["models"][m]["seeds"].values()]
                  for m in ("student_robust", "student_plain"))  # fmt: skip
    assert text.startswith("Validation loss: “student, pruned from LayerDrop 0.1” ")
    assert f"{np.mean(one):.3f} ±" in text and f"{np.mean(other):.3f} ±" in text
    assert text.endswith("(3 seeds, 1,800 rows).")
    written = write.write(results, tmp_path)[0].read_text()
    assert written.index("**Validation loss") < written.index("## Results")
    results["report"]["comparisons"] = []
    text = sentences.headline(results)
    assert "student, pruned from LayerDrop 0” " in text and "“teacher, LayerDrop 0” " in text
    assert sentences.headline({"models": {}}) is None


def test_one_seed_is_said_once_and_not_for_every_pair(results, tmp_path):
    results["seeds"] = [0]
    text = write.write(results, tmp_path)[0].read_text()
    assert text.count("No number here has a spread") == 1
    assert "no spread" not in text
    assert text.count("One pair shows neither a difference nor its absence") == 1


def test_the_winner_of_a_comparison_goes_by_the_metrics_direction(results):
    for seed in "012":
        for model, value in (("student_robust", 0.7), ("student_plain", 0.5)):
            sharded = 0.001 * int(seed) * (model == "student_plain")
            numbers = results["models"][model]["seeds"][seed]["validation"]
            numbers |= {"agreement": value + sharded, "loss": value + sharded}
    first, _, third = sentences.findings(results)
    assert first.endswith("“student, pruned from LayerDrop 0” is better.")  # lower loss
    assert third.endswith("“student, pruned from LayerDrop 0.1” is better.")  # higher agreement


def test_own_data_is_not_called_by_a_data_sets_name_nor_held_against_its_numbers(results, tmp_path):
    results["data"] |= {"corpus": "reviews.csv", "origin": "file", "wanted": "SST-2"}
    results["title"] = "What a small student keeps"
    text = write.write(results, tmp_path)[0].read_text()
    assert "WikiText" not in text and "6.5397" not in text and "a term paper" not in text
    assert "measured on SST-2, and this run read reviews.csv: they are not shown" in text


def test_examples_of_the_student_are_shown_with_their_texts(results, tmp_path):
    example = {
        "index": 7, "text": "so <superb>", "label": "positive", "student": "negative",
        "teacher": "positive", "student_probability": 0.1, "teacher_probability": 0.95,
    }  # fmt: skip
    errors = {"rows": 50, "count": 3, "examples": [example, example | {"text": None}]}
    results["examples"] = {"student_plain": {"0": {"validation": errors}}}
    page = write.write(results, tmp_path)[1].read_text()
    assert "3 of 50 rows of the validation split are wrong in" in page
    assert "so &lt;superb&gt;" in page and "negative (10%)" in page and "positive (95%)" in page
