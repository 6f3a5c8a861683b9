"""Blocks that run in one session answer as those that run one at a time."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from jaxkd.device import rules
from jaxkd.device.bundle import Bundle
from jaxkd.device.decoding import Beam, search
from jaxkd.device.errors import DamagedBundle
from jaxkd.device.onnx_bytes import Piece, joined
from jaxkd.device.residency import BUILDING, COST, RESIDENT, working_bytes
from tests.device import bundles

IDS = np.array([[5, 6, 7, 8, 9], [3, 4, 5, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


HEADS = {}  # of each family, but for several tasks
for _family, _head in bundles.KINDS:
    if _head != "multi_task":
        HEADS.setdefault(_family, []).append(_head)


def logits_of(bundle):
    if not bundle.writes:
        return bundle.model(IDS, MASK).logits
    if hasattr(bundle.model, "read"):
        bundle.model.read(IDS, MASK)
    return bundle.model.logits(IDS, MASK)


def written(model):
    prompt = IDS[0]
    if hasattr(model, "read"):
        model.read(IDS[:1], MASK[:1])
        prompt = np.array([model.start])
    return [list(tokens) for tokens, _ in search(model, Beam(width=2, max_tokens=4), prompt)]


@pytest.mark.parametrize(
    "family, head, weights",
    [(family, heads[-1], "float32") for family, heads in HEADS.items()]
    + [
        (*kind, weights)
        for kind in (("bert", "masked_lm"), ("gpt2", "causal_lm"), ("lstm", "seq2seq_lm"))
        for weights in ("float16", "int8")
    ],
)
def test_one_session_answers_as_a_session_for_each_block(family, head, weights, tmp_path):
    config = bundles.config_of(family, head)
    bundles.write(tmp_path / "b", config, weights)
    whole, apart = Bundle(tmp_path / "b"), Bundle(tmp_path / "b", window=True)
    shared = len(whole.model.stack.distinct) == 1
    assert whole.tiers == [RESIDENT] * len(whole.tiers)
    assert whole.model.stack.groups == ([range(0, 1), range(1, 2)] if shared else [range(0, 2)])
    assert apart.model.stack.groups == [range(0, 1), range(1, 2)]
    seen = MASK.astype(bool)
    first, second = logits_of(whole), logits_of(apart)
    if first.ndim == 3 and first.shape[:2] == seen.shape:
        first, second = first[seen], second[seen]
    np.testing.assert_allclose(first, second, rtol=0, atol=2e-5)
    timed = whole.model.clock if whole.writes else whole.model(IDS, MASK)
    assert {"block_00", "block_01"} <= {name for name, _ in timed.parts}
    if whole.writes:  # with caches of earlier tokens
        first, second = (written(bundle.model) for bundle in (whole, apart))
        assert first == second


def test_exits_are_between_sessions(tmp_path):
    bundles.classifier(tmp_path / "b", exits=(1,))
    bundle, apart = Bundle(tmp_path / "b"), Bundle(tmp_path / "b", window=True)
    assert bundle.model.stack.groups == [range(0, 2), range(2, 4)]
    ran = []
    for rule in (None, rules.Confidence(0.34)):
        first = bundle.model(IDS, MASK, rule=rule, after_block=ran.append)
        second = apart.model(IDS, MASK, rule=rule)
        np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)
        assert (first.blocks == second.blocks).all() and first.exits == second.exits
    assert ran[:4] == [0, 1, 2, 3] and first.exits == ["exit_01"] * 2


@pytest.mark.parametrize("blocks, sizes", [(4, [4]), (3, [3, 1]), (2, [2, 2]), (1, [1] * 4)])
def test_a_budget_without_room_for_building_has_smaller_sessions(blocks, sizes, tmp_path):
    config = bundles.config_of("bert", "sequence_classification", layers=4)
    bundles.write(tmp_path / "b", config)
    bundle = Bundle(tmp_path / "b")
    size, shape = bundle.blocks[0].tensors.bytes, bundle.manifest["model"]
    working = working_bytes(shape["width"], shape["inner"], shape["heads"], 1, 128)
    # A session's weights are held several times while it is made.
    budget = working + COST * 4 * size + (BUILDING - COST) * blocks * size + 10
    bundle = Bundle(tmp_path / "b", budget=budget)
    assert bundle.tiers == [RESIDENT] * 4
    assert [len(group) for group in bundle.model.stack.groups] == sizes


def piece(attribute=None, version=13):
    x, y = (helper.make_tensor_value_info(n, 1, [2]) for n in ("hidden", "new_hidden"))
    w = helper.make_tensor_value_info("w", 1, [2])
    node = helper.make_node("Mul", ["hidden", "w"], ["new_hidden"], "node")
    nodes = [node]
    if attribute:
        inner = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "g", [], [])
        condition = helper.make_node("Constant", [], ["c"], value_int=1)
        nodes = [condition, helper.make_node("If", ["c"], ["z"], then_branch=inner), node]
    graph = helper.make_graph(nodes, "piece", [x, w], [y])
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", version)])
    return model.SerializeToString()


def test_joined_graphs_are_one_valid_graph():
    weights = [{"w": np.array([2.0, 3.0], np.float32)}, {"w": np.array([5.0, 7.0], np.float32)}]
    model = joined([Piece(piece(), each, {}) for each in weights], "hidden", "new_hidden")
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"hidden": np.ones(2, np.float32)})
    assert product.tolist() == [10.0, 21.0]
    with pytest.raises(ValueError, match="unlike versions"):
        joined([Piece(piece(), {}, {}), Piece(piece(version=12), {}, {})], "hidden", "new_hidden")
    with pytest.raises(ValueError, match="graph inside"):
        joined([Piece(piece(True), {}, {})] * 2, "hidden", "new_hidden")


def test_a_missing_output_is_said(tmp_path):
    bundles.classifier(tmp_path / "b", exits=())
    bundle = Bundle(tmp_path / "b")
    bundle.model.stack.blocks[1].inputs = {"bias": "bias.9"}
    with pytest.raises(DamagedBundle, match="block 1 takes 'bias.9'"):
        bundle.model(IDS, MASK)
