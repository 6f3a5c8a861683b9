"""Any ONNX model in segments under a budget answers as the whole one."""

import json
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jaxkd.device.bundle import Bundle
from jaxkd.device.cli import main as run_device
from jaxkd.export import divide as module
from jaxkd.export.divide import divide, main, read, segments
from jaxkd.export.onnx_model import export_onnx
from tests.device import bundles
from tests.models.tiny import random_params


class Residual(torch.nn.Module):
    """A small ResNet: convolutions, norms, shortcuts."""

    def __init__(self, width=16, blocks=4):
        super().__init__()
        self.first = torch.nn.Conv2d(3, width, 3, padding=1)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.BatchNorm2d(width),
                torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.last = torch.nn.Linear(width, 10)

    def forward(self, image):
        x = self.first(image)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.last(x.mean((2, 3)))


class Vision(torch.nn.Module):
    """A small ViT: patches, attention, a class token."""

    def __init__(self, width=32, layers=3):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, width, 4, stride=4)
        self.token = torch.nn.Parameter(torch.randn(1, 1, width))
        self.query = torch.nn.ModuleList(torch.nn.Linear(width, 3 * width) for _ in range(layers))
        self.inner = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.LayerNorm(width), torch.nn.Linear(width, 4 * width), torch.nn.GELU(),
                torch.nn.Linear(4 * width, width),
            )
            for _ in range(layers)
        )  # fmt: skip

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        for query, inner in zip(self.query, self.inner, strict=True):
            q, k, v = query(x).chunk(3, -1)
            x = x + torch.softmax(q @ k.transpose(1, 2) / 5.66, -1) @ v
            x = x + inner(x)
        return x[:, 0]


def exported(kind, folder):
    file = folder / "model.onnx"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's are of its own future
        torch.onnx.export(
            kind().eval(), (torch.randn(2, 3, 16, 16),), file, dynamo=False, opset_version=13,
            input_names=["image"], output_names=["out"],
        )  # fmt: skip
    return file


@pytest.mark.parametrize("kind, budget", [(Residual, 20_000), (Vision, 30_000)])
def test_models_of_images(kind, budget, tmp_path):
    file = exported(kind, tmp_path)
    made = divide(file, tmp_path / "d", budget)
    assert len(made) >= 4 and all(each["bytes"] <= budget for each in made)
    nodes = [n for n in onnx.load(file).graph.node if n.op_type != "Constant"]
    assert sum(each["nodes"] for each in made) == len(nodes)
    bundle = Bundle(tmp_path / "d")
    for tier in ("resident", "mapped", "streamed"):
        for block in bundle.blocks:
            block.place(tier)
        assert bundle.reference_difference() < 1e-4


def test_bert_and_a_budget_that_holds_all(tmp_path):
    config = bundles.config_of("bert", "sequence_classification", layers=3)
    (file,) = export_onnx(config, random_params(config), tmp_path)
    whole = divide(file, tmp_path / "one", 10**9)
    assert len(whole) == 1
    made = divide(file, tmp_path / "d", 20_000)
    assert len(made) > 3
    rows = np.array([[5, 6, 7, 8, 9]])
    feeds = {"input_ids": rows, "attention_mask": np.ones_like(rows),
             "token_type_ids": np.zeros_like(rows)}  # fmt: skip
    answers = [Bundle(tmp_path / name).model(feeds)["logits"] for name in ("one", "d")]
    np.testing.assert_allclose(*answers, atol=1e-5)
    assert answers[0].shape == (1, 3)


