"""int8 of fixed scales and float16 with islands: what they store, compute and lose."""

import numpy as np
import onnx
import pytest

from jaxkd.core.batch import Batch
from jaxkd.export.emit.calibrated import Observed, StaticInt8, scales_of
from jaxkd.export.emit.islands import to_float16
from jaxkd.export.emit.whole import graphs
from jaxkd.export.formats import Companions, Onnx
from jaxkd.export.onnx_files import OnnxFiles
from jaxkd.export.onnx_model import export_onnx
from jaxkd.models import families
from tests.device import bundles
from tests.export.test_tensorrt import LACKS

KINDS = [
    ("bert", "sequence_classification"), ("bert", "masked_lm"), ("roberta", "bare"),
    ("modernbert", "sequence_classification"), ("albert", "token_classification"),
    ("qwen3", "sequence_classification"), ("gpt2", "bare"),
]  # fmt: skip


def made(family, head):
    config = bundles.config_of(family, head)
    return config, families.build(config).init(0)


def batches():
    draw = np.random.default_rng(0)
    for _ in range(3):
        mask = np.arange(10) < draw.integers(3, 11, 4)[:, None]
        yield Batch(tokens=draw.integers(1, 97, (4, 10)).astype(np.int32) * mask, mask=mask)


def largest_difference(first, second):
    """Over the tokens of all rows."""
    worst = 0.0
    for batch in batches():
        mask = np.asarray(batch.mask)
        one, other = first.predict(batch), second.predict(batch)
        apart = np.abs(one - other)
        worst = max(worst, (apart[mask] if apart.shape[:2] == mask.shape else apart).max())
    return worst


@pytest.mark.parametrize("family, head", KINDS)
def test_both_files_answer_nearly_as_float32(family, head, tmp_path):
    config, params = made(family, head)
    plain, static, half = Onnx(), Onnx(weights="int8_static", bits=7), Onnx(compute="float16")
    companions = Companions(calibration_batches=batches)
    sizes, opened = {}, {}
    for name, each in (("plain", plain), ("static", static), ("half", half)):
        each.check(config)
        sizes[name] = each.write(tmp_path / name, config, params, companions)["megabytes"]
        opened[name] = OnnxFiles(tmp_path / name, config)
        each.verify(tmp_path / name, config, params, tolerance=1e-4)
    scale = max(opened["plain"].predict(batch).std() for batch in batches())
    assert 0 < largest_difference(opened["plain"], opened["half"]) < 0.01 * scale + 1e-4
    assert 0 < largest_difference(opened["plain"], opened["static"]) < 0.25 * scale
    model = onnx.load(tmp_path / "half" / "model.onnx")
    assert not {node.op_type for node in model.graph.node} & LACKS["8.0"]
    stored = {t.data_type for t in model.graph.initializer if len(t.dims) == 2 and t.dims[0] > 1}
    assert onnx.TensorProto.FLOAT16 in stored


def test_islands_are_norms_and_softmax_by_their_kind():
    config, params = made("bert", "sequence_classification")
    ((_, graph),) = graphs(config, params)
    model = onnx.shape_inference.infer_shapes(to_float16(graph).model())
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    float32 = [n for n in model.graph.node if kinds.get(n.output[0]) == onnx.TensorProto.FLOAT]
    float16 = [n for n in model.graph.node if kinds.get(n.output[0]) == onnx.TensorProto.FLOAT16]
    islands = {node.op_type for node in float32}
    assert {"ReduceMean", "Pow", "Sqrt", "Softmax"} <= islands
    assert not islands & {"MatMul", "Erf", "Tanh"}
    assert {"MatMul", "Erf"} <= {node.op_type for node in float16}
    assert not {"ReduceMean", "Pow", "Sqrt", "Softmax"} & {node.op_type for node in float16}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_q_and_dq_have_zero_points_of_0_and_a_scale_an_output():
    config, params = made("bert", "sequence_classification")
    ((_, observed),) = graphs(config, params, Observed())
    count = sum(name.startswith("range.") for name in observed.outputs)
    assert count == 2 * 4 + 2  # a block: query key value, output, expand, contract; pool, classify
    ((_, graph),) = graphs(config, params, StaticInt8((0.01,) * count))
    model = graph.model()
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not arrays[node.input[2]].any() and arrays[node.input[2]].dtype == np.int8
    matrices = [
        name for name, array in arrays.items() if array.dtype == np.int8 and array.ndim == 2
    ]
    assert len(matrices) == 2 * 6 + 2
    for name in matrices:
        assert arrays[f"{name}_scale"].shape == arrays[name].shape[1:]
    assert not {node.op_type for node in model.graph.node} & LACKS["8.0"]
    with pytest.raises(ValueError, match="calibrate this model"):
        list(graphs(config, params, StaticInt8((0.01,))))


def test_scales_are_of_tokens_alone_and_cut_the_rarest_off():
    mask = np.array([[True, True, False], [True, False, False]])
    batch = Batch(tokens=np.zeros((2, 3), np.int32), mask=mask)
    ranges = np.array([[127.0, 127.0, 9e9], [127.0, 9e9, 9e9]])
    outputs = {"range.1": ranges, "range.0": 2 * ranges[:, :1], "logits": ranges}
    assert scales_of(lambda _: outputs, [batch]) == pytest.approx((2.0, 1.0))
    assert scales_of(lambda _: outputs, [batch], bits=7)[1] == pytest.approx(127 / 63)
    with pytest.raises(ValueError, match="no rows"):
        scales_of(lambda _: outputs, [])


def test_impossible_files_are_refused_before_they_are_written(tmp_path):
    config, params = made("bert", "sequence_classification")
    with pytest.raises(ValueError, match="experiment has none"):
        Onnx(weights="int8_static").write(tmp_path / "a", config, params)
    with pytest.raises(ValueError, match="does not go with it"):
        Onnx(weights="int8", compute="float16").check()
    with pytest.raises(ValueError, match="float32 or float16"):
        Onnx(compute="bfloat16").check()
    for kind in (Onnx(weights="int8_static"), Onnx(compute="float16")):
        for family, head in (("gpt2", "causal_lm"), ("t5", "seq2seq_lm"), ("bert", "multi_task")):
            with pytest.raises(ValueError, match="answer in one pass"):
                kind.check(bundles.config_of(family, head))
        assert not kind.exact


def test_large_weights_are_refused_in_float16(tmp_path):
    config, params = made("bert", "sequence_classification")
    kernel = np.array(params["head"]["pool"]["kernel"])
    kernel[0, 0] = 1e5
    pool = {**params["head"]["pool"], "kernel": kernel}
    params = {**params, "head": {**params["head"], "pool": pool}}
    with pytest.raises(ValueError, match="float16 ends at 65504"):
        export_onnx(config, params, tmp_path, change=to_float16)
