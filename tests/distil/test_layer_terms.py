"""Terms over layers: what they compare, what they learn, and what they refuse."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxkd import losses
from jaxkd.distil import objective
from jaxkd.distil.layer_map import pairs
from jaxkd.distil.layer_terms import concatenated_heads
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import (
    AttentionMaps,
    CosineHidden,
    HardLabels,
    HiddenStates,
    Relations,
    Similarity,
)
from jaxkd.models import families
from jaxkd.models.model import forward
from jaxkd.train import parallel
from tests.models import tiny

NARROW = tiny.config(layers=2, width=16, heads=2)
WIDE = tiny.config(layers=4, width=32, heads=4)
STUDENT, TEACHER = families.build(NARROW), families.build(WIDE)


def ran(batch):
    return forward(STUDENT, STUDENT.init(0), batch), forward(TEACHER, TEACHER.init(1), batch)


def output(term, student, teacher, batch, seed=0):
    """Its mean over the batch, and what it learns."""
    own = objective.init({"it": term}, seed, student, teacher)
    total = term.total(student, teacher, batch, own.get("it", ()))
    return total / term.count(batch), own.get("it", ())


def mean(values, mask):
    return float(np.asarray(values)[np.asarray(mask)].mean())


@pytest.mark.parametrize(
    "layer_map, of",
    [
        ("uniform", [(1, 2), (2, 4)]),
        ("last", [(1, 3), (2, 4)]),
        ("first", [(1, 1), (2, 2)]),
        ("skip", [(1, 2), (2, 4)]),
        ("top", [(2, 4)]),
        ("0:0,2:3", [(0, 0), (2, 3)]),
    ],
)
def test_hidden_states_of_the_pairs_are_compared_through_the_matrix(layer_map, of):
    batch = tiny.batch()
    student, teacher = ran(batch)
    actual, own = output(HiddenStates(layer_map=layer_map), student, teacher, batch)
    expected = [
        mean(
            ((student.hidden[i] @ student_outputs["kernel"] - teacher.hidden[j]) ** 2).mean(-1),
            batch.mask,
        )
        for student_outputs, (i, j) in zip(own, of, strict=True)
    ]
    np.testing.assert_allclose(actual, np.mean(expected), rtol=1e-5)


def test_two_teacher_layers_to_one_are_set_concatenated_heads():
    batch = tiny.batch()
    student, teacher = ran(batch)
    actual, own = output(HiddenStates(layer_map="both"), student, teacher, batch)
    assert [student_outputs["kernel"].shape for student_outputs in own] == [(16, 64), (16, 64)]
    expected = []
    for student_outputs, (i, j, k) in zip(own, [(1, 2, 3), (2, 4, 4)], strict=True):
        target = np.concatenate([teacher.hidden[j], teacher.hidden[k]], -1)
        expected.append(
            mean(
                ((student.hidden[i] @ student_outputs["kernel"] - target) ** 2).mean(-1), batch.mask
            )
        )
    np.testing.assert_allclose(actual, np.mean(expected), rtol=1e-5)


def test_a_learned_map_starts_at_equal_shares_and_finds_its_layer():
    """A student whose state is one layer of the teacher moves its shares to that layer."""
    batch = tiny.batch()
    _, teacher = ran(batch)
    student = type(teacher)(logits=None, hidden=(teacher.hidden[0], teacher.hidden[3]))
    term = HiddenStates(layer_map="learned", project=False)
    actual, own = output(term, student, teacher, batch)
    average = sum(teacher.hidden[1:]) / 4
    expected = mean(((teacher.hidden[3] - average) ** 2).mean(-1), batch.mask)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    optimiser = optax.adam(0.1)
    kept = optimiser.init(own)

    @jax.jit
    def learn(own, kept):
        gradient = jax.grad(lambda own: term.total(student, teacher, batch, own))(own)
        updates, kept = optimiser.update(gradient, kept)
        return optax.apply_updates(own, updates), kept

    for _ in range(60):
        own, kept = learn(own, kept)
    assert np.argmax(own[0]["mixture"]) == 2 and jax.nn.softmax(own[0]["mixture"])[2] > 0.9


def test_widths_alike_begin_at_the_identity():
    batch = tiny.batch()
    _, teacher = ran(batch)
    actual, own = output(HiddenStates(layer_map="last"), teacher, teacher, batch)
    assert actual == 0 and len(own) == 4


@pytest.mark.parametrize("kind", ["kl", "squared"])
def test_attention_maps_of_unlike_heads_meet_in_their_mean(kind):
    batch = tiny.batch()
    student, teacher = ran(batch)
    actual, _ = output(AttentionMaps(kind=kind, layer_map="last"), student, teacher, batch)
    expected = []
    for i, j in ((0, 2), (1, 3)):
        student_outputs, teacher_outputs = (
            student.attention[i].mean(1),
            teacher.attention[j].mean(1),
        )
        if kind == "kl":
            p, q = (
                np.where(teacher_outputs > 0, teacher_outputs, 1),
                np.where(teacher_outputs > 0, student_outputs, 1),
            )
            values = (np.where(teacher_outputs > 0, teacher_outputs, 0) * np.log(p / q)).sum(-1)
        else:
            values = ((student_outputs - teacher_outputs) ** 2).sum(-1) / np.maximum(
                np.asarray(batch.mask).sum(-1), 1
            )[:, None]
        expected.append(mean(values, batch.mask))
    np.testing.assert_allclose(actual, np.mean(expected), rtol=1e-4)


def test_relations_are_minilms():
    batch = tiny.batch()
    student, teacher = ran(batch)
    actual, _ = output(Relations(heads=2), student, teacher, batch)
    both = [
        [concatenated_heads(outputs.qkv[-1], n) for n in range(3)] for outputs in (student, teacher)
    ]
    expected = 0.0
    for a, b in ((0, 1), (2, 2)):
        values = losses.relation_kl(
            *((embeddings[a], embeddings[b]) for embeddings in both), batch.mask, heads=2
        )
        expected += mean(values.mean(1), batch.mask)
    np.testing.assert_allclose(actual, expected / 2, rtol=1e-5)
    # With its own heads, queries and keys give back the attention maps.
    query, key, _ = teacher.qkv[-1]
    scores = np.einsum("BHLK,BHSK->BHLS", query, key) * query.shape[-1] ** -0.5
    scores = np.where(np.asarray(batch.mask)[:, None, None], scores, -1e30)
    np.testing.assert_allclose(jax.nn.softmax(scores), teacher.attention[-1], atol=1e-6)


def test_relations_of_decoders_leave_out_what_comes_later():
    """The first position of a row sees itself alone: its relation cannot differ."""
    config = families.FAMILIES["llama"][0](
        vocabulary=61, layers=1, width=16, heads=2, feed_forward=16, max_length=24, init_std=0.5
    )
    model = families.build(config)
    batch = tiny.batch()
    student, teacher = (forward(model, model.init(seed), batch) for seed in (0, 1))
    term = Relations(heads=2, causal=True)

    def first(embeddings):
        (query, key, value), rest = student.qkv[0], student.qkv[1:]
        moved = tuple(x.at[:, :, 1:].add(embeddings) for x in (query, key, value))
        changed = dataclasses.replace(student, qkv=(moved, *rest))
        only = dataclasses.replace(batch, mask=jnp.zeros_like(batch.mask).at[:, 0].set(True))
        return term.total(changed, teacher, only)

    value, gradient = jax.value_and_grad(first)(jnp.ones(()))
    np.testing.assert_allclose([value, gradient], 0, atol=1e-5)
    seen = [np.tril(np.asarray(x.attention[0])) for x in (student, teacher)]
    np.testing.assert_allclose(seen[0], student.attention[0], atol=1e-6)
    p, q = (np.where(x > 0, x, 1) for x in (seen[1], seen[0]))
    expected = mean((seen[1] * np.log(p / q)).sum(-1).mean(1), batch.mask)
    only_queries = Relations(heads=2, causal=True, kinds=("query key",))
    np.testing.assert_allclose(
        output(only_queries, student, teacher, batch)[0], expected, rtol=1e-4
    )


def test_shared_keys_count_once_for_each_head_that_uses_them():
    query, shared = jnp.arange(16.0).reshape(1, 4, 2, 2), jnp.arange(8.0).reshape(1, 2, 2, 2)
    merged = concatenated_heads((query, shared, shared), 1)
    np.testing.assert_array_equal(merged[0, 0], [0, 1, 0, 1, 4, 5, 4, 5])


def test_cka_is_that_of_the_tokens_that_count():
    batch = tiny.batch()
    student, teacher = ran(batch)
    actual, _ = output(Similarity(kind="cka"), student, teacher, batch)
    rows = [np.asarray(x.hidden[-1])[np.asarray(batch.mask)] for x in (student, teacher)]
    a, b = (x - x.mean(0) for x in rows)
    cka = np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    np.testing.assert_allclose(actual, 1 - cka, rtol=1e-4)


def test_contrastive_tells_rows_apart_by_their_means():
    batch = tiny.batch()
    _, teacher = ran(batch)
    actual, _ = output(Similarity(kind="contrastive", layer_map="2:4"), teacher, teacher, batch)
    counted = np.asarray(batch.mask)[..., None]
    rows = counted.any(1)[:, 0]
    a, b = (
        np.where(counted, teacher.hidden[i], 0).sum(1) / np.maximum(counted.sum(1), 1)
        for i in (2, 4)
    )
    a, b = (x[rows] / np.linalg.norm(x[rows], axis=-1, keepdims=True) for x in (a, b))
    scores = a @ b.T / 0.1
    expected = (np.log(np.exp(scores).sum(1)) - scores.diagonal()).mean()
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


TERMS = {
    "mlm": HardLabels(),
    "hidden": HiddenStates(layer_map="both"),
    "maps": AttentionMaps(layer_map="uniform"),
    "relations": Relations(heads=2),
}


def test_what_terms_learn_is_trained_with_the_student_on_every_device():
    batch, optimiser = tiny.batch(rows=16), optax.sgd(0.1)
    params, teacher_params = STUDENT.init(0), TEACHER.init(1)
    outputs = lambda p, t: (forward(STUDENT, p, batch), forward(TEACHER, t, batch))  # noqa: E731
    arguments = jax.eval_shape(outputs, params, teacher_params)
    params["terms"] = objective.init(TERMS, 0, *arguments)
    actual = []
    for wrap in (parallel.jitted, parallel.pmapped):
        step = wrap(make_step(STUDENT, TERMS, optimiser, seed=0, teacher=TEACHER))
        state, metrics = step(initial_state(params, optimiser), teacher_params, batch)
        actual.append((state.params, {k: v.compute() for k, v in metrics.items()}))
    chex.assert_trees_all_close(actual[1], actual[0], rtol=1e-5, atol=1e-6)
    moved = actual[0][0]["terms"]["hidden"][0]["kernel"] - params["terms"]["hidden"][0]["kernel"]
    assert np.abs(moved).max() > 1e-5


def mapped(layer_map):
    """A term whose map is set as a flag sets it, without the types that the constructor checks."""
    term = CosineHidden()
    term.layer_map = layer_map
    return term


@pytest.mark.parametrize(
    "term, message",
    [
        (HiddenStates(layer_map="uniformly"), "it.layer_map='uniformly' .*Did you mean 'uniform'"),
        (HiddenStates(kind="squares"), "it.kind is 'squares'. Did you mean 'squared'"),
        (HiddenStates(side="left"), "it.side is 'left'"),
        (AttentionMaps(kind="ce"), "it.kind is 'ce'"),
        (Relations(kinds=("value values",)), "it.kinds is 'value values'"),
        (Similarity(kind="kca"), "it.kind is 'kca'"),
        (Similarity(kind="contrastive", temperature=0.0), "it.temperature is 0.0"),
        (AttentionMaps(layer_map="both"), "several of the teacher's"),
        (mapped(((1, 2, 3),)), "several of the teacher's"),
        (mapped(()), "layer_map is empty"),
        (Relations(heads=0), "it.heads is 0"),
    ],
)
def test_settings_that_cannot_work_are_named(term, message):
    with pytest.raises(ValueError, match=message):
        objective.check({"it": term})


@pytest.mark.parametrize(
    "term, message",
    [
        (CosineHidden(), "width 16 .student. and 32 .teacher."),
        (HiddenStates(side="encoder"), "no encoder-decoder"),
        (HiddenStates(project=False), "width 16 are compared with 32: set project=True"),
        (HiddenStates(layer_map="3:1"), r"the pair \(3, 1\): a student's layer, 0 to 2"),
        (AttentionMaps(layer_map="0:1"), "attention maps of layer 0"),
    ],
)
def test_models_that_do_not_fit_a_term_are_named(term, message):
    batch = tiny.batch()
    with pytest.raises(ValueError, match=message):
        output(term, *ran(batch), batch)


def test_a_student_deeper_than_its_teacher_needs_a_map_that_can():
    assert pairs("uniform", 4, 2) == [(1, (1,)), (2, (1,)), (3, (2,)), (4, (2,))]
    with pytest.raises(ValueError, match="'last' needs a student no deeper"):
        pairs("last", 4, 2)


def test_on_a_cpu_no_product_with_a_matrix_is_asked_for_in_bfloat16():
    """XLA's CPU compiler would multiply in float32 (models/products.py), there and back."""
    narrow, wide = (dataclasses.replace(each, compute="bfloat16") for each in (NARROW, WIDE))
    batch, term = tiny.batch(), HiddenStates(layer_map="uniform")
    student, teacher = (
        forward(families.build(config), families.build(config).init(0), batch)
        for config in (narrow, wide)
    )
    own = objective.init({"it": term}, 0, student, teacher)["it"]

    def loss(own, hidden):
        return term.total(dataclasses.replace(student, hidden=hidden), teacher, batch, own)

    traced = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(own, student.hidden))
    products = [line for line in traced.splitlines() if " dot_general[" in line]
    assert len(products) == 6 and all(":f32" in line for line in products), products