def branching(folder):
    """An `If` whose branches read an outer weight, which a later product reads too; external."""
    draw = np.random.default_rng(0)
    arrays = {name: draw.normal(size=(16, 16)).astype(np.float32) for name in ("a", "b", "c")}

    def branch(name, kind):
        node = helper.make_node(kind, ["hidden", "a"], [f"{name}_out"])
        value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", 16])
        return helper.make_graph([node], name, [], [value])

    nodes = [
        helper.make_node("MatMul", ["x", "b"], ["hidden"]),
        helper.make_node(
            "If", ["which"], ["chosen"], then_branch=branch("then", "MatMul"),
            else_branch=branch("else", "Gemm"),
        ),
        helper.make_node("MatMul", ["chosen", "c"], ["third"]),
        helper.make_node("MatMul", ["third", "a"], ["last"]),
        helper.make_node("Add", ["last", "hidden"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16]),
         helper.make_tensor_value_info("which", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16]),
         helper.make_tensor_value_info("third", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    file = folder / "model.onnx"
    onnx.save(model, file, save_as_external_data=True, location="weights.data", size_threshold=64)
    return file, arrays


@pytest.mark.parametrize("which", [True, False])
def test_subgraphs_shared_weights_and_external_data(which, tmp_path):
    file, arrays = branching(tmp_path)
    example = {"x": np.ones((3, 16), np.float32), "which": np.array(which)}
    made = divide(file, tmp_path / "d", 1100, example)
    assert len(made) == 4 and all(each["bytes"] == 1024 for each in made[:3])
    x = np.random.default_rng(1).normal(size=(2, 16)).astype(np.float32)
    outputs = Bundle(tmp_path / "d", window=True).model({"x": x, "which": np.array(which)})
    third = x @ arrays["b"] @ arrays["a"] @ arrays["c"]
    np.testing.assert_allclose(outputs["third"], third, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        outputs["y"], third @ arrays["a"] + x @ arrays["b"], rtol=1e-4, atol=1e-2
    )
    stored = sum(f.stat().st_size for f in (tmp_path / "d" / "weights").iterdir())
    assert stored == sum(array.nbytes for array in arrays.values())  # the shared one only once


def test_the_cut_is_where_the_least_crosses(tmp_path):
    """Behind the sum only one value of 4 numbers crosses; beside it two of 8 do."""
    draw = np.random.default_rng(0)
    shapes = [(8, 64), (64, 64), (64, 4), (4, 64), (64, 64)]
    kernels = {f"k{i}": draw.normal(size=s).astype(np.float32) for i, s in enumerate(shapes)}
    names = ["x", *(f"h{i}" for i in range(5))]
    nodes = [helper.make_node("MatMul", [names[i], f"k{i}"], [names[i + 1]]) for i in range(5)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("h4", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(array, name) for name, array in kernels.items()],
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, tmp_path / "m.onnx")
    opened = read(tmp_path / "m.onnx")
    assert module.crossing(opened)[1:5] == [64, 64, 4, 64]
    # All but the last product fit; the cut is behind the third, where 4 numbers cross.
    assert segments(opened, 20_500) == [range(0, 3), range(3, 5)]


def test_the_command_divides_and_runs(tmp_path, capsys):
    file = exported(Residual, tmp_path)
    main([str(file), "-o", str(tmp_path / "d"), "--budget-mb", "0.02"])
    made = json.loads(capsys.readouterr().out)
    image = np.random.default_rng(2).normal(size=(2, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "in.npz", image=image)
    requested = ["--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz"), "--window"]
    assert run_device(requested, tmp_path / "d") == 0
    assert "out  float32 (2, 10)" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as outputs:
        whole = module._whole(read(file), {"image": image})
        np.testing.assert_allclose(outputs["out"], whole["out"], atol=1e-4)
    assert run_device([*requested, "--bench", "--seconds", "0.1"], tmp_path / "d") == 0
    assert len(json.loads(capsys.readouterr().out)["memory_by_layer"]) == len(made)
    assert run_device(["--selftest"], tmp_path / "d") == 0
    assert run_device(["--text", "a"], tmp_path / "d") == 2
    np.savez(tmp_path / "other.npz", picture=image)
    assert run_device(["--inputs", str(tmp_path / "other.npz")], tmp_path / "d") == 2
    assert "missing: image, unknown: picture" in capsys.readouterr().err


def test_segments_with_constants_are_for_tensorrt(tmp_path):
    file = exported(Residual, tmp_path)
    streamed = divide(file, tmp_path / "streamed", 20_000)
    constant = divide(file, tmp_path / "constant", 20_000, constant=True)
    assert constant == streamed
    for name, weights in (("streamed", True), ("constant", False)):
        graphs = [onnx.load(graph).graph for graph in (tmp_path / name / "graphs").glob("*.onnx")]
        inputs = {value.name for graph in graphs for value in graph.input}
        assert ("first.weight" in inputs) == weights
    assert Bundle(tmp_path / "constant").reference_difference() < 1e-4


def test_bad_requests(tmp_path):
    file = exported(Residual, tmp_path)
    with pytest.raises(ValueError, match=r"one node has .* The least is --budget-mb 0\.1"):
        divide(file, tmp_path / "d", 5000)
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="no ONNX model"):
        divide(tmp_path / "no.onnx", tmp_path / "d", 10**6)
    with pytest.raises(FileExistsError, match="is not empty"):
        divide(file, tmp_path, 10**6)
    assert not (tmp_path / "d").exists()
    for wrong in (["--budget-mb", "0"], ["--budget-mb", "1"]):
        with pytest.raises(SystemExit):
            main([str(tmp_path / "missing.onnx"), "-o", str(tmp_path / "d"), *wrong])
