"""Blocks and vocabulary cut over devices: the same numbers, and nobody has a whole matrix."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxkd import losses
from jaxkd.core.outputs import Projection
from jaxkd.core.tree import named
from jaxkd.distil.step import initial_state, make_step
from jaxkd.distil.terms import CosineHidden, Divergence, HardLabels
from jaxkd.models import families, llama
from jaxkd.train import parallel
from jaxkd.train.placement import mesh_of
from tests.models import tiny

TERMS = {
    "kd": Divergence(kind="jensen_shannon", temperature=2.0),
    "ce": HardLabels(),
    "cosine": CosineHidden(),
}


def bert(**changes):
    return tiny.config(vocabulary=64, **changes)


def decoder(**changes):
    settings = dict(
        vocabulary=64, width=32, heads=4, kv_heads=2, feed_forward=48, max_length=24, init_std=0.2
    )
    return llama.Config(**settings, **changes)


@pytest.mark.parametrize(
    ("config", "count", "tensor", "chunk"),
    [
        (bert, 8, 4, 5),
        # The vocabulary divides by 8, four heads and two of keys do not.
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((decoder, 8, 8, 5), (decoder, 4, 2, 0), (bert, 2, 2, 0), (bert, 8, 8, 0))
        ),
    ],
)
def test_tensor_parallel_equals_jitted_on_ragged_rows(config, count, tensor, chunk):
    model, teacher = (families.build(config(layers=n)) for n in (1, 2))
    optimiser, batch = optax.sgd(0.1), tiny.batch(rows=16, vocabulary=64)
    params, teacher_params = model.init(0), teacher.init(1)

    def step(**options):
        return make_step(model, TERMS, optimiser, seed=0, teacher=teacher, **options)

    expected, output = parallel.jitted(step())(
        initial_state(params, optimiser), teacher_params, batch
    )
    devices = jax.devices()[:count]
    state = parallel.shard(initial_state(params, optimiser), devices, tensor)
    run = parallel.sharded(step(chunk=chunk), devices, tensor)
    actual, metrics = run(state, parallel.shard(teacher_params, devices, tensor), batch)
    chex.assert_trees_all_close(actual.params, expected.params, rtol=1e-6, atol=1e-6)
    for name, mean in output.items():
        np.testing.assert_allclose(metrics[name].compute(), mean.compute(), rtol=1e-5)


def test_a_device_has_its_share_of_heads_channels_and_tokens():
    state = initial_state(families.build(bert(layers=1)).init(0), optax.adam(1e-3))
    cut = named(parallel.shard(state, jax.devices()[:8], tensor=4))
    for of in ("params", "optimiser/0/mu"):
        shares = {
            name: cut[f"{of}/{name}"].addressable_shards[0].data.shape
            for name in (
                "embed/token",
                "head/bias",
                "blocks/0/attention/query/kernel",
                "blocks/0/attention/query/bias",
                "blocks/0/attention/output/kernel",
                "blocks/0/feed_forward/expand/kernel",
                "blocks/0/feed_forward/contract/kernel",
                "blocks/0/norm/scale",
            )
        }
        assert list(shares.values()) == [
            (16, 16), (16,), (16, 8), (8,), (8, 16), (16, 12), (12, 16), (16,)
        ]  # fmt: skip


VOCABULARY, CHUNK = 4096, 128


def compiled(kind, tensor, vocabulary=VOCABULARY):
    """Loss and gradient over 512 positions, their matrices cut as `spread` cuts them."""
    mesh = mesh_of(jax.devices()[:8], tensor)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    axis = "tensor" if tensor > 1 else "data"
    tokens = NamedSharding(mesh, PartitionSpec(None if vocabulary % 8 else axis))
    term = Divergence(kind=kind)

    def array(*shape, where, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    def loss(student, teacher, labels, mask):
        def values(logits, teacher_logits, labels):
            ce = losses.hard_labels(logits, labels)
            return {"kd": term.values(logits, teacher_logits, labels), "ce": ce}

        arguments = ({"kd": 1.0, "ce": 0.5}, student, teacher, labels, mask)
        return losses.fused(values, *arguments, chunk=CHUNK)[0]

    arguments = (
        *(
            Projection(array(512, width, where=rows), array(vocabulary, width, where=tokens))
            for width in (64, 96)
        ),
        array(512, where=rows, dtype=jnp.int32),
        array(512, where=rows, dtype=bool),
    )
    out = (NamedSharding(mesh, PartitionSpec()), Projection(rows, tokens))
    with jax.set_mesh(mesh):
        return jax.jit(jax.value_and_grad(loss), out_shardings=out).lower(*arguments).compile()


SENT = r"\w+\[([\d,]*)\]\S* (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"


def largest_sent(program):
    shapes = re.findall(SENT, program.as_text())
    assert shapes
    return max(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


@pytest.mark.parametrize(
    "kind",
    [
        "jensen_shannon",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("forward_kl", "reverse_kl", "skewed_kl", "total_variation")
        ),
    ],
)
def test_a_vocabulary_that_is_shared_is_never_sent(kind):
    shared, whole = compiled(kind, 8), compiled(kind, 1)
    # Features of 512 positions, or of a chunk; the matrices are of 4096.
    assert largest_sent(shared) <= 512 * 96
    assert largest_sent(whole) >= VOCABULARY * 64
    temporary = [x.memory_analysis().temp_size_in_bytes for x in (shared, whole)]
    assert temporary[0] < temporary[1] / 4


def test_logits_are_shared_where_the_vocabulary_does_not_divide():
    shared, whole = compiled("forward_kl", 8, 4093), compiled("forward_kl", 1)
    temporary = [x.memory_analysis().temp_size_in_bytes for x in (shared, whole)]
    assert temporary[0] < temporary[1] / 2


def test_devices_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"tensor is 3; of 8 device\(s\) .* \[1, 2, 4, 8\]"):
        parallel.strategy("sharded", 3)
    with pytest.raises(ValueError, match="tensor=2 and parallel='jitted'"):
        parallel.strategy("jitted", 2)
