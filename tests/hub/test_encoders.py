"""Every encoder family with every head against transformers' torch model of it."""

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
HEADS = tuple(folder.HUB["bert"].heads)  # those transformers has
LENGTHS = (9, 6, 3, 1)
SIZES = dict(
    vocabulary=61, layers=2, width=32, heads=4, feed_forward=48, max_length=24, init_std=0.2,
    labels=("no", "perhaps", "yes"),
)  # fmt: skip
FAMILIES = {
    "bert": SIZES,
    "distilbert": SIZES,
    "roberta": SIZES,
    "albert": SIZES | {"embedding_width": 20},
}
# where transformers' model keeps weights of each kind: token embedding, a query, a feed-forward
WEIGHTS = {
    "bert": ("encoder.layer.1.attention.self.query", "encoder.layer.1.intermediate.dense"),
    "roberta": ("encoder.layer.1.attention.self.query", "encoder.layer.1.intermediate.dense"),
    "distilbert": ("transformer.layer.1.attention.q_lin", "transformer.layer.1.ffn.lin1"),
    "albert": (
        "encoder.albert_layer_groups.0.albert_layers.0.attention.query",
        "encoder.albert_layer_groups.0.albert_layers.0.ffn",
    ),
}
AUTO = {
    "masked_lm": transformers.AutoModelForMaskedLM,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "token_classification": transformers.AutoModelForTokenClassification,
    "bare": transformers.AutoModel,
}


def config(family: str, head: str, **changes):
    settings = FAMILIES[family] | {"head": head} | changes
    if not head.endswith("classification"):
        del settings["labels"]
    return families.FAMILIES[family][0](**settings)


def reference(family: str, head: str, path, **changes):
    """A random torch model, saved; norms and biases are moved off the 1 and 0 that hide them."""
    torch.manual_seed(0)
    settings = folder.HUB[family].to_hub(config(family, head)) | changes
    settings = {k: v for k, v in settings.items() if k not in ("architectures", "model_type")}
    settings = transformers.AutoConfig.for_model(family, **settings)
    model = AUTO[head].from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    return model


def inputs(pad: int = 0, left: bool = False):
    tokens = np.random.default_rng(0).integers(2, 61, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    mask = mask[:, ::-1] if left else mask
    return np.where(mask, tokens, pad), np.ascontiguousarray(mask)


def batch(tokens, mask) -> Batch:
    return Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))


def in_torch(model, tokens, mask, **more):
    return model(torch.tensor(tokens), torch.tensor(mask).long(), **more)


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_hidden_states_match_torch(family, head, left, tmp_path):
    model = reference(family, head, tmp_path)
    config_again, params = folder.load(str(tmp_path))
    assert config_again == config(family, head, classifier_dropout=config_again.classifier_dropout)
    tokens, mask = inputs(config_again.pad, left)
    with torch.no_grad():
        expected = in_torch(model, tokens, mask, output_hidden_states=True, output_attentions=True)
    ours = families.build(config_again)
    result = forward(ours, params, batch(tokens, mask))
    assert len(result.hidden) == config_again.layers + 1
    for i in range(config_again.layers):  # each block alone, from torch's own input to it
        block = params["blocks"][0 if config_again.shared_blocks else i]
        before, after = expected.hidden_states[i : i + 2]
        alone, inside = ours.blocks[i].apply(
            {"params": block}, jnp.array(before.numpy()), jnp.array(mask)
        )
        np.testing.assert_allclose(np.array(alone)[mask], after.numpy()[mask], atol=1e-5)
        np.testing.assert_allclose(result.hidden[i + 1][mask], after.numpy()[mask], atol=1e-4)
        weights = expected.attentions[i].numpy().swapaxes(1, 2)[mask]
        np.testing.assert_allclose(inside.attention.swapaxes(1, 2)[mask], weights, atol=1e-5)
        np.testing.assert_allclose(result.attention[i].swapaxes(1, 2)[mask], weights, atol=1e-4)
    if head == "bare":
        if not config_again.pooled:
            assert result.logits is None
            return
        logits = expected.pooler_output.numpy()
    else:
        logits = expected.logits.numpy()
    per_token = result.logits.ndim == 3
    where = mask if per_token else mask[:, 0]  # a row whose first token is padding has no summary
    np.testing.assert_allclose(result.logits[where], logits[where], atol=1e-4)


