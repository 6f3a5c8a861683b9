"""Checkpoints as they are met: wrapped, bare, old, sharded, damaged, with heads of their own."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from jaxkd.core.batch import Batch
from jaxkd.hub import folder
from jaxkd.hub.tensors import open_tensors
from jaxkd.models import families
from jaxkd.models.model import forward

transformers.logging.disable_progress_bar()
BERT = dict(
    vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=48, max_position_embeddings=40,
)  # fmt: skip
DECODER = BERT | dict(num_key_value_heads=2)
SEQ2SEQ = dict(
    vocab_size=61, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=40,
)  # fmt: skip
TOKENS = np.random.default_rng(0).integers(5, 61, (3, 9))
MASK = np.arange(9) < np.array([[9], [6], [2]])


def random_model(kind: str, **settings):
    """Norms and biases are moved off the 1 and 0 that hide them."""
    torch.manual_seed(0)
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def edit(path: pathlib.Path, **changes):
    """Change keys of a config.json; None removes one."""
    file = path / "config.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))


def rename(path: pathlib.Path, new):
    """The folder's tensors under other names."""
    file = path / "model.safetensors"
    tensors = {new(name): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def ours(path, **changes) -> np.ndarray:
    config, params = folder.load(str(path), **changes)
    batch = Batch(jnp.array(TOKENS, jnp.int32), jnp.array(MASK))
    return np.array(forward(families.build(config), params, batch).logits)


def transformers_logits(path, kind: str) -> np.ndarray:
    model = getattr(transformers, kind).from_pretrained(path).eval()
    with torch.no_grad():
        outputs = model(input_ids=torch.tensor(TOKENS), attention_mask=torch.tensor(MASK).long())
    return outputs.logits.numpy()


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_what_wrappers_put_before_every_name_is_taken_off(prefix, tmp_path):
    random_model("BertForSequenceClassification", **BERT).save_pretrained(tmp_path)
    expected = ours(tmp_path)
    rename(tmp_path, lambda name: prefix + name)
    np.testing.assert_array_equal(ours(tmp_path), expected)


@pytest.mark.parametrize(
    "kind, prefix",
    [
        ("BertForSequenceClassification", "bert."),
        ("RobertaForSequenceClassification", "roberta."),
        ("DistilBertForSequenceClassification", "distilbert."),
        ("LlamaForSequenceClassification", "model."),
    ],
)
def test_a_body_without_prefix_beside_a_classifier_loads(kind, prefix, tmp_path):
    sizes = dict(BERT, pad_token_id=0)
    if kind.startswith("Distil"):
        sizes = dict(vocab_size=61, dim=32, n_layers=2, n_heads=4, hidden_dim=48, pad_token_id=0)
    random_model(kind, **sizes).save_pretrained(tmp_path)
    expected = ours(tmp_path)
    rename(tmp_path, lambda name: name.removeprefix(prefix))
    np.testing.assert_array_equal(ours(tmp_path), expected)


@pytest.mark.parametrize("kind", ["BertModel", "RobertaModel"])
def test_a_pooler_that_is_not_stored_is_drawn_and_said(kind, tmp_path):
    cls = getattr(transformers, kind)
    cls(cls.config_class(**BERT), add_pooling_layer=False).save_pretrained(tmp_path)
    messages = []
    config, params = folder.load(str(tmp_path), warn=messages.append)
    assert config.head == "bare"
    assert "head/pool/kernel" in messages[0] and "drawn" in messages[0]
    hidden = forward(
        families.build(config), params, Batch(jnp.array(TOKENS, jnp.int32), jnp.array(MASK))
    ).hidden[-1]
    reference = cls.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = reference(torch.tensor(TOKENS), torch.tensor(MASK).long()).last_hidden_state
    np.testing.assert_allclose(hidden[MASK], expected.numpy()[MASK], atol=1e-4)


def test_the_body_of_a_question_answerer_takes_another_head_and_says_what_is_left_out(tmp_path):
    model = random_model("BertForQuestionAnswering", **BERT)
    model.save_pretrained(tmp_path)
    messages = []
    _, params = folder.load(str(tmp_path), head="sequence_classification", warn=messages.append)
    assert any("qa_outputs" in message for message in messages)
    expected = model.bert.embeddings.word_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(params["embed"]["token"], expected)
    with pytest.raises(ValueError, match="architectures='BertForQuestionAnswering'"):
        folder.load(str(tmp_path))


CASES = {
    "LlamaForCausalLM": (DECODER, "lm_head.weight"),
    "Qwen2ForCausalLM": (DECODER, "lm_head.weight"),
    "Qwen3ForCausalLM": (DECODER | dict(head_dim=8), "lm_head.weight"),
    "GPT2LMHeadModel": (
        dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=40), "lm_head.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_a_head_of_its_own_in_a_tied_checkpoint_is_used_as_transformers_uses_it(kind, tmp_path):
    sizes, _ = CASES[kind]
    random_model(kind, **sizes, tie_word_embeddings=False).save_pretrained(tmp_path)
    edit(tmp_path, tie_word_embeddings=True)
    messages = []
    config, params = folder.load(str(tmp_path), warn=messages.append)
    assert not config.tied and "lm_head.weight is not the token embedding" in messages[0]
    difference = np.abs(ours(tmp_path) - transformers_logits(tmp_path, kind))[MASK]
    assert difference.max() < 1e-4
    # equal copies are one tensor, as before
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    embedding = next(
        name for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight"))
    )
    save_file(tensors | {"lm_head.weight": tensors[embedding].clone()}, file, {"format": "pt"})
    config, params = folder.load(str(tmp_path))
    assert config.tied and "output" not in params["head"]


@pytest.mark.parametrize(
    "kind, name, sizes",
    [
        ("BertForMaskedLM", "cls.predictions.decoder.weight", BERT),
        ("BertForMaskedLM", "cls.predictions.decoder.bias", BERT),
        ("RobertaForMaskedLM", "lm_head.decoder.weight", BERT),
        ("AlbertForMaskedLM", "predictions.decoder.weight", BERT | dict(embedding_size=32)),
        ("BartForConditionalGeneration", "lm_head.weight", SEQ2SEQ),
        ("MarianMTModel", "model.encoder.embed_tokens.weight", SEQ2SEQ | dict(pad_token_id=60)),
    ],
)
def test_a_copy_that_is_none_is_refused_where_a_family_cannot_be_untied(
    kind, name, sizes, tmp_path
):
    model = random_model(kind, **sizes)
    model.save_pretrained(tmp_path)
    _, expected = folder.load(str(tmp_path))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    original = {**model.state_dict()}[name].clone()
    save_file(tensors | {name: original}, file, {"format": "pt"})
    _, params = folder.load(str(tmp_path))  # an equal copy is dropped
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    save_file(tensors | {name: original + 1}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{name} differs from .*Save the model with the two tied"):
        folder.load(str(tmp_path))


def old_folder(tmp_path):
    model = random_model("BertForSequenceClassification", **BERT)
    model.save_pretrained(tmp_path)
    expected = ours(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    return model.state_dict(), expected


@pytest.mark.parametrize("zipped", [True, False], ids=["since 1.6", "before 1.6"])
def test_torchs_files_of_either_age_load(zipped, tmp_path):
    state, expected = old_folder(tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(ours(tmp_path), expected)


def test_shards_of_torchs_files_load_and_a_missing_one_is_named(tmp_path):
    state, expected = old_folder(tmp_path)
    names = sorted(state)
    parts = {
        "pytorch_model-00001-of-00002.bin": names[:9],
        "pytorch_model-00002-of-00002.bin": names[9:],
    }
    for file, tensors in parts.items():
        torch.save({name: state[name] for name in tensors}, tmp_path / file)
    shards = {name: file for file, tensors in parts.items() for name in tensors}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    np.testing.assert_array_equal(ours(tmp_path), expected)
    index.write_text(
        json.dumps({"weight_map": shards | {"classifier.bias": [*parts][1]} | {"x": [*parts][0]}})
    )
    with pytest.raises(ValueError, match="00001-of-00002.bin has no tensor x"):
        open_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match="names pytorch_model-00002-of-00002.bin"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_a_git_lfs_pointer_is_named(file, tmp_path):
    (tmp_path / file).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(ValueError, match=f"{file} is a git-lfs pointer.*git lfs pull"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_named(content, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    if content.startswith(b"\x80"):  # an empty dict, which is a checkpoint without tensors
        return
    with pytest.raises(ValueError, match="pytorch_model.bin cannot be read as tensors"):
        open_tensors(tmp_path)


def test_a_training_state_is_no_model(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds more than tensors by name"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/hostname", "..", "sub/x.bin", 3]
)
def test_an_index_names_files_of_its_own_folder_alone(index, name, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "other").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "other" / "model.safetensors")
    (tmp_path / "model" / index).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="allowed are files of the same folder"):
        open_tensors(tmp_path / "model")


def test_damaged_descriptions_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        folder.load(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json holds a list"):
        folder.load(str(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="has no weight_map"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    "head", ["masked_lm", "causal_lm", "seq2seq_lm", "sequence_classification", "bare"]
)
@pytest.mark.parametrize("kind", folder.HUB)
def test_an_absent_key_means_what_transformers_takes_it_to_mean(kind, head):
    family = folder.HUB[kind]
    if head not in family.heads:
        pytest.skip(f"{kind} has no such head")
    defaults = transformers.AutoConfig.for_model(kind).to_dict()
    assert family.from_hub({}, head=head) == family.from_hub(defaults, head=head)
    tokens = {
        k: defaults[k]
        for k in ("bos_token_id", "eos_token_id", "forced_eos_token_id")
        if k in defaults
    }
    if head in folder.WRITES:
        assert {k: family.absent.get(k) for k in tokens} | {"eos_token_id": 0} == tokens | {
            "eos_token_id": 0  # of an encoder-decoder it is a field, compared above
        }


@pytest.mark.parametrize(
    "kind, key, value, sizes",
    [
        ("Qwen3ForCausalLM", "head_dim", "absent", DECODER),
        ("Qwen2ForCausalLM", "num_key_value_heads", None, BERT | dict(num_key_value_heads=4)),
        ("LlamaForCausalLM", "num_key_value_heads", "absent", BERT | dict(num_key_value_heads=4)),
        ("LlamaForCausalLM", "head_dim", None, DECODER),
        ("GPT2LMHeadModel", "n_inner", None, CASES["GPT2LMHeadModel"][0]),
    ],
)  # fmt: skip
def test_a_null_or_absent_size_is_transformers_default(kind, key, value, sizes, tmp_path):
    random_model(kind, **sizes).save_pretrained(tmp_path)
    edit(tmp_path, **{key: value})
    difference = np.abs(ours(tmp_path) - transformers_logits(tmp_path, kind))[MASK]
    assert difference.max() < 1e-4


@pytest.mark.parametrize("kind", ["XLMRoberta", "Camembert"])
def test_robertas_under_other_names_are_robertas(kind, tmp_path):
    for ending in ("ForSequenceClassification", "ForMaskedLM"):
        path = tmp_path / ending
        model = random_model(f"{kind}{ending}", **BERT, pad_token_id=1, type_vocab_size=1)
        model.save_pretrained(path)
        expected = transformers_logits(path, f"{kind}{ending}")
        where = MASK if expected.ndim == 3 else slice(None)
        np.testing.assert_allclose(ours(path)[where], expected[where], atol=1e-4)
        folder.save(tmp_path / "again", *folder.load(str(path)))
        again = transformers_logits(tmp_path / "again", f"Roberta{ending}")
        np.testing.assert_allclose(again[where], expected[where], atol=1e-4)


def test_a_padding_id_in_the_text_counts_as_a_token_here():
    """As docs/models.md says: by the mask here, by the padding id in transformers."""
    roberta = families.FAMILIES["roberta"][0](
        vocabulary=61, layers=1, width=32, heads=4, feed_forward=48, max_length=40, head="bare"
    )
    model = families.build(roberta)
    params = model.init(0)
    tokens, mask = np.full((1, 4), roberta.pad), np.ones((1, 4), bool)
    hidden = forward(model, params, Batch(jnp.array(tokens, jnp.int32), jnp.array(mask))).hidden[0]
    assert len(np.unique(np.asarray(hidden[0]).round(5), axis=0)) == 4  # four positions
    llama = families.FAMILIES["llama"][0](
        vocabulary=61, layers=1, width=32, heads=4, feed_forward=48, max_length=40, pad=2,
        head="sequence_classification",
    )  # fmt: skip
    model = families.build(llama)
    params = model.init(0)
    tokens, masks = np.array([[5, 6, 2], [5, 6, 2]]), np.array([[1, 1, 1], [1, 1, 0]], bool)
    logits = forward(model, params, Batch(jnp.array(tokens, jnp.int32), jnp.array(masks))).logits
    assert not np.allclose(logits[0], logits[1])  # the last token is the one the mask says
