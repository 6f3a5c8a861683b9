"""Piece by piece is the same as at once, at every position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.decode.cached import advance, empty
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.hub.test_decoders import LENGTHS, config, inputs
from tests.models import tiny


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("case", ["gpt2", "llama, grouped", "qwen3", "qwen2_moe"])
def test_a_cached_step_gives_what_the_whole_gives(case, left):
    settings = config(case, "causal_lm")
    model = families.build(settings)
    params = model.init(0)
    tokens, mask = inputs(left)
    length, room = max(LENGTHS), max(LENGTHS) + 3
    whole = forward(model, params, Batch(jnp.array(tokens, jnp.int32), jnp.array(mask)))
    allowed = jnp.pad(jnp.array(mask), ((0, 0), (0, room - length)))
    step = jax.jit(lambda tokens, caches: advance(model, params, tokens, allowed, caches))
    caches = empty(settings, len(LENGTHS), room)
    found = []
    for first, last in ((0, 4), *((i, i + 1) for i in range(4, length))):  # a prompt, then steps
        piece, caches = step(jnp.array(tokens[:, first:last], jnp.int32), caches)
        found.append(piece.logits)
        for mine, its in zip(piece.hidden, whole.hidden, strict=True):
            here = mask[:, first:last]
            np.testing.assert_allclose(mine[here], its[:, first:last][here], atol=1e-5)
    assert int(caches[0].seen) == length
    np.testing.assert_allclose(np.concatenate(found, 1)[mask], whole.logits[mask], atol=1e-4)


def test_what_cannot_be_cached_is_refused():
    with pytest.raises(ValueError, match="bert is no decoder"):
        empty(tiny.config(), 1, 8)
    with pytest.raises(ValueError, match="room for 25 positions; gpt2 has 24"):
        empty(config("gpt2", "causal_lm"), 1, 25)