@pytest.mark.parametrize("head", ["masked_lm", "sequence_classification"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_match_torch(family, head, tmp_path):
    model = reference(family, head, tmp_path)
    config_again, params = folder.load(str(tmp_path))
    tokens, mask = inputs(config_again.pad)
    if head == "masked_lm":
        labels = np.where(mask, tokens, -100)
    else:
        labels = np.array([0, 2, 1, 2])
    in_torch(model, tokens, mask, labels=torch.tensor(labels)).loss.backward()

    def loss(params):
        logits = forward(families.build(config_again), params, batch(tokens, mask)).logits
        counted = labels >= 0
        log_probs = jax.nn.log_softmax(logits)
        right = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        return -jnp.where(counted, right, 0).sum() / counted.sum()

    gradient = jax.jit(jax.grad(loss))(params)
    body = getattr(model, folder.HUB[family].prefix)
    query, inner = (body.get_submodule(name) for name in WEIGHTS[family])
    block = gradient["blocks"][0 if config_again.shared_blocks else 1]
    embedding = body.embeddings.word_embeddings.weight.grad.numpy().copy()
    if config_again.pad:  # torch gives its padding row no gradient from the input side
        embedding[config_again.pad] = gradient["embed"]["token"][config_again.pad]
    for result, expected in [
        (gradient["embed"]["token"], embedding),
        (block["attention"]["query"]["kernel"].T, query.weight.grad.numpy()),
        (block["feed_forward"]["expand"]["kernel"].T, inner.weight.grad.numpy()),
    ]:
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_bitwise_and_transformers_opens_it(family, head, tmp_path):
    settings = config(family, head)
    params = families.build(settings).init(0)
    folder.save(tmp_path, settings, params)
    again_settings, again = folder.load(str(tmp_path))
    assert again_settings == settings
    jax.tree.map(np.testing.assert_array_equal, again, params)
    opened, loading = AUTO[head].from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert type(opened).__name__ == folder.HUB[family].heads[head].architecture
    if head.endswith("classification"):
        assert opened.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}


def test_on_the_host_it_is_the_same_and_no_view_of_the_file(tmp_path):
    reference("bert", "masked_lm", tmp_path)
    (_, result), (_, expected) = (
        folder.load(str(tmp_path), on_host=each) for each in (True, False)
    )
    jax.tree.map(np.testing.assert_array_equal, result, expected)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for leaf in jax.tree.leaves(result):
        assert isinstance(leaf, np.ndarray) and leaf.flags.owndata and leaf.flags.writeable
    headed = folder.load(str(tmp_path), on_host=True, head="sequence_classification")[1]["head"]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(headed))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pretrained_body_takes_a_new_head(family, tmp_path):
    reference(family, "masked_lm", tmp_path)
    _, whole = folder.load(str(tmp_path))
    settings, params = folder.load(
        str(tmp_path), head="sequence_classification", labels=["a", "b"], seed=3
    )
    assert settings.labels == ("a", "b")
    jax.tree.map(np.testing.assert_array_equal, params["blocks"], whole["blocks"])
    assert params["head"]["classify"]["kernel"].shape == (32, 2)
    again = folder.load(str(tmp_path), head="sequence_classification", labels=["a", "b"], seed=3)[1]
    jax.tree.map(np.testing.assert_array_equal, again, params)
    tokens, mask = inputs(settings.pad)
    assert forward(families.build(settings), params, batch(tokens, mask)).logits.shape == (4, 2)


def test_albert_has_one_block_whatever_its_layers():
    settings = config("albert", "masked_lm", layers=5)
    model = families.build(settings)
    params = model.init(0)
    assert len(params["blocks"]) == 1
    tokens, mask = inputs()
    result = forward(model, params, batch(tokens, mask))
    assert len(result.hidden) == 6
    keep = jnp.array([True, False, False, True, True])
    dropped = forward(model, params, batch(tokens, mask), keep=keep)
    shorter = families.build(config("albert", "masked_lm", layers=3))
    expected = forward(shorter, params, batch(tokens, mask), keep=jnp.ones(3, bool))
    np.testing.assert_allclose(dropped.logits, expected.logits, atol=1e-6)
