import numpy as np
import onnx
import pytest
from onnx import helper

from cimc.trained_names import TRAINED, state_names
from passes.crossbar_functions import crossbar_layers
from passes.input_signs import nonnegative_values
from passes.pipeline import lower
from tests.networks import network, weights


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def proven(nodes: list[onnx.NodeProto], low: float, constants: dict[str, np.ndarray] | None = None) -> bool:
    model = network(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N"]}, constants)
    return "y" in nonnegative_values(model, (low, 1.0))


def test_the_input_range_decides_about_the_input() -> None:
    model = network([node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4]})
    assert "x" in nonnegative_values(model, (0.0, 1.0))
    assert "x" not in nonnegative_values(model, (-1.0, 1.0))


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "Softmax", "Abs", "Exp", "HardSigmoid", "Softplus", "Sqrt"])
def test_activations_that_cannot_be_negative(operator: str) -> None:
    assert proven([node(operator, ["x"], ["y"])], -1)


PRESERVING = [
    node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]),
    node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2]),
    node("GlobalAveragePool", ["x"], ["y"]),
    node("GlobalMaxPool", ["x"], ["y"]),
    node("Flatten", ["x"], ["y"]),
    node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]),
    node("Identity", ["x"], ["y"]),
    node("Dropout", ["x"], ["y"]),
    node("ReduceMean", ["x"], ["y"]),
    node("Concat", ["x", "x"], ["y"], axis=1),
    node("Add", ["x", "x"], ["y"]),
    node("Tanh", ["x"], ["y"]),
    node("LeakyRelu", ["x"], ["y"]),
    node("Slice", ["x", "one", "two"], ["y"]),
    node("Split", ["x"], ["other", "y"], axis=1, num_outputs=2),
    node("Resize", ["x", "", "scales"], ["y"], mode="linear"),
    node("Pad", ["x", "pads"], ["y"]),
    node("Where", ["choice", "x", "x"], ["y"]),
    node("Min", ["x", "x"], ["y"]),
    node("DepthToSpace", ["x"], ["y"], blocksize=1),
    node("LRN", ["x"], ["y"], size=3),
    node("PRelu", ["x", "slope"], ["y"]),
    node("HardSwish", ["x"], ["y"]),
]
MORE: dict[str, np.ndarray] = {
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "choice": np.array([True]),
    "slope": np.array([-0.5], np.float32),
}


def more(entry: onnx.NodeProto) -> dict[str, np.ndarray]:
    return {name: array for name, array in MORE.items() if name in entry.input}


@pytest.mark.parametrize("entry", PRESERVING, ids=lambda entry: entry.op_type)
def test_operators_that_preserve_the_sign(entry: onnx.NodeProto) -> None:
    assert proven([entry], 0, more(entry))
    assert not proven([entry], -1, more(entry))


@pytest.mark.parametrize("operator", ["Sub", "BatchNormalization", "LogSoftmax", "Div"])
def test_operators_that_may_turn_negative(operator: str) -> None:
    more = list("sbmv") if operator == "BatchNormalization" else [] if operator == "LogSoftmax" else ["x"]
    constants = {name: np.ones(2, np.float32) for name in "sbmv"}
    assert not proven([node(operator, ["x", *more], ["y"])], 0, constants)


@pytest.mark.parametrize(
    ("operator", "sign", "expected"), [("Add", 1, True), ("Mul", 1, True), ("Add", -1, False), ("Mul", -1, False)]
)
def test_constants_count_with_their_sign(operator: str, sign: int, expected: bool) -> None:
    constants = {"c": sign * np.abs(weights(2, 4, 4))}
    assert proven([node(operator, ["x", "c"], ["y"])], 0, constants) == expected


def test_a_relu_written_as_a_maximum_cannot_be_negative() -> None:
    assert proven([node("Max", ["x", "zero"], ["y"])], -1, {"zero": np.zeros(1, np.float32)})
    assert not proven([node("Max", ["x", "x"], ["y"])], -1)


