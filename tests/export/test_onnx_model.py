"""The ONNX file and the HuggingFace folder compute what JAX computes, or verification says so."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from jaxkd.core.tree import map_named, named
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.onnx_model import export_onnx
from jaxkd.export.torch_encoder import ACTIVATIONS, to_torch
from jaxkd.export.verify import ExportMismatch, verify_folder, verify_onnx
from jaxkd.hub import folder as hub_folder
from jaxkd.models import bert, families, seq2seq
from tests.models.tiny import random_params

CONFIG = bert.Config(
    vocabulary=37, layers=2, width=24, heads=3, feed_forward=40, max_length=11, dropout=0.0
)
SHALLOW = dataclasses.replace(CONFIG, layers=1)


def with_one_changed(params, name, index, to):
    """The same parameters but for one number."""

    def change(path, leaf):
        return leaf.at[index].set(to) if path == name else leaf

    return map_named(change, params)


def random_batch(rows, length):
    tokens = np.random.default_rng(rows).integers(CONFIG.vocabulary, size=(rows, length))
    mask = np.arange(length) < np.maximum(1, length - 2 * np.arange(rows))[:, None]
    return tokens, mask.astype(np.int64)


def run_onnx(file, tokens, mask):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(
        ["logits"],
        {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)},
    )[0]


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def file(tmp_path_factory, params):
    folder = tmp_path_factory.mktemp("export") / "folder" / "that" / "is_not_there"
    (file,) = export_onnx(CONFIG, params, folder)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory, params):
    folder = tmp_path_factory.mktemp("export") / "student"
    hub_folder.save(folder, CONFIG, params)
    return folder


def test_onnxruntime_computes_what_jax_computes_at_two_batch_sizes_and_two_lengths(file, params):
    verified = verify_onnx(file.parent, CONFIG, params)
    assert verified["max_abs_difference"] <= 1e-4
    assert verified["shapes"] == [[3, 6], [1, 6], [3, 11], [1, 11]]
    assert (verified["opset"], verified["ir"]) == (13, 7)
    assert verified["onnxruntime"] == onnxruntime.__version__


def test_transformers_opens_the_folder_and_computes_what_jax_computes(folder, params):
    verified = verify_folder(folder, CONFIG, params)
    assert verified["max_abs_difference"] <= 1e-4
    assert verified["shapes"] == [[3, 6], [1, 6], [3, 11], [1, 11]]


def config_of(family, head):
    """Small, with what is particular to a family: windows, shared keys, experts, two lengths."""
    kind = families.FAMILIES[family][0]
    changes = {
        "modernbert": dict(window=3, global_every=2, layers=4, classifier_pooling="mean"),
        "albert": dict(embedding_width=10),
        "llama": dict(kv_heads=2, rope="llama3", rope_original=8, rope_factor=2.0),
        "qwen2": dict(kv_heads=2),
        "qwen3": dict(kv_heads=1, head_width=10),
        "qwen2_moe": dict(
            kv_heads=2, experts=5, experts_per_token=2, expert_width=12, shared_width=16,
            normalise_experts=True,
        ),
        "marian": dict(source_vocabulary=29),
        "t5": dict(buckets=8, max_distance=6, head_width=10, gated=True, tied=False),
    }.get(family, {})  # fmt: skip
    if issubclass(kind, seq2seq.Config):
        changes |= dict(encoder_layers=3, start=1, end=2)
    if family in ("t5", "lstm"):
        changes["max_length"] = 20
    if head == "multi_task":
        changes["labels"] = ("move:left", "move:right", "see:cup", "see:book", "see:sink")
    small = dict(vocabulary=37, layers=2, width=24, heads=4, feed_forward=40, max_length=14, pad=0)
    return kind(**(small | dict(head=head) | changes))


ALL = [
    (family, head) for family, (kind, _) in families.FAMILIES.items() for head in kind.known_heads
]


@pytest.mark.parametrize(("family", "head"), ALL)
def test_every_family_and_head_is_the_same_in_onnxruntime(tmp_path, family, head):
    config = config_of(family, head)
    params = random_params(config)
    files = export_onnx(config, params, tmp_path)
    verified = verify_onnx(tmp_path, config, params, tolerance=2e-5)
    assert len(verified["shapes"]) == 4
    kinds = {node.op_type for file in files for node in onnx.load(file).graph.node}
    assert not kinds & {"Loop", "Scan", "If"}
    if family == "albert":  # its one block is in the file once
        sizes = [np.prod(t.dims) for t in onnx.load(files[0]).graph.initializer]
        assert sizes.count(config.width * config.feed_forward) == 2


@pytest.mark.parametrize("family", ["llama", "t5", "lstm"])
def test_tokens_one_at_a_time_get_the_logits_of_all_at_once(tmp_path, family):
    config = config_of(family, next(iter(families.FAMILIES[family][0].known_heads)))
    export_onnx(config, random_params(config), tmp_path)
    files = OnnxFiles(tmp_path, config)
    rng = np.random.default_rng(0)
    ids, written = rng.integers(3, 29, (2, 9)), rng.integers(3, 29, (2, 6))
    mask = (np.arange(9) < [[9], [6]]).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family == "llama":
        steps, fixed = ids, {}
        whole = files.logits(inputs)
    else:
        steps, fixed = written, files.encode(inputs) | {"encoder_attention_mask": mask}
        whole = files.logits(inputs | {"decoder_input_ids": written})
    cache = files.empty_cache(2)
    for i in range(steps.shape[1]):
        feed = {"input_ids": steps[:, i : i + 1]} | fixed | cache
        if family == "llama":
            feed["attention_mask"] = mask[:, : i + 1]
        logits, cache = files.step(feed)
        counted = mask[:, i].astype(bool) if family == "llama" else slice(None)
        np.testing.assert_allclose(logits[counted, 0], whole[counted, i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
def test_a_head_that_reads_the_mean_of_all_tokens_is_the_same(tmp_path, family):
    config = dataclasses.replace(config_of(family, "sequence_classification"), head_reads="mean")
    params = random_params(config)
    export_onnx(config, params, tmp_path)
    assert verify_onnx(tmp_path, config, params, tolerance=2e-5)


def test_a_decoders_prompt_may_be_padded_on_the_left(tmp_path):
    config = config_of("qwen2", "causal_lm")
    export_onnx(config, random_params(config), tmp_path)
    ids = np.random.default_rng(0).integers(3, 29, (1, 6))
    files = OnnxFiles(tmp_path, config)
    plain = files.logits({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    padded, mask = (np.pad(x, ((0, 0), (3, 0))) for x in (ids, np.ones_like(ids)))
    shifted = files.logits({"input_ids": padded, "attention_mask": mask})
    np.testing.assert_allclose(shifted[:, 3:], plain, rtol=0, atol=1e-5)


DISTINCT = sorted({function: name for name, function in ACTIVATIONS.items()}.values())


@pytest.mark.parametrize("name", DISTINCT)
def test_onnxruntime_computes_what_torch_computes_with_every_activation(tmp_path, name):
    config = dataclasses.replace(SHALLOW, activation=name)
    params = random_params(config)
    export_onnx(config, params, tmp_path)
    for shape in [(1, 1), (5, 10)]:
        tokens, mask = random_batch(*shape)
        expected = to_torch(config, params)(torch.tensor(tokens), torch.tensor(mask)).numpy()
        result = run_onnx(tmp_path / "model.onnx", tokens, mask)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_the_file_declares_opset_13_ir_7_and_free_batch_and_length(file):
    model = onnx.load(file)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    values = {v.name: v.type.tensor_type for v in [*model.graph.input, *model.graph.output]}
    dims = {name: [d.dim_param or d.dim_value for d in t.shape.dim] for name, t in values.items()}
    free = ["batch", "length"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    assert dims == dict.fromkeys(names, free) | {"logits": [*free, CONFIG.vocabulary]}
    integer, real = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    assert [values[name].elem_type for name in dims] == [integer, integer, integer, real]


def test_the_file_holds_no_operator_that_tensorrt_8_0_does_not_know(file):
    result = {node.op_type for node in onnx.load(file).graph.node}
    assert not result & {"LayerNormalization", "Einsum", "Attention", "IsNaN", "Gelu", "Where"}
    assert {node.domain for node in onnx.load(file).graph.node} == {""}


def test_the_tied_embedding_is_in_the_file_once(file):
    sizes = [np.prod(tensor.dims) for tensor in onnx.load(file).graph.initializer]
    assert sizes.count(CONFIG.vocabulary * CONFIG.width) == 1


def test_the_same_parameters_give_the_same_bytes(file, params, tmp_path):
    export_onnx(CONFIG, params, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == file.read_bytes()


def test_tokens_in_padding_change_no_logit_of_the_file(file):
    tokens, mask = random_batch(3, 9)
    counts = mask.astype(bool)
    result = run_onnx(file, tokens, mask)
    other = run_onnx(file, np.where(counts, tokens, 5), mask)
    np.testing.assert_array_equal(result[counts], other[counts])


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("embed/token", (30, 4)),
        ("embed/position", (10, 0)),  # of the last position
        ("blocks/1/attention/query/kernel", (3, 5)),
        ("blocks/0/norm/scale", (7,)),
        ("head/bias", (36,)),
    ],
    ids=str,
)
def test_verification_fails_when_one_number_of_the_parameters_changed(file, params, name, index):
    with pytest.raises(ExportMismatch, match=r"onnxruntime, batch 3, length .* differ by"):
        verify_onnx(file.parent, CONFIG, with_one_changed(params, name, index, 2.0))


def test_a_mismatch_says_which_logit_differs_and_by_how_much(file, params):
    other = with_one_changed(params, "head/bias", (36,), params["head"]["bias"][36] + 3.0)
    with pytest.raises(ExportMismatch, match=r"token 36 is .*; they differ by (3\.|2\.99999)"):
        verify_onnx(file.parent, CONFIG, other)


def test_verification_fails_when_one_number_of_the_file_changed(file, params, tmp_path):
    model = onnx.load(file)
    bias = next(t for t in model.graph.initializer if t.name == "head/bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 2e-4
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportMismatch, match=r"token 0 is .* allowed is 0\.0001"):
        verify_onnx(tmp_path, CONFIG, params)
    assert verify_onnx(tmp_path, CONFIG, params, tolerance=1e-3)


def test_verification_fails_when_one_number_of_the_folder_changed(tmp_path, params):
    other = with_one_changed(params, "blocks/0/feed_forward/contract/bias", (3,), 2.0)
    hub_folder.save(tmp_path / "other", CONFIG, other)
    with pytest.raises(ExportMismatch, match=r"transformers, batch 3, length 6: the logit of row"):
        verify_folder(tmp_path / "other", CONFIG, params)


def test_nan_is_a_mismatch_even_where_both_sides_have_it(tmp_path, params):
    broken = with_one_changed(params, "head/bias", (0,), jnp.nan)
    export_onnx(CONFIG, broken, tmp_path)
    with pytest.raises(ExportMismatch, match="token 0 is nan, ours is nan"):
        verify_onnx(tmp_path, CONFIG, broken)


def test_a_file_of_one_length_only_is_a_mismatch(file, params, tmp_path):
    model = onnx.load(file)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_value = CONFIG.max_length
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportMismatch, match="batch 3, length 6: does not run"):
        verify_onnx(tmp_path, CONFIG, params)


def test_a_file_of_another_vocabulary_is_a_mismatch(tmp_path, params):
    smaller = dataclasses.replace(CONFIG, vocabulary=36)
    cut = params | {
        "embed": params["embed"] | {"token": params["embed"]["token"][:36]},
        "head": params["head"] | {"bias": params["head"]["bias"][:36]},
    }
    export_onnx(smaller, cut, tmp_path)
    with pytest.raises(ExportMismatch, match="does not run|logits are"):
        verify_onnx(tmp_path, CONFIG, params)


def test_verification_in_bfloat16_compares_the_float32_model(file, params):
    assert verify_onnx(file.parent, dataclasses.replace(CONFIG, compute="bfloat16"), params)


def test_a_model_of_one_position_exports_and_verifies(tmp_path):
    config = dataclasses.replace(SHALLOW, max_length=1)
    params = random_params(config)
    export_onnx(config, params, tmp_path)
    verified = verify_onnx(tmp_path, config, params)
    assert verified["shapes"] == [[3, 1], [1, 1]]


def test_a_failed_export_leaves_the_old_file_and_no_other(tmp_path, params, monkeypatch):
    def refuse(*args, **kwargs):
        raise onnx.checker.ValidationError("refused")

    (tmp_path / "model.onnx").write_bytes(b"old")
    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(CONFIG, params, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"model.onnx": b"old"}


def test_a_model_above_the_protobuf_limit_is_refused_before_any_work(tmp_path):
    large = dataclasses.replace(CONFIG, vocabulary=2**20, width=768, heads=12)
    shapes = jax.eval_shape(lambda: bert.build(large).init(0))
    with pytest.raises(ValueError, match=r"3\.\d\d GiB .* less than 2 GiB.*HuggingFace folder"):
        export_onnx(large, shapes, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, params):
    with pytest.raises(FileNotFoundError, match="student is no folder"):
        verify_folder(tmp_path / "student", CONFIG, params)


def test_without_the_extra_the_error_says_what_to_install(tmp_path, params, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs onnx .*install 'jaxkd\[onnx\]'"):
        export_onnx(CONFIG, params, tmp_path)


def test_an_export_needs_no_torch(tmp_path, params, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    export_onnx(CONFIG, params, tmp_path)
    assert verify_onnx(tmp_path, CONFIG, params)


def test_weights_of_the_file_have_the_names_and_values_of_our_parameters(file, params):
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(file).graph.initializer
    }
    ours = {
        name: np.asarray(leaf) for name, leaf in named(families.build(CONFIG).parts(params)).items()
    }
    assert ours.keys() == {name for name in stored if not name.startswith("constant_")}
    for name, leaf in ours.items():
        np.testing.assert_array_equal(stored[name], leaf)
