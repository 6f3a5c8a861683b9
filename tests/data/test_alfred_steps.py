"""Plans a step at a time: what is asked of a row, what it shows, and what the heads make of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.data.rows.alfred_steps import TASKS, AlfredSteps, examples
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.models.roberta import Config
from tests.data.test_corpora import TRIAL


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv("JAXKD_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def opened(tmp_path, **changes):
    folder = tmp_path / "alfred"
    folder.mkdir(exist_ok=True)
    for name in ("train", "valid_seen"):
        lines = [json.dumps(TRIAL | {"trial": f"{name}{i}"}) for i in range(30)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return AlfredSteps(**(dict(dir=str(folder), trained_size=300, length=64) | changes)).open(
        tmp_path
    )


def test_a_plan_is_asked_step_by_step():
    """Two sub-goals and the end; the moves of the first are nobody's task."""
    both = "Cool a cup. | Turn. | Take the cup."
    assert list(examples(TRIAL, annotations=1)) == [
        (both, "", {"subgoal": "GotoLocation", "object": "sink"}),
        (both, "GotoLocation sink", {"subgoal": "PickupObject", "object": "cup"}),
        (both, "GotoLocation sink ; PickupObject cup", {"subgoal": "Stop"}),
        ("Take the cup.", "PickupObject cup : ", {"action": "PickupObject", "argument": "cup"}),
        ("Take the cup.", "PickupObject cup : PickupObject", {"action": "Stop"}),
    ]
    assert len(list(examples(TRIAL, annotations=5))) == 10  # it has two


def test_rows_show_text_and_history_and_ask_what_is_asked(tmp_path):
    rows = opened(tmp_path)
    assert rows.parts == TASKS
    batch = rows.draw(rows.splits["train"][:5], np.random.default_rng(0), None)
    assert batch.targets.shape == (5, 4)
    names = [[c.split(":")[1] for c in rows.classes if c.startswith(f"{t}:")] for t in TASKS]
    actual = [
        {
            task: names[k][batch.targets[i, k]]
            for k, task in enumerate(TASKS)
            if batch.target_mask[i, k]
        }
        for i in range(5)
    ]
    expected = list(examples(TRIAL, annotations=1))
    assert actual == [labels for _, _, labels in expected]
    for i, (text, history, _) in enumerate(expected):
        token_mask = rows.tokenizer.decode(batch.tokens[i][batch.mask[i]])
        assert token_mask.replace(" ", "") == (text + history).lower().replace(" ", "")


def test_of_a_row_that_is_too_long_the_history_stays(tmp_path):
    rows = opened(tmp_path, length=16)
    tokens = rows.splits["train"][2, :16]
    assert (tokens != rows.vocabulary.pad).all()
    last = rows.tokenizer.encode(["GotoLocation sink ; PickupObject cup"])[0]
    np.testing.assert_array_equal(tokens[-len(last) - 1 : -1], last)


def test_a_row_that_fills_a_batch_up_is_asked_nothing(tmp_path):
    rows = opened(tmp_path)
    counts = sum(batch.target_mask.sum(0) for batch in rows.batches("test", 7))
    expected = (rows.splits["test"][:, -4:] >= 0).sum(0)
    np.testing.assert_array_equal(counts, expected)


def test_each_task_has_its_own_classes(tmp_path):
    """Of those that only others have the probability is 0, and the gradient too."""
    rows = opened(tmp_path)
    config = Config(
        layers=1,
        width=16,
        heads=2,
        feed_forward=32,
        max_length=80,
        head="multi_task",
        **rows.config_overrides,
    )
    config.check()
    model = families.build(config)
    params = model.init(0)
    batch = jax.tree.map(
        jnp.array, rows.draw(rows.splits["train"][:5], np.random.default_rng(0), None)
    )
    logits = forward(model, params, batch).logits
    sizes = [sum(c.startswith(f"{task}:") for c in rows.classes) for task in TASKS]
    assert logits.shape == (5, 4, max(sizes))
    share = jax.nn.softmax(logits)
    for k, size in enumerate(sizes):
        np.testing.assert_allclose(share[:, k, :size].sum(-1), 1, rtol=1e-6)
        assert float(share[:, k, size:].sum()) == 0
    assert {f"{task}_classify" for task in TASKS} <= set(params["head"])


def test_the_prior_is_of_each_task_by_itself(tmp_path):
    """Add-one shares of each task's classes, counted here by hand."""
    rows = opened(tmp_path)
    train, test = (rows.splits[name][:, -4:] for name in ("train", "test"))
    nats = []
    for k in range(4):
        seen = train[:, k][train[:, k] >= 0]
        counts = np.bincount(seen) + 1
        nats += [-np.log(counts[c] / counts.sum()) for c in test[:, k][test[:, k] >= 0]]
    np.testing.assert_allclose(rows.unigram("test"), np.mean(nats), rtol=1e-6)


@pytest.mark.parametrize("changes", [dict(length=48), dict(length=4), dict(annotations=0)])
def test_settings_that_cannot_be_are_refused(changes, tmp_path):
    with pytest.raises(ValueError, match="a power of two, 8 or more, and at least one"):
        opened(tmp_path, **changes)


def test_transformers_has_no_such_head(tmp_path):
    from jaxkd.hub import folder

    config = Config(
        vocabulary=9, layers=1, width=8, heads=2, feed_forward=8, max_length=9, head="multi_task",
        labels=("a:x", "b:y"),
    )  # fmt: skip
    params = families.build(config).init(0)
    with pytest.raises(ValueError, match="no roberta with the head multi_task.*masked_lm"):
        folder.save(tmp_path, config, params)
    assert not list(tmp_path.iterdir())
