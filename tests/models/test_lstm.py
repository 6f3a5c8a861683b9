"""The LSTM layers against torch's, and what padding and pruning must not do to them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxkd.models import families, lstm
from jaxkd.models.model import forward
from tests.hub.test_seq2seq import READ, batch, side

SETTINGS = dict(
    vocabulary=61, layers=2, encoder_layers=1, width=32, heads=2, init_std=0.2, dropout=0.0, pad=3
)


def in_torch(params, hidden, lengths, names):
    """torch's LSTM with our weights, over right-padded rows."""
    two = len(names) == 2
    width = params[names[0]]["recurrent"].shape[0]
    layer = torch.nn.LSTM(hidden.shape[-1], width, batch_first=True, bidirectional=two)
    with torch.no_grad():
        for name, end in zip(names, ("l0", "l0_reverse"), strict=False):
            arguments = jax.tree.map(lambda x: torch.tensor(np.array(x)), params[name])
            getattr(layer, f"weight_ih_{end}").copy_(arguments["input"]["kernel"].T)
            getattr(layer, f"weight_hh_{end}").copy_(arguments["recurrent"].T)
            getattr(layer, f"bias_ih_{end}").copy_(arguments["input"]["bias"])
            getattr(layer, f"bias_hh_{end}").zero_()
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            torch.tensor(hidden), lengths, batch_first=True, enforce_sorted=False
        )
        return torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)[0].numpy()


def drawn(module, **arguments):
    """Random parameters with biases off zero."""
    params = module.init(jax.random.key(0), **arguments)["params"]
    noise = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    noise = jax.tree.unflatten(jax.tree.structure(params), noise)
    return jax.tree.map(lambda x, k: x + 0.1 * jax.random.normal(k, x.shape), params, noise)


def test_the_reader_is_a_bidirectional_lstm_added_to_its_input():
    _, mask = side(READ)
    hidden = np.random.default_rng(0).normal(size=(*mask.shape, 32)).astype(np.float32)
    reader = lstm.EncoderLayer(lstm.Config(**SETTINGS))
    arguments = dict(hidden=jnp.array(hidden), mask=jnp.array(mask))
    params = drawn(reader, **arguments)
    actual, _ = reader.apply({"params": params}, **arguments)
    expected = hidden + in_torch(params, hidden, READ, ("forward", "backward"))
    np.testing.assert_allclose(actual[mask], expected[mask], atol=1e-5)


def test_the_writer_is_an_lstm_and_attention_to_what_was_read():
    _, mask = side((7, 4, 2, 5), seed=1)
    (_, read), rng = side(READ), np.random.default_rng(0)
    hidden = rng.normal(size=(*mask.shape, 32)).astype(np.float32)
    memory = rng.normal(size=(*read.shape, 32)).astype(np.float32)
    writer = lstm.DecoderLayer(lstm.Config(**SETTINGS))
    arguments = dict(hidden=hidden, mask=mask, memory=memory, memory_mask=read)
    arguments = jax.tree.map(jnp.array, arguments)
    params = drawn(writer, **arguments)
    actual, inside = writer.apply({"params": params}, **arguments)
    between = torch.tensor(hidden + in_torch(params, hidden, (7, 4, 2, 5), ("lstm",)))
    p = jax.tree.map(lambda x: torch.tensor(np.array(x)), params["cross"])
    attention = torch.nn.MultiheadAttention(32, 2, batch_first=True)
    with torch.no_grad():
        three = [p[name] for name in ("query", "key", "value")]
        attention.in_proj_weight.copy_(torch.cat([x["kernel"].T for x in three]))
        attention.in_proj_bias.copy_(torch.cat([x["bias"] for x in three]))
        attention.out_proj.weight.copy_(p["output"]["kernel"].T)
        attention.out_proj.bias.copy_(p["output"]["bias"])
        context, weights = attention(
            between,
            torch.tensor(memory),
            torch.tensor(memory),
            key_padding_mask=torch.tensor(~read),
            average_attn_weights=False,
        )
    np.testing.assert_allclose(actual[mask], (between + context).numpy()[mask], atol=1e-5)
    rows = np.broadcast_to(mask[:, None], (4, 2, mask.shape[1]))
    np.testing.assert_allclose(inside.cross[rows], weights.numpy()[rows], atol=1e-5)


@pytest.mark.parametrize("family", ["lstm", "marian", "bart"])
def test_what_came_later_and_what_is_padding_change_nothing(family):
    settings = families.FAMILIES[family][0](**(SETTINGS | dict(feed_forward=48, max_length=24)))
    model = families.build(settings)
    params, arguments = model.init(0), batch()
    whole = forward(model, params, arguments).logits
    cut = dataclasses.replace(
        arguments,
        decoder_tokens=arguments.decoder_tokens[:, :4],
        decoder_mask=arguments.decoder_mask[:, :4],
    )
    np.testing.assert_allclose(forward(model, params, cut).logits, whole[:, :4], atol=1e-5)
    pad = dataclasses.replace(arguments, tokens=jnp.where(arguments.mask, arguments.tokens, 11))
    where = np.array(arguments.decoder_mask)
    np.testing.assert_allclose(forward(model, params, pad).logits[where], whole[where], atol=1e-5)


def test_two_vocabularies_have_two_tables():
    model = families.build(lstm.Config(**SETTINGS, source_vocabulary=70))
    params = model.init(0)
    assert params["encoder"]["embed"]["token"].shape == (70, 32)
    assert params["embed"]["token"].shape == (61, 32)
    assert forward(model, params, batch()).logits.shape == (4, 7, 61)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width 31 is odd"):
        families.build(lstm.Config(**(SETTINGS | dict(width=31, heads=1))))


def test_a_matrix_applied_at_many_steps_keeps_its_gradient_in_bfloat16():
    hidden = jax.random.normal(jax.random.key(0), (16, 256, 32))
    arguments = dict(hidden=hidden, mask=jnp.ones(hidden.shape[:2], bool))
    probe = jax.random.normal(jax.random.key(1), hidden.shape)
    exact, low = (lstm.Lstm(32, 0.2, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    params = drawn(exact, **arguments)

    def gradient(layer):
        def probed(params):
            return jnp.vdot(layer.apply({"params": params}, **arguments)[0], probe)

        return jax.grad(probed)(params)["recurrent"]

    expected = gradient(exact)
    # bfloat16 has eight bits: 2^-8 is what its inputs are rounded to.
    assert jnp.linalg.norm(gradient(low) - expected) < 2**-7 * jnp.linalg.norm(expected)
