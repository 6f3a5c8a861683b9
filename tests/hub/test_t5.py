"""T5 against transformers' torch model: relative bias, gated or not, tied or not; generate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from jaxkd.core.batch import Batch
from jaxkd.decode.beam import Beam, searcher
from jaxkd.decode.cached import advance, empty
from jaxkd.decode.sample import greedy
from jaxkd.hub import folder
from jaxkd.models import families, t5
from jaxkd.models.cache_positions import sequential
from jaxkd.models.model import encode, forward

transformers.logging.disable_progress_bar()
READ, WRITTEN = (19, 6, 3, 1), (4, 12, 2, 5)  # some further apart than max_distance
SIZES = dict(
    vocabulary=61, layers=3, encoder_layers=2, width=32, heads=4, head_width=10, feed_forward=48,
    init_std=0.2, buckets=8, max_distance=12, pad=0, start=0, end=1,
)  # fmt: skip
CASES = {
    "plain": {},
    "1.1": dict(gated=True, activation="gelu_new", tied=False, scaled_output=False),
    "silu": dict(gated=True, activation="silu"),
}


def config(case):
    return t5.Config(**(SIZES | CASES[case]))


def reference(case, path):
    """A random torch model, saved; norms are moved off the 1 that hides them."""
    torch.manual_seed(0)
    settings = folder.HUB["t5"].to_hub(config(case))
    settings = {k: v for k, v in settings.items() if k not in ("architectures", "model_type")}
    settings = transformers.T5Config(**settings)
    model = transformers.T5ForConditionalGeneration(settings).eval()
    if not config(case).tied:  # as T5 1.1's files are; transformers 5 opens them so
        model.lm_head.weight = torch.nn.Parameter(torch.randn(61, 32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    return transformers.T5ForConditionalGeneration.from_pretrained(
        path, attn_implementation="eager"
    ).eval()


def side(lengths, left=False, seed=0):
    tokens = np.random.default_rng(seed).integers(2, 61, (len(lengths), max(lengths)))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    mask = np.ascontiguousarray(mask[:, ::-1]) if left else mask
    return np.where(mask, tokens, 0), mask


def batch(left=False):
    (tokens, mask), (written, counts) = side(READ, left), side(WRITTEN, seed=1)
    return Batch(
        jnp.array(tokens, jnp.int32),
        jnp.array(mask),
        decoder_tokens=jnp.array(written, jnp.int32),
        decoder_mask=jnp.array(counts),
    )


def in_torch(model, arguments, **more):
    arrays = (arguments.tokens, arguments.mask, arguments.decoder_tokens, arguments.decoder_mask)
    tokens, mask, written, counts = (torch.tensor(np.array(x)).long() for x in arrays)
    return model(
        input_ids=tokens,
        attention_mask=mask,
        decoder_input_ids=written,
        decoder_attention_mask=counts,
        use_cache=False,
        **more,
    )


@pytest.mark.parametrize("both_sides", [True, False])
@pytest.mark.parametrize("buckets, furthest", [(32, 128), (8, 12), (16, 20)])
def test_every_distance_has_torchs_bucket(both_sides, buckets, furthest):
    distances = np.arange(-3 * furthest, 3 * furthest + 1)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distances), both_sides, buckets, furthest
    )
    ours = t5.bucket(jnp.array(distances), buckets, furthest, both_sides=both_sides)
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("case", CASES)
def test_logits_states_and_attention_match_torch(case, left, tmp_path):
    model = reference(case, tmp_path)
    settings, params = folder.load(str(tmp_path))
    assert settings == config(case)
    arguments = batch(left)
    read, written = np.array(arguments.mask), np.array(arguments.decoder_mask)
    with torch.no_grad():
        theirs = in_torch(model, arguments, output_hidden_states=True, output_attentions=True)
    ours = families.build(settings)
    outputs = forward(ours, params, arguments)
    # The decoder's last state is normalised there, and by the head here.
    for where, student_outputs, others in (
        (read, outputs.encoder.hidden, theirs.encoder_hidden_states),
        (written, outputs.hidden[:-1], theirs.decoder_hidden_states[:-1]),
    ):
        for one, other in zip(student_outputs, others, strict=True):
            np.testing.assert_allclose(np.array(one)[where], other.numpy()[where], atol=1e-4)
    for where, student_outputs, others in (
        (read, outputs.encoder.attention, theirs.encoder_attentions),
        (written, outputs.attention, theirs.decoder_attentions),
        (written, outputs.cross, theirs.cross_attentions),
    ):
        for one, other in zip(student_outputs, others, strict=True):
            one, other = (x.swapaxes(1, 2)[where] for x in (np.array(one), other.numpy()))
            np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(outputs.logits[written], theirs.logits.numpy()[written], atol=1e-4)
    _, inputs = ours.embed.apply({"params": params["embed"]}, arguments.decoder_tokens, None)
    for i in range(settings.layers - 1):  # each alone, from torch's own input to it
        alone, _ = ours.blocks[i].apply(
            {"params": params["blocks"][i]},
            jnp.array(theirs.decoder_hidden_states[i].numpy()),
            arguments.decoder_mask,
            memory=jnp.array(theirs.encoder_last_hidden_state.numpy()),
            memory_mask=arguments.mask,
            **inputs,
        )
        after = theirs.decoder_hidden_states[i + 1].numpy()
        np.testing.assert_allclose(np.array(alone)[written], after[written], atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_round_trip_is_bitwise_and_transformers_opens_it(case, tmp_path):
    settings = config(case)
    model = families.build(settings)
    params = model.init(0)
    folder.save(tmp_path, settings, params)
    again_settings, again = folder.load(str(tmp_path))
    assert again_settings == settings
    jax.tree.map(np.testing.assert_array_equal, again, params)
    opened, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        theirs = in_torch(opened.eval(), batch()).logits.numpy()
    written = np.array(batch().decoder_mask)
    np.testing.assert_allclose(
        forward(model, params, batch()).logits[written], theirs[written], atol=1e-4
    )


def test_cached_decoding_is_the_whole_at_once():
    settings = config("1.1")
    model = families.build(settings)
    params, arguments = model.init(0), batch()
    whole = forward(model, params, arguments)
    length, room = arguments.decoder_tokens.shape[1], 15
    allowed = jnp.pad(arguments.decoder_mask, ((0, 0), (0, room - length)))
    memory = encode(model, params, arguments).hidden[-1]
    caches, logits = empty(settings, 4, room, memory.shape[1]), []
    for first, last in ((0, 3), *((i, i + 1) for i in range(3, length))):
        piece, caches = advance(
            model, params, arguments.decoder_tokens[:, first:last],
            sequential(allowed, first, last - first), caches, memory=memory,
            memory_mask=arguments.mask,
        )  # fmt: skip
        memory = None  # from now on the caches have its keys and values
        logits.append(piece.logits)
    where = np.array(arguments.decoder_mask)
    np.testing.assert_allclose(np.concatenate(logits, 1)[where], whole.logits[where], atol=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
def test_tokens_are_those_of_transformers_generate(beams, tmp_path):
    model = reference("1.1", tmp_path)
    settings, params = folder.load(str(tmp_path))
    arguments, built = batch(), families.build(settings)
    with torch.no_grad():
        theirs = model.generate(
            torch.tensor(np.array(arguments.tokens)).long(),
            attention_mask=torch.tensor(np.array(arguments.mask)).long(),
            num_beams=beams,
            max_new_tokens=20,  # further than the largest distance with a bucket of its own
            do_sample=False,
            # transformers 5.23 makes its cache for the encoder's layers, and these are fewer.
            use_cache=False,
        ).numpy()[:, 1:]
    beam = Beam(width=beams, max_tokens=20)
    # Few tokens at a time, so that columns of the cache are removed in between.
    search = searcher(built, settings, beam, eos_ids=[1], pad=0, segment=4)
    for decoded in (search(params, arguments),) + (
        (greedy(built, settings, 20, eos_ids=[1], pad=0)(params, arguments),) if beams == 1 else ()
    ):
        tokens = np.array(decoded.tokens)[:, 0]
        np.testing.assert_array_equal(tokens[:, : theirs.shape[1]], theirs)
        assert not tokens[:, theirs.shape[1] :].any()
    assert (np.diff(theirs) != 0).any()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(encoder_heads=2), "the encoder has 2 heads"),
        (dict(dropout=0.3), "transformers has one dropout rate"),
        (dict(gated=True, activation="gelu"), "'gated-gelu' is activation='gelu_new'"),
    ],
)
def test_a_model_that_transformers_does_not_have_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        folder.HUB["t5"].to_hub(t5.Config(**(SIZES | changes)))
    with pytest.raises(ValueError, match="feed_forward_proj='twice-relu' is not implemented"):
        family = folder.HUB["t5"]
        family.from_hub(family.to_hub(config("plain")) | {"feed_forward_proj": "twice-relu"})
