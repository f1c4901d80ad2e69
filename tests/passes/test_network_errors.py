"""What cannot be mapped is refused in one line that names the node and the remedy."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from cimc.errors import CimcError
from passes.pipeline import lower
from passes.verify import OPEN_SIZE, random_inputs
from tests.networks import network, weights


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def refusal(model: ir.Model) -> str:
    with pytest.raises(CimcError) as caught:
        lower(model)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_operator_that_cannot_be_executed_is_named_with_its_node() -> None:
    model = network([node("RandomNormalLike", ["x"], ["y"], name="noise")], {"x": ["N", 4]}, {"y": ["N", 4]})
    assert "RandomNormalLike 'noise'" in refusal(model)


def test_a_node_without_a_name_is_found_by_its_output() -> None:
    assert "'y'" in refusal(network([node("RandomNormalLike", ["x"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4]}))


def test_an_operator_of_another_domain_is_refused() -> None:
    proto = helper.make_model(
        helper.make_graph(
            [node("FusedConv", ["x"], ["y"], name="fused", domain="com.vendor")],
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        ),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.vendor", 1)],
    )
    assert "com.vendor.FusedConv 'fused'" in refusal(ir.from_proto(proto))


def test_a_product_whose_sizes_cannot_be_inferred_is_refused() -> None:
    product = node("MatMul", ["x", "z"], ["y"], name="mixture")
    message = refusal(network([product], {"x": ["N", 4, 7]}, {"y": [None, 4, 5]}, {"z": weights(3, 7, 5)}))
    assert "MatMul 'mixture': the sizes of its output cannot be inferred" in message


@pytest.mark.parametrize("operator", ["ConvTranspose", "LSTM"])
def test_layers_that_need_static_sizes_say_so(operator: str) -> None:
    if operator == "LSTM":
        lstm = node("LSTM", ["x", "w", "r"], ["y"], name="n", hidden_size=2)
        constants = {"w": weights(1, 8, 3), "r": weights(1, 8, 2)}
        model = network([lstm], {"x": ["T", 2, 3]}, {"y": ["T", 1, 2, 2]}, constants)
    else:
        transposed = node("ConvTranspose", ["x", "w"], ["y"], name="n")
        inputs, outputs = {"x": ["N", 2, "H", 8]}, {"y": ["N", 4, None, 10]}
        model = network([transposed], inputs, outputs, {"w": weights(2, 4, 3, 3)})
    message = refusal(model)
    assert f"{operator} 'n'" in message
    assert "--shape" in message


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_precisions_are_refused(dtype: type[np.floating[Any]]) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {"w": weights(7, 5).astype(dtype)}
    product = node("MatMul", ["x", "w"], ["y"], name="fc")
    message = refusal(network([product], {"x": ["N", 7]}, {"y": ["N", 5]}, constants, dtype=kind))
    assert np.dtype(dtype).name in message
    assert "float32" in message


def test_double_weights_behind_a_cast_are_refused() -> None:
    nodes = [
        node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        node("MatMul", ["d", "w"], ["p"], name="fc"),
        node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    message = refusal(network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}, {"w": weights(7, 5).astype(np.float64)}))
    assert "float64" in message


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER"])
def test_sizes_that_are_not_static_are_refused(auto_pad: str) -> None:
    conv = node("Conv", ["x", "w"], ["y"], name="conv", auto_pad=auto_pad)
    model = network([conv], {"x": ["N", 2, "H", "W"]}, {"y": ["N", 4, None, None]}, {"w": weights(4, 2, 3, 3)})
    message = refusal(model)
    assert "conv" in message
    assert "static" in message


def test_wrong_sizes_are_refused() -> None:
    product = node("MatMul", ["x", "w"], ["y"], name="fc")
    refusal(network([product], {"x": ["N", 8]}, {"y": ["N", 5]}, {"w": weights(7, 5)}))


def test_training_mode_is_refused() -> None:
    constants = {name: np.ones(4, np.float32) for name in "sbmv"}
    normal = node("BatchNormalization", ["x", *"sbmv"], ["y", "m2", "v2"], name="bn", training_mode=1)
    assert "bn" in refusal(network([normal], {"x": ["N", 4, 3, 3]}, {"y": ["N", 4, 3, 3]}, constants))
    drop = node("Dropout", ["x", "r", "t"], ["y"], name="drop")
    constants = {"r": np.array(0.5, np.float32), "t": np.array(True)}
    assert "drop" in refusal(network([drop], {"x": ["N", 4]}, {"y": ["N", 4]}, constants))


def test_functions_that_call_each_other_are_refused() -> None:
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function("local", a, ["x"], ["y"], [node(b, ["x"], ["y"], domain="local")], opsets)
        for a, b in (("A", "B"), ("B", "A"))
    ]
    proto = helper.make_model(
        helper.make_graph(
            [node("A", ["x"], ["y"], domain="local")],
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        ),
        opset_imports=opsets,
        functions=functions,
    )
    refusal(ir.from_proto(proto))


def test_a_comparison_takes_open_sizes_but_no_unknown_ones() -> None:
    model = network([node("Relu", ["x"], ["y"])], {"x": ["N", "H"]}, {"y": ["N", "H"]})
    assert random_inputs(model, 2, 0)["x"].shape == (2, OPEN_SIZE)
    model.graph.inputs[0].shape = None
    with pytest.raises(CimcError, match="the sizes of input 'x' are not known; give them with --shape"):
        random_inputs(model, 2, 0)
