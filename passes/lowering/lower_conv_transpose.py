"""ConvTranspose with a constant kernel: a crossbar layer at every input position, and the sum of overlapping patches.

y = Col2Im(W^T x): the array turns the C_in values of a position into C_out x kernel products, which are added where
patches overlap (digitally). No row of the array is spent on zeros, as a convolution over a spread-out input would.
"""

import math

import numpy as np
import onnx_ir as ir

from cimc.errors import CimcError
from passes.crossbar_functions import crossbar_matmul
from passes.graph_edit import add_constant, derived_constant, float_constant, new_node, owner, replace_node, source_of
from passes.messages import describe


class LowerConvTranspose(ir.passes.InPlacePass):
    """Replace ConvTranspose nodes with a constant kernel; others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes.

        Raises:
            CimcError: the spatial sizes are not static.
        """
        count = 0
        for node in model.graph:
            chain = _lower(node) if node.op_type == "ConvTranspose" and not node.domain else None
            if chain:
                replace_node(node, chain)
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _lower(node: ir.Node) -> list[ir.Node] | None:
    x, source = node.inputs[:2]
    weight = float_constant(source)
    if x is None or source is None or weight is None:
        return None
    graph, name, group = owner(node), node.name or node.outputs[0].name or "", node.attributes.get_int("group", 1)
    kernel = weight.shape[2:]
    axes, inputs = len(kernel), weight.shape[0]
    spatial = [size for size in (x.shape or ())[2:] if isinstance(size, int)]
    if len(spatial) != axes:
        raise CimcError(f"{describe(node)}: the sizes of its input '{x.name}' are not static; give them with --shape")
    strides, dilations, pads, output = _geometry(node, spatial, kernel)
    positions = math.prod(spatial)
    chain: list[ir.Node] = []

    def add(operator: str, inputs: list[ir.Value], suffix: str, attributes: list[ir.Attr] | None = None) -> ir.Value:
        chain.append(new_node(operator, inputs, f"{name}.{suffix}", attributes or []))
        return chain[-1].outputs[0]

    def ints(suffix: str, *values: int) -> ir.Value:
        return add_constant(graph, f"{name}.{suffix}", np.array(values, np.int64))

    swap = [ir.AttrInt64s("perm", [0, 2, 1])]
    columns = add(
        "Transpose",
        [
            add("Reshape", [x, ints("flat", 0, inputs, positions)], "flatten"),
        ],
        "vectors",
        swap,
    )
    width = inputs // group
    products, weights = [], []
    for index in range(group):
        part = columns
        if group > 1:
            bounds = [ints(f"start{index}", index * width), ints(f"stop{index}", (index + 1) * width), ints("axis", 2)]
            part = add("Slice", [columns, *bounds], f"group{index}")
        matrix = weight[index * width : (index + 1) * width].reshape(width, -1)
        layer = name if group == 1 else f"{name}.{index}"
        chain.append(crossbar_matmul(graph, part, matrix, layer, source=source, part=() if group == 1 else (index,)))
        weights.append(chain[-1].inputs[1])
        products.append(chain[-1].outputs[0])
    joined = products[0] if group == 1 else add("Concat", products, "groups", [ir.AttrInt64("axis", 2)])
    patches = add("Transpose", [joined], "patches", swap)
    geometry = [ir.AttrInt64s("strides", strides), ir.AttrInt64s("dilations", dilations), ir.AttrInt64s("pads", pads)]
    y = add("Col2Im", [patches, ints("image", *output), ints("kernel", *kernel)], "overlap", geometry)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        array = float_constant(bias)
        shape = (-1, *(1,) * axes)
        if array is not None:
            use = ("addend", *(value.name for value in weights if value is not None))
            addend, _ = derived_constant(graph, f"{name}.addend", array.reshape(shape), source_of(bias), use)
        else:
            addend = add("Reshape", [bias, ints("column", *shape)], "bias_shape")
        add("Add", [y, addend], "add")
    return chain


def _geometry(
    node: ir.Node, spatial: list[int], kernel: tuple[int, ...]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, pads (all starts, then all ends) and output sizes, by ONNX's rules."""
    axes = len(kernel)
    ones = [1] * axes
    strides = list(node.attributes.get_ints("strides", ones) or ones)
    dilations = list(node.attributes.get_ints("dilations", ones) or ones)
    extra = list(node.attributes.get_ints("output_padding", [0] * axes) or [0] * axes)
    wanted = node.attributes.get_ints("output_shape", []) or []
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    full = [
        stride * (size - 1) + add + (k - 1) * dilation + 1
        for stride, size, add, k, dilation in zip(strides, spatial, extra, kernel, dilations, strict=True)
    ]
    pads = list(node.attributes.get_ints("pads", [0, 0] * axes) or [0, 0] * axes)
    if mode == "VALID":
        pads = [0, 0] * axes
    if wanted or mode in ("SAME_UPPER", "SAME_LOWER"):
        # A kernel shorter than the stride covers less: onnxruntime adds nothing.
        same = [min(n * s, f) for n, s, f in zip(spatial, strides, full, strict=True)]
        target = list(wanted)[-axes:] if wanted else same
        totals = [max(f - t, 0) for f, t in zip(full, target, strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = small + large if mode == "SAME_UPPER" else large + small
        return strides, dilations, _fitting(pads, spatial, kernel, strides, dilations, target), target
    output = [f - pads[a] - pads[axes + a] for a, f in enumerate(full)]
    return strides, dilations, _fitting(pads, spatial, kernel, strides, dilations, output), output


def _fitting(
    pads: list[int],
    spatial: list[int],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
    output: list[int],
) -> list[int]:
    """End pads with which Col2Im counts as many patches as there are inputs; output padding lies beyond them."""
    axes = len(kernel)
    ends = [
        strides[a] * (spatial[a] - 1) + (kernel[a] - 1) * dilations[a] + 1 - output[a] - pads[a] for a in range(axes)
    ]
    return pads[:axes] + [max(end, 0) for end in ends]
