"""Edits that the passes share: a new constant costs no walk over the graph, and its name is no other's."""

from unittest.mock import Mock

import numpy as np
import pytest
from onnx import helper

from passes import graph_edit
from passes.graph_edit import add_constant, forget_names, new_name
from tests.networks import network, weights


def test_names_are_read_once_however_many_constants_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = Mock(side_effect=graph_edit._names)
    monkeypatch.setattr(graph_edit, "_names", walks)
    model = network(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)}
    )
    added = [add_constant(model.graph, "w", np.zeros(1, np.float32)).name for _ in range(50)]
    walks.assert_called_once()
    assert added == [f"w_{number}" for number in range(2, 52)]


def test_names_of_nodes_values_and_subgraphs_are_taken() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["inside"], name="inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", 1, ["N", 4])],
    )
    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    graph = network([choice], {"x": ["N", 4]}, {"y": ["N", 4]}, {"c": np.array(True)}).graph
    taken = ("x", "y", "c", "choice", "inside", "inner")
    assert [new_name(graph, name) for name in taken] == [f"{name}_2" for name in taken]
    next(iter(graph)).name = "other"
    forget_names(graph)
    assert new_name(graph, "choice") == "choice"
