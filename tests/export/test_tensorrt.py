"""Every operator of our whole-model files is in the tables of TensorRT's parser, with its types.

The tables are docs/operators.md of onnx/onnx-tensorrt, release 8.0, 8.4, 8.5 and 10.15: what stands
there is necessary, not sufficient. The parser's releases 11.0 to 11.5 remove no operator: their
notes name additions only (Swish, DFT, GridSample in 3D, Squeeze without axes).
"""

import onnx
import pytest

from jaxkd.export.emit.whole import graphs
from tests.device import bundles
from tests.models.tiny import random_params

# Operators that ONNX has in opset 13 and the parser lacks, by release.
LACKS_8_0 = set(
    "BitShift Compress ConcatFromSequence ConvInteger Det Dropout DynamicQuantizeLinear Einsum "
    "GatherND Hardmax If IsInf IsNaN MatMulInteger MaxRoiPool MaxUnpool MeanVarianceNormalization "
    "Mod Multinomial NegativeLogLikelihoodLoss NonMaxSuppression NonZero OneHot QLinearConv "
    "QLinearMatMul RandomNormal RandomNormalLike Reciprocal RoiAlign Round ScatterElements "
    "ScatterND SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert "
    "SequenceLength Shrink Sign SplitToSequence StringNormalizer TfIdfVectorizer Unique Xor".split()
)
LACKS_8_4 = LACKS_8_0 - set(
    "Dropout Einsum GatherND If IsNaN NonMaxSuppression Round ScatterElements ScatterND Sign "
    "Xor".split()
) | {"SoftmaxCrossEntropyLoss"}
LACKS_8_5 = LACKS_8_4 - set(
    "MeanVarianceNormalization Mod NonZero OneHot RandomNormal RandomNormalLike Reciprocal "
    "RoiAlign Shrink".split()
)
LACKS_10_15 = LACKS_8_5 - set("Hardmax IsInf".split())
LACKS = {"8.0": LACKS_8_0, "8.4": LACKS_8_4, "8.5": LACKS_8_5, "10.15": LACKS_10_15}
# Of what we use, those whose numbers may not be whole (the column "Supported Types").
FLOATS_ONLY = {
    "ArgMax", "Cos", "CumSum", "Erf", "Gemm", "LSTM", "MatMul", "Pow", "ReduceMax", "ReduceMean",
    "ReduceSum", "Relu", "Sigmoid", "Sin", "Softmax", "Softplus", "Sqrt", "Tanh", "TopK",
}  # fmt: skip
# Inputs that must be constants, by position.
CONSTANTS = {
    "CumSum": 1, "OneHot": 1, "ReduceSum": 1, "Slice": 3, "Split": 1, "Squeeze": 1, "TopK": 1,
    "Unsqueeze": 1,
}  # fmt: skip
MoE = "qwen2_moe"  # experts are chosen with OneHot, which the parser has from 8.5 on


@pytest.mark.parametrize("family, head", bundles.KINDS)
def test_operators_and_types_are_in_the_tables(family, head):
    config = bundles.config_of(family, head)
    for name, graph in graphs(config, random_params(config)):
        model = onnx.shape_inference.infer_shapes(graph.model(), data_prop=True)
        lacking = {
            version: {node.op_type for node in model.graph.node} & lacks
            for version, lacks in LACKS.items()
        }
        expected = {"OneHot"} if family == MoE else set()
        assert lacking == {"8.0": expected, "8.4": expected, "8.5": set(), "10.15": set()}, name
        check_types(model)


def check_types(model):
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for values in (model.graph.input, model.graph.value_info, model.graph.output)
        for value in values
    }
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kinds |= {name: tensor.data_type for name, tensor in constants.items()}
    assert onnx.TensorProto.UINT8 not in kinds.values()  # 10.15: inputs and outputs only
    for node in model.graph.node:
        if node.op_type in FLOATS_ONLY:
            assert kinds[node.input[0]] == onnx.TensorProto.FLOAT, (node.op_type, node.name)
        at = CONSTANTS.get(node.op_type)
        if at is not None and len(node.input) > at:
            assert node.input[at] in constants, (node.op_type, node.name)
        if node.op_type == "LSTM":
            assert not {attribute.name for attribute in node.attribute} & {"layout", "input_forget"}


def test_int8_with_dynamic_activations_is_not_for_tensorrt():
    from jaxkd.export.emit.kinds import Int8

    config = bundles.config_of("bert", "bare")
    ((_, graph),) = graphs(config, random_params(config), Int8(7))
    used = {node.kind for node in graph.nodes}
    assert used & LACKS["10.15"] == {"DynamicQuantizeLinear", "MatMulInteger"}
