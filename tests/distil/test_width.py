"""A narrower student is made of the teacher's own channels, and those that did most."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.core.tree import named
from jaxkd.distil.width import Importance, Kept, choose, importance, narrowed, prune_width
from jaxkd.hub import folder
from jaxkd.models import bert, families, llama, qwen3
from jaxkd.models.model import forward
from tests.models import tiny

DECODER = dict(
    vocabulary=61, layers=2, width=32, heads=4, kv_heads=2, feed_forward=48, max_length=24,
    init_std=0.2,
)  # fmt: skip
CONFIGS = {
    "bert": tiny.config(),
    "llama": llama.Config(**DECODER, tied=True),
    "qwen3": qwen3.Config(**DECODER, head_width=12),
}


def random(config, seed=0):
    model = families.build(config)
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32),
        jax.eval_shape(lambda: model.init(0)),
    )
    return model, drawn


def logits(config, params, batch):
    return np.asarray(forward(families.build(config), params, batch).logits)


def text(rows=4, length=10):
    batch = tiny.batch(rows, length)
    return Batch(batch.tokens, batch.mask)


@pytest.mark.parametrize("family", CONFIGS)
def test_heads_and_channels_that_do_nothing_are_pruned_first_and_nothing_changes(family):
    config = CONFIGS[family]
    _, params = random(config)
    size = getattr(config, "head_width", 0) or config.width // config.heads
    # Of block i the heads of group 1 - i and the channels of the first or last half are dead.
    for i, block in enumerate(params["blocks"][:2]):
        out = np.array(block["attention"]["output"]["kernel"])
        dead = np.arange(2, 4) if i == 0 else np.arange(2)
        for head in dead:
            block["attention"]["value"]["kernel"] = (
                block["attention"]["value"]["kernel"].at[:, _value(config, head, size)].set(0.0)
            )
            if "bias" in block["attention"]["value"]:
                values = block["attention"]["value"]["bias"]
                block["attention"]["value"]["bias"] = values.at[_value(config, head, size)].set(0.0)
            out[head * size : (head + 1) * size] = 0.0
        block["attention"]["output"]["kernel"] = jnp.asarray(out)
        half = slice(0, 24) if i == 0 else slice(24, 48)
        feed = block["feed_forward"]
        feed["expand"]["kernel"] = feed["expand"]["kernel"].at[:, half].set(0.0)
        if "bias" in feed["expand"]:
            feed["expand"]["bias"] = feed["expand"]["bias"].at[half].set(0.0)
    params["blocks"] = params["blocks"][:2]
    config = families.with_layers(config, 2)
    narrow = (
        dataclasses.replace(config, feed_forward=24)  # BERT's heads share the width
        if family == "bert"
        else narrowed(config, 2, 24, 0)
    )
    model = families.build(config)
    kept = choose(config, narrow, importance(model, params, [text()]))
    np.testing.assert_array_equal(kept.feed_forward, [np.arange(24, 48), np.arange(24)])
    if family != "bert":
        np.testing.assert_array_equal(kept.heads, [[0, 1], [2, 3]])
    cut = prune_width(config, params, kept)
    families.check_shapes(families.build(narrow), cut, "pruned")
    batch = text()
    np.testing.assert_allclose(
        logits(narrow, cut, batch)[batch.mask], logits(config, params, batch)[batch.mask], atol=1e-4
    )


def _value(config, head, size):
    each = config.heads // (getattr(config, "kv_heads", 0) or config.heads)
    group = head // each
    return slice(group * size, (group + 1) * size)


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_kept_is_the_teachers_own_numbers(family, tmp_path):
    config = CONFIGS[family]
    model, params = random(config)
    narrow = narrowed(config, 2, 20, 16)
    kept = choose(config, narrow, importance(model, params, [text(), text(2)]))
    assert (len(kept.width), [len(of) for of in kept.heads][:2]) == (16, [2, 2])
    cut = prune_width(config, params, kept)
    families.check_shapes(families.build(narrow), cut, "pruned")
    name = "blocks/1/feed_forward/contract/kernel"
    whole = np.asarray(named(params)[name])
    np.testing.assert_array_equal(named(cut)[name], whole[np.ix_(kept.feed_forward[1], kept.width)])
    np.testing.assert_array_equal(
        cut["embed"]["token"], np.asarray(params["embed"]["token"])[:, kept.width]
    )
    # HuggingFace's classes hold it, and give the same numbers back.
    folder.save(tmp_path, narrow, cut)
    actual, again = folder.load(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again, cut)
    np.testing.assert_array_equal(logits(actual, again, text()), logits(narrow, cut, text()))


def test_importance_is_the_mean_over_what_is_not_padding():
    model, params = random(tiny.config(layers=1))
    batch = text(3, 9)
    outputs = forward(model, params, batch)
    mask = np.asarray(batch.mask)
    actual = importance(model, params, [batch])
    np.testing.assert_allclose(
        actual.feed_forward[0],
        np.abs(np.asarray(outputs.ffn_activations[0]))[mask].mean(0),
        rtol=1e-4,
    )
    # A head's output, by hand: weights times values.
    values, weights = outputs.qkv[0][2], outputs.attention[0]
    heads = np.linalg.norm(np.einsum("BHLS,BHSK->BLHK", weights, values), axis=-1)
    np.testing.assert_allclose(actual.heads[0], heads[mask].mean(0), rtol=1e-4)
    sizes = [
        np.abs(h) / np.sqrt((h**2).mean(-1, keepdims=True)) for h in map(np.asarray, outputs.hidden)
    ]
    np.testing.assert_allclose(
        actual.width, np.mean([size[mask].mean(0) for size in sizes], 0), rtol=1e-4
    )
    parts = importance(
        model, params, [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(3)]
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), vars(parts), vars(actual)
    )


def test_the_largest_stay_in_their_order():
    actual = Importance(
        width=np.array([3.0, 1.0, 2.0, 5.0]),
        heads=np.array([[1.0, 4.0, 2.0, 2.0]]),
        feed_forward=np.array([[0.0, 1.0, 1.0]]),
    )
    config = llama.Config(layers=1, width=4, heads=4, head_width=2, kv_heads=2, feed_forward=3)
    narrow = narrowed(config, 2, 2, 2)
    kept = choose(config, narrow, actual)
    assert isinstance(kept, Kept)
    np.testing.assert_array_equal(kept.width, [0, 3])
    np.testing.assert_array_equal(kept.heads[0], [0, 1])  # groups (1 + 4) and (2 + 2)
    np.testing.assert_array_equal(kept.feed_forward[0], [1, 2])
    assert (narrow.head_width, narrow.kv_heads) == (2, 1)


@pytest.mark.parametrize(
    "config, sizes, message",
    [
        (bert.Config(), (6, 0, 0), "width 768 with 6 heads: .* 64 wide, so keep 6 x 64 = 384"),
        (bert.Config(), (0, 4000, 0), "feed_forward is 4000; the source has 3072"),
        (llama.Config(kv_heads=8), (6, 0, 0), "each key and value serves 4: keep a multiple"),
        (families.FAMILIES["albert"][0](), (6, 0, 0), "albert has another structure"),
    ],
)
def test_sizes_that_cannot_be_are_refused(config, sizes, message):
    with pytest.raises(ValueError, match=message):
        narrowed(config, *sizes)
