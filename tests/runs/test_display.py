"""What stands on the screen: labelled losses, time without compilation, tables that fit."""

import io

import pytest
from rich.console import Console

from jaxkd.report.markup import Table
from jaxkd.runs import display as module
from jaxkd.runs.display import Display
from jaxkd.runs.outline import outline
from tests.stages import small


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, _) -> str:
        return "now"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def screen(width=80, **options):
    stream = io.StringIO()
    return Display(console=Console(file=stream, width=width, highlight=False, **options)), stream


def test_time_left_excludes_compilation(clock, tmp_path):
    """100 s of compiling, then a step a second: after 3 of 10 steps 7 seconds are left, not 240."""
    display = Display(tmp_path / "log.txt", console=Console(file=io.StringIO()))
    display.start("student", 10)
    for done, clock.now in ((1, 100.0), (2, 101.0), (3, 102.0)):
        display.step(done, {"loss": 2.0}, split="train")
    display.close()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert "left" not in lines[0]
    assert lines[2].endswith("7 s left")


def test_a_resumed_stage_goes_by_its_own_speed(clock):
    display, _ = screen()
    display.start("student", 100, done=60)
    clock.now = 50.0
    display.step(61, {})
    assert display.seconds_left(71, now=55.0) == pytest.approx((100 - 71) * 0.5)


def test_objective_and_validation_loss_are_named_and_both_stay(clock, tmp_path):
    display = Display(tmp_path / "log.txt", console=Console(file=io.StringIO()))
    display.start("student", 10)
    display.step(1, {"loss": 12.8}, split="train")
    display.step(2, {"loss": 5.97, "accuracy": 0.165}, split="validation")
    display.close()
    last = (tmp_path / "log.txt").read_text().splitlines()[-1]
    assert "objective 12.80" in last and "validation loss 5.970  accuracy 16.5%" in last


def test_decoding_says_which_model_and_its_score(clock):
    display, stream = screen()
    display.start("decode", 2)
    clock.now = 99.0
    display.step(1, {"bleu_beam": 33.93, "latency_beam": 4.0}, about="teacher, test, beam")
    assert "teacher, test, beam  bleu beam 33.93" in stream.getvalue()


@pytest.mark.parametrize("width", [60, 100])
def test_a_table_fits_the_terminal_and_loses_no_cell(width):
    display, stream = screen(width=width)
    header = ("model", "parameters", "validation loss [nats]", "agreement with teacher [%]")
    rows = tuple(
        (f"a student with a rather long name {i}", "4,751,802", "5.972 ± 0.023", "83.7 ± 3.8")
        for i in range(2)
    )
    display.table(Table(header, rows, "Evaluation on a split."))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width and "|" not in stream.getvalue()
    letters = "".join(stream.getvalue().split())
    assert "4,751,802" in letters and "83.7±3.8" in letters.replace("83.7", "83.7")


def test_a_stage_that_ends_shows_its_main_numbers():
    display, stream = screen(width=200)
    described = {
        "loss": {"title": "loss", "unit": "nats"},
        "accuracy": {"title": "accuracy", "unit": "%"},
        "majority": {"title": "most frequent", "unit": "%", "columns": "none"},
    }
    numbers = {"majority": 0.5, "accuracy": 0.893, "loss": 0.306}
    metrics = {"models": {"teacher": {"splits": {"validation": numbers}}}, "metrics": described}
    display.finished("[1/1] evaluate", 83.0, metrics)
    text = stream.getvalue()
    assert "[1/1] evaluate: 1 min 23 s" in text
    assert "teacher, validation: loss 0.306 nats, accuracy 89.30%" in text and "most" not in text
    last = [{"split": "train", "loss": 0.2}, {"split": "validation", "loss": 0.3}]
    display.finished("[1/1] teacher", 5.0, {"steps": 9}, last)
    assert "[1/1] teacher: 5 s  objective 0.200  validation loss 0.300" in stream.getvalue()


def test_the_plan_counts_steps_and_the_parameters_of_drawn_models():
    table = outline(small.experiment("x", teacher_steps=12, student_steps=8))
    rows = {row[0]: row for row in table.rows}
    assert rows["teacher"][3] == "12" and rows["student"][3] == "8"
    assert "20 training steps" in table.caption
    # embeddings of 30522 tokens, 16 positions, 2 segments of width 16 alone are 488,640
    assert int(rows["teacher_init"][4].replace(",", "")) > 488_640
    assert rows["student"][2] == "teacher, student_init" and rows["evaluate"][4] == "–"
