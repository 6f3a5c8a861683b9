"""Marian and BART against transformers' torch models of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.hub import folder
from jaxkd.models import families
from jaxkd.models.model import forward

transformers.logging.disable_progress_bar()
READ, WRITTEN = (9, 6, 3, 1), (4, 7, 2, 5)
SIZES = dict(
    vocabulary=61, layers=2, encoder_layers=1, width=32, heads=4, feed_forward=48, max_length=24,
    init_std=0.2, start=5, end=6, pad=3,
)  # fmt: skip
CASES = {
    "marian": ("marian", {}),
    "marian, other encoder": ("marian", dict(encoder_heads=2, encoder_feed_forward=40)),
    "bart": ("bart", {}),
    "bart, scaled": ("bart", dict(scaled_embedding=True)),
}


def config(case: str):
    family, changes = CASES[case]
    return families.FAMILIES[family][0](**(SIZES | changes))


def reference(case: str, path):
    """A random torch model, saved; norms and biases are moved off the 1 and 0 that hide them."""
    torch.manual_seed(0)
    settings = folder.HUB[CASES[case][0]].to_hub(config(case))
    settings = {k: v for k, v in settings.items() if k not in ("architectures", "model_type")}
    settings = transformers.AutoConfig.for_model(CASES[case][0], **settings)
    model = transformers.AutoModelForSeq2SeqLM.from_config(settings, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "embed_positions" not in name or case[0] == "b":
                parameter += 0.1 * torch.randn_like(parameter)
        model.final_logits_bias += torch.randn_like(model.final_logits_bias)
    model.save_pretrained(path)
    return model.eval()


def side(lengths, left=False, seed=0):
    tokens = np.random.default_rng(seed).integers(7, 61, (len(lengths), max(lengths)))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    mask = np.ascontiguousarray(mask[:, ::-1]) if left else mask
    return np.where(mask, tokens, SIZES["pad"]), mask


def batch(left=False) -> Batch:
    (tokens, mask), (target_tokens, target_mask) = side(READ, left), side(WRITTEN, seed=1)
    return Batch(
        jnp.array(tokens, jnp.int32),
        jnp.array(mask),
        decoder_tokens=jnp.array(target_tokens, jnp.int32),
        decoder_mask=jnp.array(target_mask),
    )


def in_torch(model, left=False, **more):
    (tokens, mask), (target_tokens, target_mask) = side(READ, left), side(WRITTEN, seed=1)
    return model(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask).long(),
        decoder_input_ids=torch.tensor(target_tokens),
        decoder_attention_mask=torch.tensor(target_mask).long(),
        use_cache=False,
        **more,
    )


def compare(ours, theirs, where, atol):
    assert len(ours) == len(theirs) > 0
    for actual, state in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.array(actual)[where], state.numpy()[where], atol=atol)


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("case", CASES)
def test_logits_states_and_attention_match_torch(case, left, tmp_path):
    model = reference(case, tmp_path)
    settings, params = folder.load(str(tmp_path))
    assert settings == config(case)
    example = batch(left)
    read, written = np.array(example.mask), np.array(example.decoder_mask)
    with torch.no_grad():
        expected = in_torch(model, left, output_hidden_states=True, output_attentions=True)
    ours = families.build(settings)
    result = forward(ours, params, example)
    compare(result.encoder.hidden, expected.encoder_hidden_states, read, 1e-4)
    compare(result.hidden, expected.decoder_hidden_states, written, 1e-4)
    rows = np.broadcast_to(written[:, None], (4, 4, written.shape[1]))
    compare(result.attention, expected.decoder_attentions, rows, 1e-4)
    compare(result.cross, expected.cross_attentions, rows, 1e-4)
    heads = settings.encoder_heads or settings.heads
    rows = np.broadcast_to(read[:, None], (4, heads, read.shape[1]))
    compare(result.encoder.attention, expected.encoder_attentions, rows, 1e-4)
    np.testing.assert_allclose(result.logits[written], expected.logits.numpy()[written], atol=1e-4)
    for i, block in enumerate(params["blocks"]):  # each alone, from torch's own input to it
        alone, _ = ours.blocks[i].apply(
            {"params": block},
            jnp.array(expected.decoder_hidden_states[i].numpy()),
            example.decoder_mask,
            memory=jnp.array(expected.encoder_last_hidden_state.numpy()),
            memory_mask=example.mask,
        )
        compare([alone], expected.decoder_hidden_states[i + 1 : i + 2], written, 1e-5)


@pytest.mark.parametrize("case", ["marian", "bart"])
def test_gradients_match_torch(case, tmp_path):
    model = reference(case, tmp_path)
    settings, params = folder.load(str(tmp_path))
    target_tokens, target_mask = side(WRITTEN, seed=1)
    in_torch(model, labels=torch.tensor(np.where(target_mask, target_tokens, -100))).loss.backward()

    def loss(params):
        log_probs = jax.nn.log_softmax(forward(families.build(settings), params, batch()).logits)
        right = jnp.take_along_axis(log_probs, jnp.array(target_tokens)[..., None], -1)[..., 0]
        return -jnp.where(target_mask, right, 0).sum() / target_mask.sum()

    gradient = jax.jit(jax.grad(loss))(params)
    exported = folder.HUB[case].table("seq2seq_lm").export(gradient)
    compared = 0
    for name, parameter in model.named_parameters():
        if name in exported:
            expected, result = parameter.grad.numpy().copy(), exported[name]
            if name == "model.shared.weight":  # its padding row gets none from the input side
                expected[settings.pad] = result[settings.pad]
            np.testing.assert_allclose(result, expected, atol=1e-5, err_msg=name)
            compared += 1
    assert compared == len(exported) - 1  # all but the logits' constant, which does not learn
    assert not np.any(exported["final_logits_bias"])


@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_bitwise_and_transformers_opens_it(case, tmp_path):
    settings = config(case)
    model = families.build(settings)
    params = model.init(0)
    folder.save(tmp_path, settings, params)
    again_settings, again = folder.load(str(tmp_path))
    assert again_settings == settings
    jax.tree.map(np.testing.assert_array_equal, again, params)
    opened, loading = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert opened.config.decoder_start_token_id == settings.start
    with torch.no_grad():
        expected = in_torch(opened.eval()).logits.numpy()
    result, written = forward(model, params, batch()).logits, np.array(batch().decoder_mask)
    np.testing.assert_allclose(result[written], expected[written], atol=1e-4)


def test_what_is_not_implemented_is_named():
    marian = folder.HUB["marian"]
    stored = marian.to_hub(config("marian"))
    with pytest.raises(ValueError, match="decoder_vocab_size=70 is not implemented"):
        marian.from_hub(stored | {"decoder_vocab_size": 70})
    with pytest.raises(ValueError, match="normalize_before=True is not implemented"):
        folder.HUB["bart"].from_hub(stored | {"normalize_before": True})


def test_a_bare_checkpoint_and_dropout_within_load_as_bart_base_has_them(tmp_path):
    settings = config("bart")
    stored = folder.HUB["bart"].to_hub(settings) | {"activation_dropout": 0.1}
    stored = {k: v for k, v in stored.items() if k not in ("architectures", "model_type")}
    torch.manual_seed(0)
    model = transformers.BartModel(transformers.BartConfig(**stored))
    model.save_pretrained(tmp_path)
    result, params = folder.load(str(tmp_path))
    assert result.head == "seq2seq_lm" and result.activation_dropout == 0.1
    assert not np.any(params["head"]["bias"])
    token = model.shared.weight.detach().numpy()
    np.testing.assert_array_equal(params["embed"]["token"], token)
    plain = forward(families.build(result), params, batch())
    noisy = forward(families.build(result), params, batch(), dropout=jax.random.key(0))
    assert not np.allclose(plain.logits, noisy.logits)


def test_what_transformers_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    two = families.FAMILIES["marian"][0](**SIZES, source_vocabulary=70)
    with pytest.raises(ValueError, match="source_vocabulary=70"):
        folder.save(tmp_path / "two", two, families.build(two).init(0))
    lstm = families.FAMILIES["lstm"][0](**SIZES)
    with pytest.raises(ValueError, match="no model of the family lstm"):
        folder.save(tmp_path / "lstm", lstm, families.build(lstm).init(0))
    assert not list(tmp_path.iterdir())