def test_a_cubic_resize_and_a_padding_below_zero_may_turn_negative() -> None:
    scales = {"scales": MORE["scales"]}
    assert not proven([node("Resize", ["x", "", "scales"], ["y"], mode="cubic")], 0, scales)
    below = {"pads": MORE["pads"], "value": np.array(-1, np.float32)}
    assert not proven([node("Pad", ["x", "pads", "value"], ["y"])], 0, below)


@pytest.mark.parametrize(
    ("low", "zero", "expected"),
    [
        (-1, np.uint8(0), True),
        (-1, np.int8(-128), True),
        (-1, np.uint8(3), False),
        (-1, np.int8(0), False),
        (0, np.int8(0), True),
    ],
)
def test_a_quantiser_whose_least_level_is_zero_spares_the_second_phase(
    low: float, zero: np.generic, expected: bool
) -> None:
    """Of a quantised network the quantiser stands for the Relu, which exporters leave out."""
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("Conv", ["d", "w"], ["y"], name="conv"),
    ]
    constants = {"scale": np.array(0.01, np.float32), "zero": np.array(zero), "w": weights(3, 2, 1, 1)}
    lowered = lower(network(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 3, 4, 4]}, constants))
    (layer,) = crossbar_layers(lowered)["conv"]
    assert layer.inputs[0] is not None
    assert (layer.inputs[0].name in nonnegative_values(lowered, (low, 1.0))) == expected


def test_constants_that_training_moves_are_not_proven() -> None:
    """A shift of zeros, or a table, may turn negative when it is trained; where the network keeps it fixed it stays."""
    shift, table = {"c": np.zeros((2, 1, 1), np.float32)}, {"t": np.zeros((8, 2), np.float32)}
    added, looked_up = [node("Add", ["x", "c"], ["y"])], [node("Gather", ["t", "x"], ["y"])]
    assert not proven(added, 0, shift)
    model = network(added, {"x": ["N", 2, 4, 4]}, {"y": ["N"]}, shift)
    state_names(model.metadata_props, TRAINED, [])
    assert "y" in nonnegative_values(model, (0.0, 1.0))
    model = network(looked_up, {"x": ["N"]}, {"y": ["N", 2]}, table, dtype=onnx.TensorProto.INT64)
    assert "y" not in nonnegative_values(model, (0.0, 1.0))


def test_a_square_is_never_negative() -> None:
    assert proven([node("Mul", ["x", "x"], ["y"])], -1)


@pytest.mark.parametrize(
    ("low", "minimum", "maximum", "expected"),
    [
        (-1, 0.0, 6.0, True),
        (-1, 0.0, None, True),
        (-1, -1.0, 6.0, False),
        (0, -1.0, 6.0, True),
        (0, -2.0, -1.0, False),
        (0, None, 6.0, True),
    ],
)
def test_clip_by_its_limits(low: float, minimum: float | None, maximum: float | None, expected: bool) -> None:
    limits = {"low": minimum, "high": maximum}
    constants = {name: np.array(value, np.float32) for name, value in limits.items() if value is not None}
    entry = node("Clip", ["x", *(name if value is not None else "" for name, value in limits.items())], ["y"])
    assert proven([entry], low, constants) == expected


def test_layer_outputs_are_not_proven_and_reshape_targets_do_not_count() -> None:
    nodes = [
        node("Reshape", ["x", "target"], ["r"]),
        node("MatMul", ["r", "w"], ["p"], name="fc"),
        node("Relu", ["p"], ["y"]),
    ]
    constants = {"target": np.array([-1, 32], np.int64), "w": np.abs(weights(32, 5))}
    lowered = lower(network(nodes, {"x": ["N", 2, 4, 4]}, {"y": ["N", 5]}, constants))
    names = nonnegative_values(lowered, (0.0, 1.0))
    assert {"x", "r", "y"} <= names
    assert "p" not in names
