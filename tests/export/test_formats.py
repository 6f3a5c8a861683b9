"""A format says before any training whether it can; what it wrote does what our model does."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import transformers

from jaxkd.data.tokenizers.tokenizer import open_tokenizer
from jaxkd.export.emit import decoder
from jaxkd.export.formats import Companions, Format, HuggingFace, Onnx
from jaxkd.export.onnx_model import export_onnx
from jaxkd.export.torch_encoder import FAMILIES, HEADS
from jaxkd.export.verify import ExportMismatch, verify_folder
from jaxkd.hub import folder as hub
from jaxkd.models import families
from jaxkd.stages.export import Export
from tests.models.tiny import encoder, random_params

transformers.logging.disable_progress_bar()
PROSE = ["the film was good and the other one was bad , not good"] * 20
SIZES = dict(layers=2, width=32, heads=4, feed_forward=48, max_length=24)


def tokenizer(cache, **changes):
    return open_tokenizer(
        "trained", texts=lambda: PROSE, fingerprint="f", cache=cache, trained_size=300, **changes
    )


def model_of(family: str, **changes):
    config = families.FAMILIES[family][0](**(SIZES | changes))
    return config, random_params(config)


@pytest.mark.parametrize("each", [HuggingFace(), Onnx()], ids=["HuggingFace", "Onnx"])
def test_formats_are_formats(each):
    assert isinstance(each, Format)


def test_onnx_of_a_head_without_an_emitter_is_refused_before_there_are_parameters(monkeypatch):
    config = model_of("llama", vocabulary=61)[0]
    stage = Export(model="student", skip=("onnx_int8",))
    stage.check()
    stage.check_config({"student": config}, None)
    monkeypatch.delitem(decoder.STATES, type(families.build(config).head))
    with pytest.raises(ValueError, match="ONNX export writes .*found llama .*skip="):
        Onnx().check(config)
    with pytest.raises(ValueError, match="ONNX export writes"):
        stage.check_config({"student": config}, None)
    dataclasses.replace(stage, skip=("onnx", "onnx_int8")).check_config({"student": config}, None)


def test_an_encoder_that_is_no_berts_is_refused_though_its_config_comes_of_berts():
    @dataclasses.dataclass
    class Other(families.FAMILIES["bert"][0]):
        pass

    with pytest.raises((TypeError, ValueError)):
        Onnx().check(Other())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_can_be_written_passes(family, head):
    stage = Export(model="student", skip=("onnx_int8",))
    stage.check_config({"student": encoder(family, head)}, None)


def test_a_folder_of_what_transformers_does_not_have_is_refused_before_training():
    stage = Export(model="student", skip=("onnx", "onnx_int8"))
    with pytest.raises(ValueError, match="transformers has no model of the family lstm"):
        stage.check_config({"student": families.FAMILIES["lstm"][0]()}, None)
    with pytest.raises(ValueError, match="source_vocabulary=70"):
        stage.check_config({"student": model_of("marian", source_vocabulary=70)[0]}, None)
    with pytest.raises(ValueError, match="no roberta with the head multi_task"):
        stage.check_config({"student": encoder("roberta", "multi_task")}, None)


def test_a_model_that_is_too_large_for_one_file_is_refused_before_training():
    with pytest.raises(ValueError, match=r"3\.\d\d GiB .* less than 2 GiB"):
        Onnx().check(families.FAMILIES["bert"][0](vocabulary=2**20, layers=2))


def test_only_the_libraries_of_the_formats_that_are_written_are_needed(monkeypatch):
    import sys

    for library in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, library, None)
    Export(model="student", skip=("onnx", "onnx_int8")).check()
    with pytest.raises(ModuleNotFoundError, match="needs onnx"):
        Export(model="student").check()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(skip=("onxn",)), "Did you mean 'onnx'"),
        (dict(formats={"../x": Onnx()}), "is no name of a folder"),
        (dict(tolerance=0.0), "tolerance is 0.0"),
        (dict(tolerance=float("nan")), "tolerance is nan"),
    ],
)
def test_fields_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Export(model="student", **changes).check()


@pytest.mark.parametrize("head", ["masked_lm", "sequence_classification"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_exported_tokenizers_output_is_fed_as_it_is(family, head, tmp_path):
    known = tokenizer(tmp_path)
    config = dataclasses.replace(
        encoder(family, head), vocabulary=known.vocab_size, pad=known.pad, max_length=40
    )
    params = random_params(config)
    for name, each in {"huggingface": HuggingFace(), "onnx": Onnx()}.items():
        each.write(tmp_path / name, config, params, Companions(known.save))
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "huggingface")
    names = [value.name for value in session(tmp_path / "onnx" / "model.onnx").get_inputs()]
    fed = opened(PROSE[:1], ["the other one"], return_tensors="np")
    fed = {name: array for name, array in fed.items() if name in names}
    assert sorted(fed) == sorted(names)
    (logits,) = session(tmp_path / "onnx" / "model.onnx").run(["logits"], fed)
    cls = {"masked_lm": "ForMaskedLM", "sequence_classification": "ForSequenceClassification"}[head]
    reference = getattr(transformers, f"AutoModel{cls}").from_pretrained(tmp_path / "huggingface")
    import torch

    with torch.no_grad():
        inputs = {name: torch.tensor(array) for name, array in fed.items()}
        expected = reference.eval()(**inputs).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    if "token_type_ids" in names:  # and segments matter
        fed["token_type_ids"] = np.zeros_like(fed["token_type_ids"])
        (other,) = session(tmp_path / "onnx" / "model.onnx").run(["logits"], fed)
        assert not np.allclose(other, logits, atol=1e-3)


def session(file):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_masked_language_model_can_be_quantised(family, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    config = encoder(family, "masked_lm")
    export_onnx(config, random_params(config), tmp_path)
    quantize_dynamic(str(tmp_path / "model.onnx"), str(tmp_path / "int8.onnx"))
    rng = np.random.default_rng(0)
    inputs = {
        value.name: np.ones((2, 9), np.int64)
        for value in session(tmp_path / "model.onnx").get_inputs()
    }
    inputs["input_ids"] = rng.integers(2, config.vocabulary, (2, 9))
    whole, small = (
        session(tmp_path / name).run(["logits"], inputs)[0] for name in ("model.onnx", "int8.onnx")
    )
    # int8 is near, and not equal; what was transposed by mistake would be as far as the scale is
    assert 0 < np.abs(small - whole).max() < 0.2 * np.abs(whole).max()


def test_a_decoder_writes_three_of_our_tokens_and_a_wrong_end_is_a_mismatch(tmp_path):
    config, params = model_of("llama", vocabulary=61, pad=0)
    config = dataclasses.replace(config, generation={"eos_token_id": 5, "bos_token_id": 1})
    hub.save(tmp_path, config, params)
    verified = verify_folder(tmp_path, config, params)
    assert verified["written_tokens"] == 6 and verified["precision"] == "float32"
    # The token that comes first as the end, in the file alone.
    first = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    for end in written_first(first, config):
        file = tmp_path / "generation_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": int(end)}))
        with pytest.raises(ExportMismatch, match="it writes .* ours .*generation_config.json"):
            verify_folder(tmp_path, config, params)


def written_first(model, config):
    """The first token that the model writes in the rows of the verification."""
    import torch

    from jaxkd.core.random import numpy_stream
    from jaxkd.export.verify import _tokens

    rows = _tokens(config, np.ones((2, 5), bool), numpy_stream(0, "verify writing", 5))
    with torch.no_grad():
        return model(torch.tensor(rows)).logits[:, -1].argmax(-1).numpy()[:1]


@pytest.mark.parametrize(
    "generation",
    [
        {},
        {"forced_bos_token_id": 9},
        {"forced_eos_token_id": 6},
        {"forced_bos_token_id": 9, "forced_eos_token_id": 6},
        {"suppress_tokens": list(range(10, 40)), "bad_words_ids": [[41], [42], [5, 6]]},
        {"eos_token_id": [6, 50, 51, 52, 53, 54, 55]},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["bart", "marian"])
def test_an_encoder_decoder_writes_our_tokens_with_what_is_forced_and_suppressed(
    family, generation, tmp_path
):
    config, params = model_of(family, vocabulary=61, encoder_layers=1, start=5, end=6, pad=3)
    config = dataclasses.replace(config, generation=generation)
    hub.save(tmp_path, config, params)
    assert verify_folder(tmp_path, config, params)["written_tokens"] >= 2
    if "forced_bos_token_id" in generation:
        file = tmp_path / "generation_config.json"
        content = json.loads(file.read_text()) | {"forced_bos_token_id": 11}
        file.write_text(json.dumps(content))
        with pytest.raises(ExportMismatch, match="it writes"):
            verify_folder(tmp_path, config, params)


@pytest.mark.parametrize(
    "labels, problem",
    [
        (("bad", "good", "neither"), ""),
        (("bad", "good", "neither"), "multi_label_classification"),
        (("stars",), ""),
        (("toxic",), "multi_label_classification"),
    ],
)
def test_a_pipeline_says_our_labels_and_other_names_are_a_mismatch(labels, problem, tmp_path):
    known = tokenizer(tmp_path)
    config, params = model_of(
        "bert", vocabulary=known.vocab_size, head="sequence_classification", labels=labels,
        problem_type=problem,
    )  # fmt: skip
    format_ = HuggingFace()
    format_.write(tmp_path / "f", config, params, Companions(known.save))
    verified = format_.verify(tmp_path / "f", config, params, tolerance=1e-4)
    assert verified["classified"]
    file = tmp_path / "f" / "config.json"
    content = json.loads(file.read_text())
    swapped = dict(zip(content["id2label"], [*labels[1:], labels[0] + "!"], strict=True))
    file.write_text(json.dumps(content | {"id2label": swapped}))
    with pytest.raises(ExportMismatch, match="its pipeline says .* ours"):
        format_.verify(tmp_path / "f", config, params, tolerance=1e-4)
    other = {"problem_type": "regression" if problem else "multi_label_classification"}
    file.write_text(json.dumps(content | other))
    with pytest.raises(ExportMismatch, match="its pipeline says .* ours"):
        format_.verify(tmp_path / "f", config, params, tolerance=1e-4)


def test_the_padding_id_is_among_the_ids_compared_where_that_is_legal():
    from jaxkd.export.verify import _tokens

    mask = np.arange(9) < np.array([[9], [5], [3]])
    for family, head, legal in [
        ("bert", "masked_lm", True), ("roberta", "masked_lm", False),
    ]:  # fmt: skip
        config = encoder(family, head)
        tokens = _tokens(config, mask, np.random.default_rng(0))
        assert ((tokens == config.pad) & mask).any(1).tolist() == [legal] * 3
        assert (tokens[~mask] == config.pad).all()
