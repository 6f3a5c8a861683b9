"""Piece by piece is the same as at once, at every position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkd.core.batch import Batch
from jaxkd.decode.cached import advance, empty
from jaxkd.models import families
from jaxkd.models.cache_positions import sequential
from jaxkd.models.model import encode, forward
from tests.hub import test_seq2seq as seq2seq
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

    @jax.jit
    def step(tokens, start, caches):
        places = sequential(allowed, start, tokens.shape[1])
        return advance(model, params, tokens, places, caches)

    caches, actual = empty(settings, len(LENGTHS), room), []
    for first, last in ((0, 4), *((i, i + 1) for i in range(4, length))):  # a prompt, then steps
        piece, caches = step(jnp.array(tokens[:, first:last], jnp.int32), first, caches)
        actual.append(piece.logits)
        for student_outputs, teacher_outputs in zip(piece.hidden, whole.hidden, strict=True):
            local = mask[:, first:last]
            np.testing.assert_allclose(
                student_outputs[local], teacher_outputs[:, first:last][local], atol=1e-5
            )
    np.testing.assert_allclose(np.concatenate(actual, 1)[mask], whole.logits[mask], atol=1e-4)


@pytest.mark.parametrize("family", ["marian", "bart", "lstm"])
def test_an_encoder_decoder_reads_once_and_writes_step_by_step(family):
    settings = families.FAMILIES[family][0](**(seq2seq.SIZES | dict(dropout=0.0, heads=2)))
    model = families.build(settings)
    params, arguments = model.init(0), seq2seq.batch()
    whole = forward(model, params, arguments)
    length, room = arguments.decoder_tokens.shape[1], 10
    allowed = jnp.pad(arguments.decoder_mask, ((0, 0), (0, room - length)))
    memory = encode(model, params, arguments).hidden[-1]

    @jax.jit
    def step(tokens, start, caches, memory):
        places = sequential(allowed, start, tokens.shape[1])
        return advance(
            model, params, tokens, places, caches, memory=memory, memory_mask=arguments.mask
        )

    caches, actual = empty(settings, 4, room, memory.shape[1]), []
    for first, last in ((0, 3), *((i, i + 1) for i in range(3, length))):
        piece, caches = step(arguments.decoder_tokens[:, first:last], first, caches, memory)
        memory = None  # from now on the caches have its keys and values
        actual.append(piece.logits)
        for student_outputs, teacher_outputs in zip(piece.hidden, whole.hidden, strict=True):
            local = np.array(arguments.decoder_mask[:, first:last])
            np.testing.assert_allclose(
                student_outputs[local], teacher_outputs[:, first:last][local], atol=1e-5
            )
    where = np.array(arguments.decoder_mask)
    np.testing.assert_allclose(np.concatenate(actual, 1)[where], whole.logits[where], atol=1e-4)


def test_what_cannot_be_cached_is_refused():
    with pytest.raises(ValueError, match="bert is no decoder"):
        empty(tiny.config(), 1, 8)
    with pytest.raises(ValueError, match="memory=0: bart has an encoder"):
        empty(families.FAMILIES["bart"][0](), 1, 8)
    with pytest.raises(ValueError, match="memory=5: gpt2 has no encoder"):
        empty(config("gpt2", "causal_lm"), 1, 8, 5)
    with pytest.raises(ValueError, match="room for 25 positions; gpt2 has 24"):
        empty(config("gpt2", "causal_lm"), 1, 25)
