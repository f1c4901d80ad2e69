"""Sizes that follow from those of the inputs are constants; sizes that the batch decides are not."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

from passes.lowering.fold_sizes import FoldSizes
from tests.networks import network_proto


@pytest.mark.parametrize("most", [1, 2, 4, 64, 5000])
def test_the_smaller_of_the_batch_and_a_number_is_not_a_constant(most: int) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Min", ["n", "most"], ["least"]),
        helper.make_node("Cast", ["least"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    proto = network_proto(nodes, {"x": ["N", 3]}, {"y": ["N", 3]}, {"most": np.array([most], np.int64)})
    model = ir.from_proto(proto)
    FoldSizes()(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3, 9):
        (y,) = session.run(None, {"x": np.ones((batch, 3), np.float32)})
        np.testing.assert_array_equal(y, min(batch, most) * np.ones((batch, 3)))


@pytest.mark.parametrize("divisor", [2, 3, 4, 5])
def test_what_a_division_of_the_batch_leaves_is_not_a_constant(divisor: int) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Mod", ["n", "divisor"], ["rest"]),
        helper.make_node("Cast", ["rest"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    proto = network_proto(nodes, {"x": ["N", 3]}, {"y": ["N", 3]}, {"divisor": np.array([divisor], np.int64)})
    model = ir.from_proto(proto)
    FoldSizes()(model)
    assert "Mod" in [node.op_type for node in model.graph]


def test_what_follows_from_other_sizes_is_a_constant() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=1, end=2),
        helper.make_node("Mul", ["n", "twice"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    proto = network_proto(nodes, {"x": ["N", 3]}, {"y": ["N", 3]}, {"twice": np.array([2], np.int64)})
    model = ir.from_proto(proto)
    assert FoldSizes()(model).modified
    assert [node.op_type for node in model.graph] == ["Mul"]
