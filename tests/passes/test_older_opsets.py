"""Networks of older opsets, and operators that ONNX's own converter and inference of sizes leave behind."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from tests.networks import lower_and_compare, network, operators, sizes, weights

node = helper.make_node
IMAGE = {"x": ["N", 3, 8, 8]}


def behind_a_convolution(*nodes: onnx.NodeProto, opset: int, ir_version: int = 7, **constants: np.ndarray) -> ir.Model:
    """x -> Conv -> c -> nodes -> y."""
    first = node("Conv", ["x", "k"], ["c"], name="conv")
    return network(
        [first, *nodes],
        IMAGE,
        {"y": [None] * 4},
        {"k": weights(4, 3, 1, 1), **constants},
        opset=opset,
        ir_version=ir_version,
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.5, 2.0, 2.5])
def test_a_resize_of_opset_10_keeps_its_coordinates(mode: str, scale: float) -> None:
    resize = node("Resize", ["c", "scales"], ["y"], mode=mode)
    lower_and_compare(behind_a_convolution(resize, opset=10, scales=np.array([1, 1, scale, scale], np.float32)))


@pytest.mark.parametrize("opset", [7, 9])
def test_a_bilinear_upsample_keeps_its_coordinates(opset: int) -> None:
    if opset < 9:
        model = behind_a_convolution(
            node("Upsample", ["c"], ["y"], mode="linear", scales=[1.0, 1.0, 2.0, 3.0]), opset=opset
        )
    else:
        scales = np.array([1, 1, 2, 3], np.float32)
        model = behind_a_convolution(
            node("Upsample", ["c", "scales"], ["y"], mode="linear"), opset=opset, scales=scales
        )
    lower_and_compare(model)


def test_a_resize_of_a_newer_opset_is_left_as_it_is() -> None:
    resize = node("Resize", ["c", "", "scales"], ["y"], mode="linear")
    lower_and_compare(behind_a_convolution(resize, opset=13, scales=np.array([1, 1, 2, 2], np.float32)))


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [None, 1, 2, 3, -1])
def test_hardmax_before_opset_13_sees_all_axes_behind_its_own_as_one(opset: int, axis: int | None) -> None:
    chosen = {} if axis is None else {"axis": axis}
    lower_and_compare(behind_a_convolution(node("Hardmax", ["c"], ["y"], name="hard", **chosen), opset=opset))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (2, 3), (2, 2), (3, 2), (4, 1)])
def test_a_transposed_convolution_of_same_size_adds_nothing_to_what_its_kernel_covers(
    mode: str, kernel: int, stride: int
) -> None:
    layer = node("ConvTranspose", ["c", "t"], ["y"], auto_pad=mode, strides=[stride, stride])
    lower_and_compare(behind_a_convolution(layer, opset=13, t=weights(4, 3, kernel, kernel)))


@pytest.mark.parametrize(
    ("normalisation", "opset"),
    [
        (node("GroupNormalization", ["c", "scale", "shift"], ["n"], num_groups=2), 21),
        (node("MeanVarianceNormalization", ["c"], ["n"]), 13),
        (node("MeanVarianceNormalization", ["c"], ["n"]), 21),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else str(value),
)
def test_a_layer_behind_a_normalisation_whose_sizes_onnx_does_not_infer(
    normalisation: onnx.NodeProto, opset: int
) -> None:
    constants = {"k2": weights(2, 4, 3, 3)}
    if normalisation.op_type == "GroupNormalization":
        constants |= {"scale": weights(4), "shift": weights(4, seed=1)}
    layer = node("Conv", ["n", "k2"], ["y"], name="second")
    lowered = lower_and_compare(behind_a_convolution(normalisation, layer, opset=opset, ir_version=10, **constants))
    assert operators(lowered)[-1] == "CrossbarConv"
    assert sizes(lowered.graph.outputs[0])[1:] == [2, 6, 6]
