"""A results file as a run would leave it, with drawn numbers: plausible, of no experiment."""

import copy
import math
import random

import pytest

TEACHERS = {"teacher_plain": 6.02, "teacher_robust": 6.06}
STUDENTS = {
    "student_plain": ("teacher_plain", 6.21),
    "student_robust": ("teacher_robust", 6.17),
    "student_random": ("teacher_plain", 6.33),
}


def _evaluated(draw: random.Random, loss: float, distilled: bool) -> dict:
    loss += draw.gauss(0, 0.02)
    numbers = {"loss": loss, "perplexity": math.exp(loss), "accuracy": draw.uniform(0.11, 0.14)}
    if distilled:
        numbers |= {"kl": draw.uniform(0.2, 0.3), "agreement": draw.uniform(0.5, 0.6)}
    return numbers | {"unigram": 6.85, "under_unigram": 6.85 - loss}


def _logged(draw: random.Random, end: float, distilled: bool) -> list[dict]:
    log = []
    for step in range(20, 1201, 20):
        height = end + 4.2 * math.exp(-step / 180) + draw.gauss(0, 0.05)
        entry = {"step": step, "split": "train", "tokens_per_second": 20000.0, "mlm": height}
        terms = {"soft_targets": height / 6, "cosine": 0.1} if distilled else {}
        loss = 5 * height / 6 + 2 * height + 0.1 if distilled else height
        log.append(entry | terms | {"loss": loss})
        if step % 100 == 0:
            log.append({"step": step, "split": "validation", "loss": height + draw.gauss(0, 0.01)})
    return log


def described(title: str, unit: str, higher_is_better: bool) -> dict:
    """As a results file describes a metric."""
    about = {"title": title, "unit": unit, "higher_is_better": higher_is_better}
    return about | {"columns": "all"}


def _made() -> dict:
    draw = random.Random(0)
    seeds = [0, 1, 2]
    models, curves = {}, {}
    arms = {name: (None, loss) for name, loss in TEACHERS.items()} | STUDENTS
    for name, (teacher, loss) in arms.items():
        layers, parameters = (2, 6_800_000) if teacher else (4, 7_700_000)
        models[name] = {
            "teacher": teacher,
            "layers": layers,
            "width": 192,
            "parameters": parameters,
            "megabytes": parameters * 4 / 1e6,
            "seeds": {
                str(seed): {
                    split: _evaluated(draw, loss, bool(teacher)) for split in ("validation", "test")
                }
                for seed in seeds
            },
        }
        curves[name] = {str(seed): _logged(draw, loss, bool(teacher)) for seed in seeds}
    return {
        "experiment": "wikitext",
        "variant": "mini",
        "title": "Robust initialisation: does a LayerDrop teacher make a better pruned student?",
        "command": "python run.py --config experiments/wikitext.py",
        "seeds": seeds,
        "data": {
            "corpus": "WikiText-2",
            "origin": "folder wikitext-2",
            "embedded": False,
            "tokenizer": "bert-base-uncased (folder)",
            "vocabulary": 30522,
            "length": 128,
            "rows": {"train": 17000, "validation": 1800, "test": 2000},
            "unigram_nats": {"train": 6.6, "validation": 6.68, "test": 6.7},
        },
        "metrics": {
            "loss": described("loss", "nats", False),
            "under_unigram": described("under the unigram line", "nats", True),
            "perplexity": described("perplexity", "", False) | {"columns": "report"},
            "accuracy": described("accuracy", "%", True),
            "kl": described("KL to teacher", "nats", False) | {"of_teacher": True},
            "agreement": described("agreement with teacher", "%", True) | {"of_teacher": True},
            "unigram": described("unigram", "nats", False)
            | {"columns": "none", "baseline_of": "loss"},
        },
        "primary": "loss",
        "terms": {
            name: {
                "mlm": {"title": "MLM", "unit": "nats"},
                "soft_targets": {"title": "soft targets", "unit": "nats"},
                "cosine": {"title": "cosine", "unit": ""},
            }
            for name in STUDENTS
        },
        "where": {
            "device": "cpu",
            "devices": 1,
            "processor": "some processor",
            "cores": 2,
            "memory_gb": 24,
            "python": "3.11.7",
            "versions": {"jax": "0.10.2", "flax": "0.12.0"},
            "revision": "abc123",
        },
        "stages": {
            "teacher_plain": {
                "kind": "Pretrain",
                "seconds": {"0": 330.0, "1": 340.0, "2": 350.0},
                "resumed": {"0": 0, "1": 1, "2": 0},
            },
            "student_plain": {"kind": "Distil", "seconds": {"0": 110.0, "1": 120.0, "2": 130.0}},
        },
        "models": models,
        "curves": curves,
        "report": {
            "curves": [
                {
                    "title": "Students: objective over steps",
                    "models": list(STUDENTS),
                    "split": "train",
                    "metric": "loss",
                    "unigram": False,
                },
                {
                    "title": "Teachers: validation loss",
                    "models": list(TEACHERS),
                    "split": "validation",
                    "metric": "loss",
                    "unigram": True,
                },
            ],
            "comparisons": [
                {
                    "title": "LayerDrop 0.1 - 0 before pruning",
                    "model": "student_robust",
                    "baseline": "student_plain",
                    "split": "validation",
                    "metric": "loss",
                },
                {
                    "title": "pruned - random",
                    "model": "student_plain",
                    "baseline": "student_random",
                    "split": "validation",
                    "metric": "loss",
                },
                {
                    "title": "agreement, LayerDrop 0.1 - 0",
                    "model": "student_robust",
                    "baseline": "student_plain",
                    "split": "validation",
                    "metric": "agreement",
                },
            ],
            "labels": {
                "teacher_plain": "teacher, LayerDrop 0",
                "teacher_robust": "teacher, LayerDrop 0.1",
                "student_plain": "student, pruned from LayerDrop 0",
                "student_robust": "student, pruned from LayerDrop 0.1",
                "student_random": "student, random initialisation",
            },
            "references": [
                {
                    "what": "teacher eval loss, LayerDrop 0",
                    "original": 6.5397,
                    "model": "teacher_plain",
                    "split": "validation",
                    "metric": "loss",
                },
                {
                    "what": "students' last training loss",
                    "original": 19.95,
                    "model": "student_plain",
                    "split": "train",
                    "metric": "loss",
                    "reduce": "last",
                },
                {
                    "what": "students' average training loss",
                    "original": 20.06,
                    "model": "student_plain",
                    "split": "train",
                    "metric": "loss",
                    "reduce": "mean",
                },
            ],
            "reference_source": "a term paper",
        },
    }


MADE = _made()


@pytest.fixture
def results() -> dict:
    """A copy to change at will."""
    return copy.deepcopy(MADE)
