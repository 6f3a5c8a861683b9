"""Every decoder family with every head against transformers' torch model of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.hub import folder
from jaxkd.models import families
from jaxkd.models.heads import DECODER
from jaxkd.models.model import forward

transformers.logging.disable_progress_bar()
LENGTHS = (9, 6, 3, 1)
SIZES = dict(
    vocabulary=61, layers=3, width=32, heads=4, feed_forward=48, max_length=24, init_std=0.2,
    pad=0, norm_epsilon=1e-5,
)  # fmt: skip
EXPERTS = dict(experts=6, experts_per_token=2, expert_width=24, shared_width=40)
LLAMA3 = dict(rope="llama3", rope_factor=8.0, rope_low=1.0, rope_high=4.0, rope_original=16)
# Grouped queries, tied and untied heads, biases, heads wider than the model is, long rotary waves.
CASES = {
    "gpt2": ("gpt2", {}),
    "llama": ("llama", {}),
    "llama, grouped": ("llama", dict(kv_heads=2, tied=True)),
    "llama, biases": ("llama", dict(attention_bias=True, output_bias=True, feed_forward_bias=True)),
    "llama, llama3 rope": ("llama", LLAMA3 | dict(rope_theta=100.0)),
    "llama, linear rope": ("llama", dict(rope="linear", rope_factor=4.0)),
    "qwen2": ("qwen2", dict(kv_heads=2, tied=False)),
    "qwen2, tied": ("qwen2", dict(kv_heads=2)),
    "qwen3": ("qwen3", dict(kv_heads=2, head_width=12)),
    "qwen2_moe": ("qwen2_moe", EXPERTS | dict(kv_heads=2)),
    "qwen2_moe, normalised": ("qwen2_moe", EXPERTS | dict(kv_heads=0, normalise_experts=True)),
}
AUTO = {
    "causal_lm": transformers.AutoModelForCausalLM,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "bare": transformers.AutoModel,
}


def config(case: str, head: str):
    family, changes = CASES[case]
    settings = SIZES | changes | {"head": head}
    if head == "sequence_classification":
        settings["labels"] = ("no", "perhaps", "yes")
    return families.FAMILIES[family][0](**settings)


def reference(case: str, head: str, path):
    """A random torch model, saved; norms and biases are moved off the 1 and 0 that hide them."""
    torch.manual_seed(0)
    family = CASES[case][0]
    settings = folder.HUB[family].to_hub(config(case, head))
    settings = {k: v for k, v in settings.items() if k not in ("architectures", "model_type")}
    settings = transformers.AutoConfig.for_model(family, **settings)
    model = AUTO[head].from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    return model


def inputs(left: bool):
    tokens = np.random.default_rng(0).integers(2, 61, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    mask = np.ascontiguousarray(mask[:, ::-1]) if left else mask
    return np.where(mask, tokens, 0), mask


def in_torch(model, tokens, mask, **more):
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
    return model(
        torch.tensor(tokens),
        attention_mask=torch.tensor(mask).long(),
        position_ids=torch.tensor(positions),
        use_cache=False,
        **more,
    )


def batch(tokens, mask) -> Batch:
    return Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("head", DECODER)
@pytest.mark.parametrize("case", CASES)
def test_logits_and_hidden_states_match_torch(case, head, left, tmp_path):
    model = reference(case, head, tmp_path)
    config_again, params = folder.load(str(tmp_path))
    assert config_again == config(case, head)
    tokens, mask = inputs(left)
    with torch.no_grad():
        expected = in_torch(model, tokens, mask, output_hidden_states=True, output_attentions=True)
    ours = families.build(config_again)
    result = forward(ours, params, batch(tokens, mask))
    for i in range(config_again.layers - 1):  # after the last, torch tells the normalised states
        before, after = expected.hidden_states[i : i + 2]
        alone, inside = ours.blocks[i].apply(
            {"params": params["blocks"][i]}, jnp.array(before.numpy()), jnp.array(mask)
        )
        np.testing.assert_allclose(np.array(alone)[mask], after.numpy()[mask], atol=1e-5)
        np.testing.assert_allclose(result.hidden[i + 1][mask], after.numpy()[mask], atol=1e-4)
        weights = expected.attentions[i].numpy().swapaxes(1, 2)[mask]
        np.testing.assert_allclose(inside.attention.swapaxes(1, 2)[mask], weights, atol=1e-5)
        np.testing.assert_allclose(result.attention[i].swapaxes(1, 2)[mask], weights, atol=1e-4)
    if head == "bare":
        logits, where = expected.last_hidden_state.numpy(), mask
    else:
        logits, where = expected.logits.numpy(), mask if head == "causal_lm" else slice(None)
    np.testing.assert_allclose(result.logits[where], logits[where], atol=1e-4)


@pytest.mark.parametrize("case", ["gpt2", "llama, grouped", "qwen3", "qwen2_moe"])
def test_gradients_match_torch(case, tmp_path):
    model = reference(case, "causal_lm", tmp_path)
    config_again, params = folder.load(str(tmp_path))
    tokens, mask = inputs(left=False)
    logits = in_torch(model, tokens, mask).logits
    torch.nn.functional.cross_entropy(
        logits[:, :-1][torch.tensor(mask[:, 1:])], torch.tensor(tokens[:, 1:][mask[:, 1:]])
    ).backward()

    def loss(params):
        logits = forward(families.build(config_again), params, batch(tokens, mask)).logits
        log_probs = jax.nn.log_softmax(logits[:, :-1])
        right = jnp.take_along_axis(log_probs, jnp.array(tokens)[:, 1:, None], -1)[..., 0]
        return -jnp.where(mask[:, 1:], right, 0).sum() / mask[:, 1:].sum()

    gradient = jax.jit(jax.grad(loss))(params)
    table = folder.HUB[CASES[case][0]].table("causal_lm")
    exported = table.export(gradient)
    compared = 0
    for name, parameter in model.named_parameters():
        if name in exported:  # experts are one tensor in memory there, and one each in files
            expected = parameter.grad.numpy()
            np.testing.assert_allclose(exported[name], expected, atol=1e-5, err_msg=name)
            compared += 1
    assert compared > 8 * config_again.layers


@pytest.mark.parametrize("head", DECODER)
@pytest.mark.parametrize("case", ["gpt2", "llama, llama3 rope", "qwen2", "qwen3", "qwen2_moe"])
def test_round_trip_is_bitwise_and_transformers_opens_it(case, head, tmp_path):
    settings = config(case, head)
    model = families.build(settings)
    params = model.init(0)
    folder.save(tmp_path, settings, params)
    again_settings, again = folder.load(str(tmp_path))
    assert again_settings == settings
    jax.tree.map(np.testing.assert_array_equal, again, params)
    opened, loading = AUTO[head].from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert type(opened).__name__ == folder.HUB[CASES[case][0]].heads[head].architecture
    if head == "causal_lm":
        tokens, mask = inputs(left=False)
        with torch.no_grad():
            expected = in_torch(opened.eval(), tokens, mask).logits.numpy()
        result = forward(model, params, batch(tokens, mask)).logits
        np.testing.assert_allclose(result[mask], expected[mask], atol=1e-4)


def test_what_came_later_changes_nothing_before():
    settings = config("llama, grouped", "causal_lm")
    model = families.build(settings)
    params = model.init(0)
    tokens, mask = inputs(left=False)
    full = forward(model, params, batch(tokens[:1], mask[:1])).logits
    cut = forward(model, params, batch(tokens[:1, :5], mask[:1, :5])).logits
    np.testing.assert_allclose(full[:, :5], cut, atol=1e-5)


def test_padding_on_the_left_changes_nothing():
    for case in ("gpt2", "llama", "qwen2_moe"):
        settings = config(case, "causal_lm")
        model = families.build(settings)
        params = model.init(0)
        (right, mask), (left, other) = inputs(False), inputs(True)
        for row, length in enumerate(LENGTHS):
            left[row, -length:] = right[row, :length]
        result = forward(model, params, batch(right, mask)).logits
        moved = forward(model, params, batch(left, other)).logits
        for row, length in enumerate(LENGTHS):
            np.testing.assert_allclose(
                result[row, :length], moved[row, -length:], atol=1e-5, err_msg=case
            )


@pytest.mark.parametrize(
    "case, change, named",
    [
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
            "rope_type='yarn'",
        ),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True"),
        ("qwen2_moe", {"decoder_sparse_step": 2}, "decoder_sparse_step=2"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_a_config_value_that_is_not_implemented_is_named(case, change, named):
    family = folder.HUB[CASES[case][0]]
    with pytest.raises(ValueError, match=f"{named}.*is not implemented"):
        family.from_hub(family.to_hub(config(case, "causal_lm")) | change)
