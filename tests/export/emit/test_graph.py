"""A graph keeps shapes of constants, names of outputs, and one copy of what is used twice."""

import numpy as np
import onnx
import onnxruntime
import pytest

from jaxkd.export.emit.graph import Graph


def session(graph):
    model = graph.model()
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_a_scalar_stays_a_scalar():
    graph = Graph()
    x = graph.input("x", np.float32, (2, 3))
    # with an index of one axis the result would have three
    graph.output("y", graph.add("Gather", x, np.array(1, np.int64), axis=0), np.float32, (3,))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(session(graph).run(None, {"x": x})[0], [3, 4, 5])


def test_equal_constants_and_operations_are_in_the_graph_once():
    graph = Graph()
    x = graph.input("x", np.float32, ("n",))
    two = np.array(2.0, np.float32)
    assert graph.once("Mul", x, two) == graph.once("Mul", x, np.array(2.0, np.float32))
    assert graph.once("Mul", x, two) != graph.add("Mul", x, two)
    assert graph.constant(two) != graph.constant(np.array([2.0], np.float32))
    assert graph.constant(np.array(0, np.int64)) != graph.constant(np.array(0, np.float32))
    assert len(graph.nodes) == 2


def test_a_value_may_be_an_output_twice_and_an_input_an_output():
    graph = Graph()
    x = graph.input("x", np.float32, ("n",))
    doubled = graph.add("Add", x, x)
    for name, value in (("y", doubled), ("again", doubled), ("same", x)):
        graph.output(name, value, np.float32, ("n",))
    x = np.array([1.0, 2.0], np.float32)
    results = session(graph).run(["y", "again", "same"], {"x": x})
    np.testing.assert_array_equal(results, [2 * x, 2 * x, x])


def test_names_within_a_scope_begin_with_it_and_are_never_used_twice():
    graph = Graph()
    x = graph.input("x", np.float32, ("n",))
    names = []
    for _ in range(2):  # ALBERT's one block, applied twice
        with graph.scope("block_00"), graph.scope("attention"):
            names.append(graph.add("Mul", x, graph.weight("scale", np.ones(2, np.float32))))
    assert names == ["block_00/attention/Mul", "block_00/attention/Mul_1"]
    assert list(graph.weights) == ["block_00/attention/scale"]


def test_two_weights_of_one_name_are_refused():
    graph = Graph()
    graph.weight("kernel", np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"'kernel' is \(2, 3\) already, not \(3, 2\)"):
        graph.weight("kernel", np.ones((3, 2), np.float32))
