"""BERT against transformers' torch BertForMaskedLM, and folders written in both directions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.hub import folder
from jaxkd.hub.bert import FAMILY
from jaxkd.models import families
from jaxkd.models.activations import ACTIVATIONS
from jaxkd.models.model import forward
from tests.models import tiny

transformers.logging.disable_progress_bar()
LENGTHS = (11, 7, 3, 1)


def torch_model(**changes) -> transformers.BertForMaskedLM:
    torch.manual_seed(0)
    settings = FAMILY.to_hub(tiny.config()) | changes
    settings.pop("model_type"), settings.pop("architectures")
    model = transformers.BertForMaskedLM(transformers.BertConfig(**settings)).eval()
    with torch.no_grad():  # transformers starts norms and biases at 1 and 0, which would hide them
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def inputs():
    tokens = np.random.default_rng(0).integers(1, 61, (len(LENGTHS), max(LENGTHS)))
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    return tokens, mask


def save(model, path) -> str:
    model.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bert_matches_torch(name, tmp_path):
    reference = torch_model(hidden_act=name)
    tokens, mask = inputs()
    with torch.no_grad():
        expected = reference(
            torch.tensor(tokens), torch.tensor(mask).long(), output_hidden_states=True
        )
    config, params = folder.load(save(reference, tmp_path))
    model = families.build(config)
    batch = Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))
    result = forward(model, params, batch)
    assert len(result.hidden) == config.layers + 1
    for i, block in enumerate(params["blocks"]):  # each block alone, from torch's own input to it
        hidden = jnp.array(expected.hidden_states[i].numpy())
        after, _ = model.blocks[i].apply({"params": block}, hidden, batch.mask)
        np.testing.assert_allclose(
            np.array(after)[mask], expected.hidden_states[i + 1].numpy()[mask], atol=1e-5
        )
    np.testing.assert_allclose(result.logits[mask], expected.logits.numpy()[mask], atol=1e-4)


def test_gradients_match_torch(tmp_path):
    reference = torch_model()
    tokens, mask = inputs()
    labels = np.where(mask, tokens, -100)
    reference(
        torch.tensor(tokens), torch.tensor(mask).long(), labels=torch.tensor(labels)
    ).loss.backward()
    config, params = folder.load(save(reference, tmp_path))
    model = families.build(config)

    def loss(params):
        logits = forward(model, params, Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))).logits
        values = -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
        return jnp.where(mask, values, 0).sum() / mask.sum()

    gradient = jax.grad(loss)(params)
    theirs, layers, ours = reference.bert, reference.bert.encoder.layer, gradient["blocks"]
    for result, expected in [
        (gradient["embed"]["token"], theirs.embeddings.word_embeddings.weight),
        (gradient["embed"]["position"], theirs.embeddings.position_embeddings.weight),
        (ours[1]["feed_forward"]["expand"]["kernel"].T, layers[1].intermediate.dense.weight),
        (ours[0]["attention"]["key"]["kernel"].T, layers[0].attention.self.key.weight),
        (ours[1]["norm"]["scale"], layers[1].output.LayerNorm.weight),
        (gradient["head"]["bias"], reference.cls.predictions.bias),
    ]:  # fmt: skip
        np.testing.assert_allclose(result, expected.grad.numpy(), atol=1e-5)


def test_hub_round_trip_is_exact(tmp_path):
    config = tiny.config()
    params = families.build(config).init(0)
    folder.save(tmp_path, config, params)
    again_config, again = folder.load(str(tmp_path))
    assert again_config == config
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_transformers_opens_what_we_save(tmp_path):
    config = tiny.config(activation="gelu_new")
    model = families.build(config)
    params = model.init(0)
    folder.save(tmp_path, config, params)
    opened, loading = transformers.AutoModelForMaskedLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    tokens, mask = inputs()
    with torch.no_grad():
        expected = opened.eval()(torch.tensor(tokens), torch.tensor(mask).long()).logits.numpy()
    result = forward(model, params, Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))).logits
    np.testing.assert_allclose(result[mask], expected[mask], atol=1e-4)


def test_an_old_checkpoint_with_pooler_and_gamma_loads(tmp_path):
    from safetensors.numpy import load_file, save_file

    save(torch_model(), tmp_path)
    file = tmp_path / "model.safetensors"
    new = load_file(file)
    endings = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for name, tensor in new.items():
        ending = next((e for e in endings if name.endswith(e)), "")
        old[name.removesuffix(ending) + endings.get(ending, "")] = tensor
    old["bert.pooler.dense.weight"] = np.zeros((32, 32), np.float32)
    old["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
    _, expected = folder.load(str(tmp_path))
    save_file(old, file)
    _, result = folder.load(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.parametrize(
    "key, value",
    [
        ("hidden_act", "laplace"),
        ("position_embedding_type", "relative_key_query"),
        ("tie_word_embeddings", False),
        ("is_decoder", True),
    ],
)
def test_a_config_value_that_is_not_implemented_is_named(key, value):
    with pytest.raises(ValueError, match=f"{key}={value!r} is not implemented; supported: "):
        FAMILY.from_hub(FAMILY.to_hub(tiny.config()) | {key: value})


def test_tensors_that_are_no_parameter_and_parameters_without_a_tensor_are_named(tmp_path):
    from safetensors.numpy import load_file, save_file

    save(torch_model(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["bert.adapter.weight"] = np.zeros(3, np.float32)
    del tensors["cls.predictions.bias"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match="bert.adapter.weight.*head/bias.*jaxkd/hub/bert.py"):
        folder.load(str(tmp_path))


def test_weights_that_do_not_fit_their_config_are_named(tmp_path):
    save(torch_model(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 40}))
    with pytest.raises(ValueError, match=r"intermediate.dense.*found .*, needed \("):
        folder.load(str(tmp_path))


def test_a_folder_without_weights_and_an_unknown_family_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json; a model folder holds"):
        folder.load(str(tmp_path))
    save(torch_model(), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "berd"}))
    with pytest.raises(ValueError, match="Did you mean 'bert'"):
        folder.load(str(tmp_path))


def test_a_hub_id_that_is_not_cached_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="could not be had from the HuggingFace hub"):
        folder.load("nobody/has-this-model")
