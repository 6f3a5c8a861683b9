"""The one step teaches every family: pruned from a teacher, and the objective falls."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.student import kept_blocks, prune
from jaxkd.distil.terms import CosineHidden, HardLabels, SoftTargets
from jaxkd.models import families
from jaxkd.train.parallel import jitted
from tests.models import tiny

SIZES = dict(
    vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=24, init_std=0.2,
    dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
MORE = {
    "albert": {"embedding_width": 20},
    "qwen2": {"kv_heads": 2},
    "qwen3": {"kv_heads": 2, "head_width": 12},
    "marian": dict(encoder_layers=2, encoder_feed_forward=40, scaled_embedding=False),
    "bart": dict(encoder_layers=2),
    "lstm": dict(encoder_layers=2, heads=2),
    "qwen2_moe": dict(kv_heads=2, experts=4, experts_per_token=2, expert_width=24, shared_width=40),
}


QUICK = {"bert"}  # one for all where there is little time


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
        for family in families.FAMILIES
    ],
)
def test_a_student_pruned_from_a_teacher_learns(family):
    config = families.FAMILIES[family][0](**(SIZES | MORE.get(family, {})))
    teacher_model = families.build(config)
    teacher = teacher_model.init(0)
    kept = kept_blocks(config.layers, "every_other")
    student_model = families.build(families.with_layers(config, len(kept)))
    student = prune(teacher, kept)
    families.check_shapes(student_model, student, family)
    terms = {
        "soft_targets": SoftTargets(weight=5.0, temperature=2.0),
        "mlm": HardLabels(weight=2.0),
        "cosine": CosineHidden(weight=1.0),
    }
    optimiser = optax.adam(1e-3)
    step = jitted(make_step(student_model, terms, optimiser, seed=0, teacher=teacher_model))
    before = jax.tree.map(np.array, teacher)
    state, batch, losses = initial_state(student, optimiser), tiny.batch(), []
    if teacher_model.encoder is not None:
        written = tiny.batch(length=15, seed=1)  # longer than what is read, and another mask
        batch = dataclasses.replace(
            written, tokens=batch.tokens, mask=batch.mask,
            decoder_tokens=written.tokens, decoder_mask=written.mask,
        )  # fmt: skip
    for _ in range(48):
        state, metrics = step(state, teacher, batch)
        losses.append(float(metrics["loss"].compute()))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0], losses
    jax.tree.map(np.testing.assert_array_equal, teacher, before)
