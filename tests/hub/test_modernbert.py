"""ModernBERT against transformers' torch model of it: local and global blocks, every head."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.hub import folder
from jaxkd.models import attention, families, modernbert
from jaxkd.models.model import forward

transformers.logging.disable_progress_bar()
LENGTHS = (14, 9, 6, 1)
SIZES = dict(
    vocabulary=61, layers=5, width=32, heads=4, feed_forward=48, max_length=24, init_std=0.2, pad=0,
    window=2, labels=("no", "perhaps", "yes"),
)  # fmt: skip
BIASES = dict.fromkeys(
    ("norm_bias", "attention_bias", "feed_forward_bias", "classifier_bias"), True
)
CASES = {
    "masked_lm": dict(head="masked_lm"),
    "masked_lm, biases": dict(head="masked_lm", **BIASES),
    "masked_lm, own layer types": dict(
        head="masked_lm", layer_types=("global", "global", "local", "local", "global")
    ),
    "masked_lm, no output bias": dict(head="masked_lm", decoder_bias=False),
    "sequence, cls": dict(head="sequence_classification"),
    "sequence, mean": dict(head="sequence_classification", classifier_pooling="mean"),
    "tokens": dict(head="token_classification", **BIASES),
    "bare": dict(head="bare", global_every=2, rope_theta=50.0, local_rope_theta=7.0),
}
AUTO = {
    "masked_lm": transformers.AutoModelForMaskedLM,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "token_classification": transformers.AutoModelForTokenClassification,
    "bare": transformers.AutoModel,
}


def config(case):
    settings = SIZES | CASES[case]
    if not settings["head"].endswith("classification"):
        del settings["labels"]
    return modernbert.Config(**settings)


def reference(case, path):
    """A random torch model, saved; norms and biases are moved off the 1 and 0 that hide them."""
    torch.manual_seed(0)
    ours = config(case)
    settings = folder.HUB["modernbert"].to_hub(ours)
    settings = {k: v for k, v in settings.items() if k not in ("architectures", "model_type")}
    settings = transformers.ModernBertConfig(**settings)
    model = AUTO[ours.head].from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    return model


def inputs(left=False):
    tokens = np.random.default_rng(0).integers(2, 61, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    mask = np.ascontiguousarray(mask[:, ::-1]) if left else mask
    return np.where(mask, tokens, 0), mask


def batch(tokens, mask):
    return Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))


@pytest.mark.parametrize("case", CASES)
def test_logits_hidden_states_and_attention_match_torch(case, tmp_path):
    model = reference(case, tmp_path)
    settings, params = folder.load(str(tmp_path))
    assert settings == config(case)
    tokens, mask = inputs()
    with torch.no_grad():
        theirs = model(
            torch.tensor(tokens),
            torch.tensor(mask).long(),
            output_hidden_states=True,
            output_attentions=True,
        )
    ours = families.build(settings)
    outputs = forward(ours, params, batch(tokens, mask))
    for i in range(settings.layers - 1):  # after the last, torch returns the normalised states
        before, after = theirs.hidden_states[i : i + 2]
        alone, inside = ours.blocks[i].apply(
            {"params": params["blocks"][i]}, jnp.array(before.numpy()), jnp.array(mask)
        )
        np.testing.assert_allclose(np.array(alone)[mask], after.numpy()[mask], atol=1e-5)
        np.testing.assert_allclose(outputs.hidden[i + 1][mask], after.numpy()[mask], atol=1e-4)
        weights = theirs.attentions[i].numpy().swapaxes(1, 2)[mask]
        np.testing.assert_allclose(inside.attention.swapaxes(1, 2)[mask], weights, atol=1e-5)
    logits = theirs.last_hidden_state if settings.head == "bare" else theirs.logits
    where = mask if outputs.logits.ndim == 3 else slice(None)
    np.testing.assert_allclose(outputs.logits[where], logits.numpy()[where], atol=1e-4)


@pytest.mark.parametrize("case", ["masked_lm, own layer types", "sequence, mean", "tokens", "bare"])
def test_round_trip_is_bitwise_and_transformers_opens_it(case, tmp_path):
    settings = config(case)
    params = families.build(settings).init(0)
    folder.save(tmp_path, settings, params)
    again_settings, again = folder.load(str(tmp_path))
    assert again_settings == settings
    jax.tree.map(np.testing.assert_array_equal, again, params)
    opened, info = AUTO[settings.head].from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    kinds = {"full_attention": "global", "sliding_attention": "local"}
    assert tuple(kinds[kind] for kind in opened.config.layer_types) == settings.types
    ropes = opened.config.rope_parameters
    assert ropes["full_attention"]["rope_theta"] == settings.rope_theta
    assert ropes["sliding_attention"]["rope_theta"] == settings.local_rope_theta


def test_settings_as_transformers_4_wrote_them_are_read(tmp_path):
    """answerdotai/ModernBERT-base's config.json has these keys instead of layer_types."""
    reference("bare", tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    for key in ("layer_types", "rope_parameters"):
        del stored[key]
    old = dict(global_attn_every_n_layers=2, global_rope_theta=50.0, local_rope_theta=7.0)
    path.write_text(json.dumps(stored | old))
    assert folder.load(str(tmp_path))[0] == config("bare")


def test_a_local_block_attends_to_its_window_and_no_further():
    settings = config("masked_lm")
    model = families.build(settings)
    tokens, mask = inputs()
    outputs = forward(model, model.init(0), batch(tokens[:1], mask[:1]))
    distance = np.abs(np.arange(14) - np.arange(14)[:, None])
    for kind, weights in zip(settings.types, outputs.attention, strict=True):
        far = np.asarray(weights)[:, :, distance > settings.window]
        assert (far == 0).all() if kind == "local" else (far > 0).all()
    assert settings.types == ("global", "local", "local", "global", "local")


def test_chunked_attention_gives_the_plain_ones_numbers(monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", 4)  # four chunks, the last one not full
    settings = config("masked_lm")
    params, arguments = families.build(settings).init(0), batch(*inputs())
    plain = forward(families.build(settings), params, arguments).logits
    chunked = families.build(dataclasses.replace(settings, attention="chunked"))
    mask = np.array(arguments.mask)
    np.testing.assert_allclose(
        forward(chunked, params, arguments).logits[mask], plain[mask], atol=1e-5
    )


def test_kept_blocks_stay_local_or_global():
    settings = config("masked_lm")
    kept = settings.keep([0, 3, 4])
    assert kept.types == ("global", "global", "local")
    assert kept.layer_types and settings.keep([0, 1, 2]).layer_types == ()
    model = families.build(settings)
    params, arguments = model.init(0), batch(*inputs())
    short = params | {"blocks": [params["blocks"][i] for i in (0, 3, 4)]}
    actual = forward(families.build(kept), short, arguments)
    skipped = forward(model, params, arguments, keep=jnp.array([True, False, False, True, True]))
    np.testing.assert_allclose(actual.logits, skipped.logits, atol=1e-5)
    with pytest.raises(ValueError, match="first block of a ModernBERT has no attention norm"):
        settings.keep([1, 2])


def test_unequal_blocks_cannot_be_scanned():
    with pytest.raises(ValueError, match="scan_layers needs equal blocks; block 1 is configured"):
        families.build(dataclasses.replace(config("masked_lm"), scan_layers=True))


@pytest.mark.parametrize(
    "change, named",
    [
        (dict(layer_types=["full_attention", "chunked"]), "layer_types has 'chunked'"),
        (
            dict(rope_parameters={"full_attention": {"rope_type": "yarn"}}),
            "rope_type='yarn' is not implemented",
        ),
        (dict(tie_word_embeddings=False), "tie_word_embeddings=False is not implemented"),
    ],
)
def test_a_config_value_that_is_not_implemented_is_named(change, named):
    family = folder.HUB["modernbert"]
    with pytest.raises(ValueError, match=named):
        family.from_hub(family.to_hub(config("masked_lm")) | change)
