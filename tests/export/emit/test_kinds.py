"""int8 files hold bytes and scales, and compute what a calculation with integers gives."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import quantize_dynamic

from jaxkd.export.emit.graph import Graph
from jaxkd.export.emit.kinds import FLOAT32, KINDS, Int8, Weights, joined, quantise
from jaxkd.export.emit.layers import Emitter
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.onnx_model import export_onnx
from jaxkd.models import bert
from tests.export.test_onnx_model import config_of
from tests.models.tiny import random_params


def relative_error(result, expected):
    """Root of the mean squared error, as a share of the expected values' own."""
    return np.sqrt(np.mean((result - expected) ** 2) / np.mean(expected**2))


@pytest.fixture
def rng():
    """Each test's own numbers, whichever ran before."""
    return np.random.default_rng(0)


def run(graph: Graph, **inputs):
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def quantised_rows(x):
    """uint8 values, scale and zero point of a whole tensor, as the ONNX operator defines them."""
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.clip(np.rint(x / scale) + zero, 0, 255), scale, zero


@pytest.mark.parametrize("kind", KINDS.values())
def test_kinds_are_kinds_of_weights(kind):
    assert isinstance(kind(), Weights)


@pytest.mark.parametrize("bits", [7, 8])
def test_a_quantised_matrix_is_within_half_a_step_and_keeps_zero(bits, rng):
    array = rng.normal(size=(50, 7)).astype(np.float32) * 10.0 ** np.arange(-3, 4)
    array[3] = 0.0
    values, scale = quantise(array, axis=0, bits=bits)
    assert np.abs(values).max() == 2 ** (bits - 1) - 1  # every column uses the whole range
    assert (np.abs(values).max(0) == 2 ** (bits - 1) - 1).all()
    assert (np.abs(values * scale - array) <= scale / 2 * 1.0001).all()
    assert (values[3] == 0).all()


def test_a_column_of_zeros_stays_zero_and_finite():
    values, scale = quantise(np.zeros((4, 2), np.float32), axis=0)
    assert not values.any() and np.isfinite(scale).all()


@pytest.mark.parametrize("bits", [7, 8])
def test_dense_layers_are_products_of_integers(bits, rng):
    graph, weights = Graph(), Int8(bits)
    params = {
        name: {
            "kernel": rng.normal(size=(12, out)).astype(np.float32),
            "bias": rng.normal(size=out).astype(np.float32),
        }
        for name, out in (("query", 5), ("key", 3))
    }
    hidden = graph.input("hidden", np.float32, ("B", "L", 12))
    for name, value in zip(
        ("q", "k"), Emitter(graph, weights).dense_layers(("query", "key"), params, hidden),
        strict=True,
    ):  # fmt: skip
        graph.output(
            name,
            value,
            np.float32,
            ("B", "L", params["query" if name == "q" else "key"]["bias"].size),
        )
    x = rng.normal(size=(2, 4, 12)).astype(np.float32)
    integers, scale, zero = quantised_rows(x)
    for result, layer in zip(run(graph, hidden=x), params.values(), strict=True):
        values, scales = quantise(layer["kernel"], axis=0, bits=bits)
        expected = ((integers - zero) @ values.astype(np.float64)) * scale * scales + layer["bias"]
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-5)
    assert sum(node.kind == "DynamicQuantizeLinear" for node in graph.nodes) == 1


CONFIG = bert.Config(
    vocabulary=600, layers=1, width=256, heads=4, feed_forward=1024, max_length=64, dropout=0.0
)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


def test_an_int8_file_is_about_a_quarter_as_large_and_near_in_its_logits(tmp_path, params, rng):
    (int8,) = export_onnx(CONFIG, params, tmp_path / "int8", Int8())
    (float32,) = export_onnx(CONFIG, params, tmp_path / "float32")
    sizes = [file.stat().st_size for file in (int8, float32)]
    assert sizes[0] <= 0.27 * sizes[1]
    ids = rng.integers(5, 600, (3, 20))
    inputs = dict(input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=0 * ids)
    quantize_dynamic(str(float32), str(tmp_path / "reference.onnx"))
    small, whole, reference = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for file in (int8, float32, tmp_path / "reference.onnx")
    )
    assert 0 < relative_error(small, whole) <= relative_error(reference, whole)
    matrices = [t for t in onnx.load(int8).graph.initializer if len(t.dims) == 2]
    assert {t.data_type for t in matrices if t.dims[1] > 1} == {onnx.TensorProto.INT8}
    # the embedding and the head tied to it are one tensor
    assert sum(t.dims[:] == [600, 256] for t in matrices) == 1


@pytest.mark.parametrize("biases", [0, 1, 2])
@pytest.mark.parametrize("kind", [FLOAT32, Int8()], ids=["float32", "int8"])
def test_a_streamed_graph_has_its_weights_as_inputs_and_computes_the_same(kind, biases, rng):
    layers = tuple({"kernel": rng.normal(size=(6, n)).astype(np.float32)} for n in (4, 2))
    for layer in layers[:biases]:
        layer["bias"] = rng.normal(size=layer["kernel"].shape[1]).astype(np.float32)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    results = []
    for streamed in (False, True):
        graph = Graph(streamed=streamed)
        hidden = graph.input("hidden", np.float32, ("rows", 6))
        values = kind.dense(graph, ("a", "b"), hidden, layers)
        for name, value, layer in zip("yz", values, layers, strict=True):
            graph.output(name, value, np.float32, ("rows", layer["kernel"].shape[1]))
        results.append(run(graph, hidden=x, **(graph.weights if streamed else {})))
    for constant, streamed, layer in zip(*results, layers, strict=True):
        np.testing.assert_allclose(constant, streamed, rtol=0, atol=1e-6)
        if kind is FLOAT32:
            expected = x @ layer["kernel"] + layer.get("bias", 0)
            np.testing.assert_allclose(constant, expected, rtol=0, atol=1e-5)


def test_layers_side_by_side_are_named_after_all():
    assert joined(("attention/query", "attention/key")) == "attention/query+key"
    assert joined(("norm",)) == "norm"


def test_a_kind_is_a_value():
    assert Int8() == Int8(8) != Int8(7) and dataclasses.is_dataclass(FLOAT32)


@pytest.mark.parametrize(
    "family, head",
    [
        ("modernbert", "bare"),
        ("qwen2_moe", "causal_lm"),
        ("t5", "seq2seq_lm"),
        ("lstm", "seq2seq_lm"),
    ],
)
def test_int8_is_near_in_families_with_other_products(tmp_path, family, head, rng):
    config = config_of(family, head)
    params = random_params(config)
    inputs = {
        "input_ids": rng.integers(3, 37, (2, 8)),
        "attention_mask": (np.arange(8) < [[8], [5]]).astype(np.int64),
    }
    if head == "seq2seq_lm":
        inputs["decoder_input_ids"] = rng.integers(3, 37, (2, 5))
    results = []
    for kind in (FLOAT32, Int8()):
        export_onnx(config, params, tmp_path, kind)
        results.append(OnnxFiles(tmp_path, config).logits(inputs)[0])
    whole, small = results
    # Bytes of these random matrices cost 0.04 to 0.09; a wrong matrix or scale gives about 1.
    assert 0 < relative_error(small, whole) < 0.15
