"""Trained constants of a lowered network back in its original's parameters: element by element, or refused.

The judge is onnxruntime: the original with the new parameters computes what the lowered network computes.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.errors import CimcError
from passes.parameters_of import parameters_of
from passes.pipeline import lower
from passes.plain_network import plain_network
from passes.set_constants import set_constants
from tests.networks import largest_difference, network, weights

Arrays = Mapping[str, npt.NDArray[Any]]


def plain(original: ir.Model) -> ir.Model:
    return plain_network(lower(original))


def moved(model: ir.Model) -> ir.Model:
    """A lowered network with other values of its weights and biases."""
    new = {
        name: value.const_value.numpy() * 0.7 + weights(*value.const_value.shape.numpy(), seed=seed) * 0.1
        for seed, (name, value) in enumerate(model.graph.initializers.items())
        if value.const_value is not None and name.endswith((".weight", ".bias"))
    }
    assert new
    return set_constants(model, new)


def recurrent(kind: str) -> ir.Model:
    """Both directions of a recurrent layer, with both biases in one constant as ONNX has them."""
    gates = {"LSTM": 4, "GRU": 3}[kind]
    constants = {
        "w": weights(2, gates * 3, 5),
        "r": weights(2, gates * 3, 3, seed=1),
        "b": weights(2, 2 * gates * 3, seed=2),
    }
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    node = helper.make_node(kind, ["x", "w", "r", "b"], ["y"], kind, hidden_size=3, direction="bidirectional", **extra)
    return network([node], {"x": (4, "N", 5)}, {"y": (4, 2, "N", 3)}, constants)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_go_back_with_sums_of_biases(kind: str) -> None:
    original = recurrent(kind)
    trained = moved(plain(original))
    found = parameters_of(original, trained, name="net")
    assert found.keys() == {"w", "r", "b"}
    assert largest_difference(set_constants(original, found), trained) < 1e-6
    assert largest_difference(original, trained) > 1e-2


def test_a_transposed_and_a_swapped_operand_go_back() -> None:
    """The constant on the left of a MatMul, and one that the file transposes itself."""
    constants = {"w": weights(4, 6), "v": weights(7, 4, seed=1)}
    nodes = [
        helper.make_node("Transpose", ["v"], ["vt"], "t", perm=[1, 0]),
        helper.make_node("MatMul", ["w", "x"], ["h"], "left"),
        helper.make_node("Transpose", ["h"], ["ht"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["ht", "vt"], ["y"], "right"),
    ]
    original = network(nodes, {"x": ("N", 6, 3)}, {"y": ("N", 3, 7)}, constants)
    trained = moved(plain(original))
    found = parameters_of(original, trained, name="net")
    assert found.keys() == {"w", "v"}
    assert largest_difference(set_constants(original, found), trained) < 1e-5


def test_nothing_is_returned_where_nothing_changed() -> None:
    original = recurrent("GRU")
    assert parameters_of(original, plain(original), name="net") == {}


def test_a_scaled_weight_is_refused() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "fc", alpha=0.5)
    original = network([node], {"x": ("N", 4)}, {"y": ("N", 3)}, {"w": weights(4, 3)})
    with pytest.raises(CimcError, match="by more than moving and adding"):
        parameters_of(original, moved(plain(original)), name="net")


def test_a_parameter_with_two_trained_values_is_refused() -> None:
    """One bias constant of two layers: each has its own copy once it is lowered."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "one"),
        helper.make_node("Gemm", ["h", "v", "b"], ["y"], "two"),
    ]
    constants = {"w": weights(4, 4), "v": weights(4, 4, seed=1), "b": weights(4, seed=2)}
    original = network(nodes, {"x": ("N", 4)}, {"y": ("N", 4)}, constants)
    with pytest.raises(CimcError, match="'b' of net is used in several places, which were trained apart"):
        parameters_of(original, moved(plain(original)), name="net")
