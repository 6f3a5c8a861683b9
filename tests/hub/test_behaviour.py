"""What goes out is what came in: a loaded and saved model generates, classifies and pools alike."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxkd.core.batch import Batch
from jaxkd.data.tokenizers.tokenizer import open_tokenizer
from jaxkd.hub import folder
from jaxkd.hub.generation import eos_ids, suppressed_ids
from jaxkd.models import families
from jaxkd.models.model import forward
from tests.hub.test_checkpoints import BERT, DECODER, MASK, SEQ2SEQ, TOKENS, edit, random_model

transformers.logging.disable_progress_bar()
SOURCE = torch.tensor([[0, 9, 13, 2]])


def saved_again(source, target):
    folder.save(target, *folder.load(str(source)))
    return target


def generated(path, kind: str, **settings) -> list[int]:
    model = getattr(transformers, kind).from_pretrained(path)
    return model.generate(SOURCE, max_new_tokens=6, do_sample=False, **settings)[0].tolist()


@pytest.mark.parametrize("eos", [51, [51, 7]], ids=["one end", "two ends"])
@pytest.mark.parametrize(
    "kind, sizes",
    [
        ("LlamaForCausalLM", DECODER),
        ("Qwen2ForCausalLM", DECODER),
        ("Qwen3ForCausalLM", DECODER | dict(head_dim=8)),
        ("Qwen2MoeForCausalLM", DECODER | dict(num_experts=4, moe_intermediate_size=16)),
        ("GPT2LMHeadModel", dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=40)),
    ],
)
def test_a_decoder_keeps_the_tokens_a_text_begins_and_ends_with(kind, sizes, eos, tmp_path):
    model = random_model(kind, **sizes, bos_token_id=50, eos_token_id=eos)
    model.save_pretrained(tmp_path / "source")
    again = saved_again(tmp_path / "source", tmp_path / "again")
    opened = getattr(transformers, kind).from_pretrained(again)
    for settings in (opened.config, opened.generation_config):
        assert (settings.bos_token_id, settings.eos_token_id) == (50, eos)
    # The end comes first: a model that does not know it writes on.
    first = generated(again, kind, eos_token_id=None)[SOURCE.shape[1]]
    for path in (tmp_path / "source", again):
        edit(path, eos_token_id=first)
        file = path / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": first}))
    again = saved_again(tmp_path / "source", tmp_path / "third")
    assert generated(again, kind) == [*SOURCE[0].tolist(), first]


def test_where_no_file_names_the_end_it_is_the_familys_as_in_transformers(tmp_path):
    random_model("LlamaForCausalLM", **DECODER).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    edit(tmp_path, eos_token_id="absent", bos_token_id="absent")
    config, _ = folder.load(str(tmp_path))
    assert config.generation == {"bos_token_id": 1, "eos_token_id": 2}
    edit(tmp_path, eos_token_id=None, bos_token_id=None)
    config, _ = folder.load(str(tmp_path))
    assert config.generation == {}


SETTINGS = {
    "forced beginning": dict(forced_bos_token_id=0),
    "forced end": dict(forced_eos_token_id=2),
    "no forced end": dict(forced_eos_token_id=None),
    "beams": dict(num_beams=3, length_penalty=2.0, early_stopping=True),
    "suppressed": dict(suppress_tokens=[5, 6, 7, 8]),
    "no repetition": dict(no_repeat_ngram_size=2),
}


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("old", [False, True], ids=["in its own file", "in config.json"])
def test_an_encoder_decoder_keeps_how_it_generates(case, old, tmp_path):
    kind = "BartForConditionalGeneration"
    model = random_model(kind, **SEQ2SEQ)
    for key, value in SETTINGS[case].items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(tmp_path / "source")
    if old:  # as files of before 2023
        edit(tmp_path / "source", **SETTINGS[case])
        (tmp_path / "source" / "generation_config.json").unlink()
    again = saved_again(tmp_path / "source", tmp_path / "again")
    assert generated(again, kind) == generated(tmp_path / "source", kind)
    twice = saved_again(again, tmp_path / "twice")
    stored = [json.loads((p / "generation_config.json").read_text()) for p in (again, twice)]
    assert stored[0] == stored[1]
    for key, value in SETTINGS[case].items():
        assert stored[0].get(key) == value


def test_marians_padding_is_never_written(tmp_path):
    kind = "MarianMTModel"
    model = random_model(
        kind, **SEQ2SEQ, pad_token_id=60, decoder_start_token_id=60, eos_token_id=0
    )
    model.final_logits_bias.zero_()
    model.final_logits_bias[0, 60] = 50.0
    model.generation_config.bad_words_ids = [[60]]
    model.save_pretrained(tmp_path / "source")
    again = saved_again(tmp_path / "source", tmp_path / "again")
    written = generated(again, kind)
    assert written == generated(tmp_path / "source", kind) and 60 not in written[1:]
    config, _ = folder.load(str(again))
    assert suppressed_ids(config.generation) == (60,) and eos_ids(config.generation) == (0,)


@pytest.mark.parametrize("lossless", [True, False])
def test_a_model_of_ours_ends_where_its_tokenizer_ends(lossless, tmp_path):
    tokenizer = open_tokenizer(
        "trained", texts=lambda: ["a good film was seen by all"] * 30, fingerprint="s",
        cache=tmp_path, trained_size=300, masked=False, lossless=lossless,
    )  # fmt: skip
    llama = families.FAMILIES["llama"][0](
        vocabulary=tokenizer.vocab_size, layers=1, width=32, heads=4, feed_forward=48, max_length=40
    )
    params = families.build(llama).init(0)
    folder.save(tmp_path / "with", llama, params, save_tokenizer=tokenizer.save)
    opened = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "with")
    assert opened.generation_config.eos_token_id == opened.config.eos_token_id == tokenizer.sep
    assert opened.generation_config.bos_token_id == tokenizer.cls
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "with").model_max_length == 40
    folder.save(tmp_path / "without", llama, params)  # not Llama's 2, which is another's token
    opened = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "without")
    assert opened.generation_config.eos_token_id is None


@pytest.mark.parametrize(
    "count, problem",
    [
        (3, "multi_label_classification"),
        (1, "multi_label_classification"),
        (3, "single_label_classification"),
        (1, "regression"),
        (3, None),
        (1, None),
    ],
)
def test_a_classifier_keeps_what_its_scores_mean(count, problem, tmp_path):
    names = dict(enumerate(("yes", "no", "perhaps")[:count]))
    model = random_model(
        "BertForSequenceClassification", **BERT, id2label=names, problem_type=problem
    )
    model.save_pretrained(tmp_path / "source")
    again = saved_again(tmp_path / "source", tmp_path / "again")
    stored = json.loads((again / "config.json").read_text())
    assert stored.get("problem_type") == problem
    assert stored["id2label"] == {str(i): name for i, name in names.items()}


def test_what_is_no_kind_of_classifier_is_refused(tmp_path):
    random_model("BertForSequenceClassification", **BERT).save_pretrained(tmp_path)
    edit(tmp_path, problem_type="ranking")
    with pytest.raises(ValueError, match="problem_type='ranking' is not implemented; supported"):
        folder.load(str(tmp_path))
    edit(tmp_path, problem_type=None, id2label={"first": "yes"})
    with pytest.raises(ValueError, match="id2label=.* is no object of class numbers"):
        folder.load(str(tmp_path))


@pytest.fixture
def classifier(tmp_path):
    names = {0: "positive", 1: "negative", 2: "neither"}
    model = random_model("BertForSequenceClassification", **BERT, id2label=names)
    model.save_pretrained(tmp_path / "classifier")
    return str(tmp_path / "classifier")


def logits(config, params):
    params = jax.tree.map(jnp.asarray, params)
    batch = Batch(jnp.array(TOKENS, jnp.int32), jnp.array(MASK))
    return np.array(forward(families.build(config), params, batch).logits)


@pytest.mark.parametrize("on_host", [True, False])
def test_classes_of_the_same_names_are_reordered(classifier, on_host):
    messages = []
    expected = ("Neither", "Negative", "Positive")
    config, params = folder.load(classifier, labels=expected, warn=messages.append, on_host=on_host)
    assert config.labels == expected and "reordered" in messages[0]
    expected = logits(*folder.load(classifier))[:, [2, 1, 0]]
    np.testing.assert_allclose(logits(config, params), expected, atol=1e-6)


def test_classes_without_names_stay_in_their_order_and_it_is_said(classifier):
    messages = []
    for expected in (("positive", "negative", "neither"), ("LABEL_0", "LABEL_1", "LABEL_2")):
        config, params = folder.load(classifier, labels=expected, warn=messages.append)
        np.testing.assert_array_equal(logits(config, params), logits(*folder.load(classifier)))
    assert len(messages) == 1 and "check that they mean the same" in messages[0]


@pytest.mark.parametrize("expected", [("a", "b", "c"), ("positive", "negative"), ("score",)])
def test_other_classes_or_another_number_get_a_new_classifier_and_it_is_said(classifier, expected):
    messages = []
    config, params = folder.load(classifier, labels=expected, warn=messages.append, seed=1)
    _, stored = folder.load(classifier)
    assert "drawn" in messages[0] and config.labels == expected
    kernel = np.asarray(params["head"]["classify"]["kernel"])
    assert kernel.shape == (32, len(expected))
    old = np.asarray(stored["head"]["classify"]["kernel"])
    assert kernel.shape != old.shape or not np.allclose(kernel, old)
    np.testing.assert_array_equal(params["embed"]["token"], stored["embed"]["token"])


def sentence_folder(path, modes, *, inside="", normalise=False, new=False):
    """As the library sentence-transformers writes it."""
    model = random_model("BertModel", **BERT)
    model.save_pretrained(path / inside)
    modules = [("Transformer", inside), ("Pooling", "1_Pooling")]
    modules += [("Normalize", "2_Normalize")] if normalise else []
    listed = [
        {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, folder) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling").mkdir()
    keys = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
    content = {key: mode in modes for mode, key in keys.items()}
    content = {"pooling_mode": modes[0]} if new else content
    (path / "1_Pooling" / "config.json").write_text(json.dumps(content))
    return model


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("inside", ["", "0_Transformer"])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_a_sentence_transformers_folder_opens_and_its_pooling_is_said(mode, inside, new, tmp_path):
    (tmp_path / "s").mkdir()
    model = sentence_folder(tmp_path / "s", [mode], inside=inside, normalise=True, new=new)
    messages = []
    config, params = folder.load(str(tmp_path / "s"), warn=messages.append)
    assert config.pooling == f"{mode}+normalise" and f"its pooling is {mode}" in messages[0]
    expected = model.embeddings.word_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(params["embed"]["token"], expected)
    folder.save(tmp_path / "again", config, params)
    again, _ = folder.load(str(tmp_path / "again"))
    assert again.pooling == config.pooling


@pytest.mark.parametrize("path", ["../other", "/etc", "..", "a/b"])
def test_modules_are_folders_within(path, tmp_path):
    sentence_folder(tmp_path, ["mean"])
    listed = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([listed[0] | {"path": path}, listed[1]]))
    with pytest.raises(ValueError, match="allowed are folders within it"):
        folder.load(str(tmp_path))


def test_a_pooling_that_is_unknown_is_named(tmp_path):
    sentence_folder(tmp_path, ["median"], new=True)
    with pytest.raises(ValueError, match="the pooling is .*median"):
        folder.load(str(tmp_path))
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json cannot be read"):
        folder.load(str(tmp_path))
