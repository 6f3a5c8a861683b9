"""The torch bridge computes what JAX and transformers compute, for every encoder and head."""

import dataclasses
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from jaxkd.core.batch import Batch
from jaxkd.export.torch_encoder import ACTIVATIONS, HEADS, PADDING_BIAS, to_torch
from jaxkd.hub import bert as hub
from jaxkd.models import activations, bert, families, llama
from jaxkd.models.model import forward
from tests.models.tiny import encoder, random_params

CONFIG = bert.Config(
    vocabulary=37, layers=2, width=24, heads=3, feed_forward=40, max_length=11, dropout=0.0
)


def random_batch(rows=3, length=9, seed=1):
    tokens = np.random.default_rng(seed).integers(CONFIG.vocabulary, size=(rows, length))
    return tokens, np.arange(length) < (length - 2 * np.arange(rows))[:, None]


def run_torch(config, params, tokens, mask):
    return to_torch(config, params)(torch.tensor(tokens), torch.tensor(mask)).numpy()


def run_jax(config, params, tokens, mask):
    model, batch = families.build(config), Batch(jnp.asarray(tokens), jnp.asarray(mask))
    return np.asarray(jax.jit(lambda p: forward(model, p, batch).logits)(params))


def run_transformers(config, params, tokens, mask):
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(**hub.FAMILY.to_hub(config))
    ).eval()
    tensors = {
        name: torch.tensor(array)
        for name, array in hub.FAMILY.table("masked_lm").export(params).items()
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert (set(missing), unexpected) == (TIED, [])
    with torch.no_grad():
        return model(torch.tensor(tokens), torch.tensor(mask.astype(int))).logits.numpy()


TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_an_activation_is_the_same_function_in_jax_and_torch_and_transformers(name):
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    result = ACTIVATIONS[name](torch.tensor(x)).numpy()
    np.testing.assert_allclose(result, ACT2FN[name](torch.tensor(x)).numpy(), atol=2e-6)
    np.testing.assert_allclose(result, activations.ACTIVATIONS[name](jnp.asarray(x)), atol=2e-6)


def test_the_bridge_has_every_activation_a_config_may_name_and_no_other():
    assert ACTIVATIONS.keys() == activations.ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "relu"])
def test_logits_are_those_of_jax_and_of_transformers_where_the_mask_is_true(name):
    config = dataclasses.replace(CONFIG, activation=name)
    params, (tokens, mask) = random_params(config), random_batch()
    result = run_torch(config, params, tokens, mask)
    for other in (run_jax, run_transformers):
        expected = other(config, params, tokens, mask)
        np.testing.assert_allclose(result[mask], expected[mask], rtol=0, atol=1e-4)
    assert result.std() > 0.1  # so that 1e-4 means something


def test_a_layer_computes_what_our_block_computes():
    params, (_, mask) = random_params(CONFIG)["blocks"][0], random_batch()
    hidden = np.random.default_rng(2).normal(size=(*mask.shape, CONFIG.width)).astype(np.float32)
    block = bert.build(CONFIG).blocks[0]
    expected, _ = block.apply({"params": params}, jnp.asarray(hidden), jnp.asarray(mask))
    whole = to_torch(CONFIG, random_params(CONFIG))
    layer = whole.blocks[0]
    bias = torch.tensor(np.where(mask, 0.0, PADDING_BIAS)[:, None, None, :].astype(np.float32))
    result = layer(torch.tensor(hidden), bias).numpy()
    np.testing.assert_allclose(result[mask], np.asarray(expected)[mask], rtol=0, atol=1e-5)


CASES = [(family, head) for family in ("bert", "distilbert", "roberta", "albert") for head in HEADS]


@pytest.mark.parametrize(("family", "head"), CASES)
def test_every_encoder_and_head_computes_what_jax_computes(family, head):
    config = encoder(family, head)
    params, (tokens, mask) = random_params(config), random_batch()
    tokens = np.where(mask, tokens, config.pad)
    result = run_torch(config, params, tokens, mask)
    expected = run_jax(config, params, tokens, mask)
    counted = mask if result.ndim == 3 else slice(None)
    np.testing.assert_allclose(result[counted], expected[counted], rtol=0, atol=1e-4)
    assert result.std() > 0.1  # so that 1e-4 means something


@pytest.mark.parametrize(
    "config", [llama.Config(), bert.Config(head="bare")], ids=["llama", "bare"]
)
def test_what_the_bridge_has_not_is_refused_with_another_way(config):
    with pytest.raises(ValueError, match="found .* with the head .* HuggingFace folder instead"):
        to_torch(config, {})


def test_tokens_in_padding_and_its_length_change_no_logit():
    params, (tokens, mask) = random_params(CONFIG), random_batch()
    result = run_torch(CONFIG, params, tokens, mask)
    other = run_torch(CONFIG, params, np.where(mask, tokens, 5), mask)
    np.testing.assert_array_equal(result[mask], other[mask])
    alone = run_torch(CONFIG, params, tokens[2:, :5], np.ones((1, 5), bool))  # row 2 has 5 tokens
    np.testing.assert_allclose(result[2:, :5], alone, rtol=0, atol=1e-5)


def test_a_mask_of_bools_and_one_of_integers_mean_the_same():
    params, (tokens, mask) = random_params(CONFIG), random_batch()
    np.testing.assert_array_equal(
        run_torch(CONFIG, params, tokens, mask),
        run_torch(CONFIG, params, tokens, mask.astype(np.int64)),
    )


def test_a_row_of_padding_alone_stays_finite():
    tokens, mask = random_batch()
    result = run_torch(CONFIG, random_params(CONFIG), tokens, np.zeros_like(mask))
    assert np.isfinite(result).all()


def test_the_bridge_is_float32_whatever_the_config_computes_in():
    params, (tokens, mask) = random_params(CONFIG), random_batch()
    bfloat16 = dataclasses.replace(CONFIG, compute="bfloat16")
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    result = run_torch(bfloat16, rounded, tokens, mask)
    assert result.dtype == np.float32
    expected = run_torch(
        CONFIG, jax.tree.map(lambda x: x.astype(jnp.float32), rounded), tokens, mask
    )
    np.testing.assert_array_equal(result, expected)


def test_writing_into_the_torch_model_leaves_our_parameters_alone():
    params = random_params(CONFIG)
    before = np.array(params["embed"]["token"])
    to_torch(CONFIG, params).embed.token.weight.data.zero_()
    np.testing.assert_array_equal(params["embed"]["token"], before)


def test_building_the_bridge_draws_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    to_torch(CONFIG, random_params(CONFIG))
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_of_another_shape_are_refused_by_name():
    wider = dataclasses.replace(CONFIG, feed_forward=48)
    with pytest.raises(
        ValueError, match=r"blocks/0/feed_forward/expand/bias: found \(48,\), needed \(40,\)"
    ):
        to_torch(CONFIG, random_params(wider))


def test_without_torch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "jaxkd.export.torch_encoder")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxkd\[export\]'"):
        importlib.import_module("jaxkd.export.torch_encoder")
