"""Leave crossbar layers of a lowered network to the digital side: their products are standard operators again.

Such a product keeps the layer's name, and its weights (as Conv and MatMul take them) and bias the layer's names; they
are digital parameters, which training changes. Rows that were held several times are single again. Its nodes say why
among their metadata (`LEFT_DIGITAL`).
"""

import difflib
import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.operators import LEFT_DIGITAL
from passes.crossbar_functions import crossbar_layers
from passes.graph_edit import float_constant, new_node, replace_node
from passes.repeat_rows import join_rows

CLOSE = 3  # names that an error proposes
_CONV_ATTRIBUTES = ("kernel_shape", "strides", "pads", "dilations", "group")


def matching_layers(model: ir.Model, patterns: Sequence[str]) -> list[str]:
    """The crossbar layers of a lowered network whose names match a pattern (`*` and `?` stand for any), in its order.

    Raises:
        CimcError: a pattern that no layer matches, with the names that come close.
    """
    names = list(crossbar_layers(model))
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            close = difflib.get_close_matches(pattern, names, CLOSE, cutoff=0.4) or names[:CLOSE]
            raise CimcError(
                f"--digital {pattern}: no layer of the network has that name; did you mean {', '.join(close)}? "
                "(`cimc compile` and `cimc inspect` list all)"
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def left_by_chip(model: ir.Model, chip: Chip) -> dict[str, str]:
    """The layers of a lowered network that the chip leaves to its vector unit, and why: depthwise convolutions."""
    if chip.weights.depthwise == "crossbar":
        return {}
    reason = f"{chip.name} leaves depthwise convolutions to its vector unit"
    return {name: reason for name, nodes in crossbar_layers(model).items() if _is_depthwise(nodes[0])}


def _is_depthwise(node: ir.Node) -> bool:
    """Whether a crossbar layer has one input channel a group."""
    weight = node.inputs[1]
    if node.op_type != "CrossbarConv" or node.attributes.get_int("group", 1) == 1 or weight is None:
        return False
    return weight.shape is not None and weight.shape[0] == math.prod(node.attributes["kernel_shape"].as_ints())


def leave_digital(model: ir.Model, reasons: Mapping[str, str]) -> ir.Model:
    """A copy of a lowered network without the crossbar layers that `reasons` names; a reason is one line.

    Raises:
        CimcError: no layer is left for the arrays.
    """
    if not reasons:
        return model
    _require_others(crossbar_layers(model), reasons)
    return make_digital(model, reasons)


def make_digital(model: ir.Model, reasons: Mapping[str, str]) -> ir.Model:
    """The same, also where no layer is left for the arrays."""
    model = model.clone()
    for name, nodes in crossbar_layers(model).items():
        if name not in reasons:
            continue
        join_rows(nodes)
        if nodes[0].op_type == "CrossbarConv":
            _turn_kernel(nodes[0])
        for node in nodes:
            chain = _standard_nodes(node)
            for link in chain:
                link.outputs[0].shape = node.outputs[0].shape
                link.metadata_props[LEFT_DIGITAL] = reasons[name]
            replace_node(node, chain)
    return model


def _require_others(layers: Collection[str], reasons: Mapping[str, str]) -> None:
    if not set(layers) - reasons.keys():
        raise CimcError(
            f"all {len(layers)} layers of the network are left digital, and none is for the arrays; leave fewer digital"
        )


def _turn_kernel(node: ir.Node) -> None:
    """The weight [C_in / group * kernel, C_out] becomes [C_out, C_in / group, *kernel], in place for all its uses."""
    value, matrix = node.inputs[1], float_constant(node.inputs[1])
    assert value is not None
    assert matrix is not None
    kernel = np.ascontiguousarray(matrix.T).reshape(node.attributes["weight_shape"].as_ints())
    value.const_value, value.shape = ir.tensor(kernel, name=value.name), ir.Shape(kernel.shape)


def _standard_nodes(node: ir.Node) -> list[ir.Node]:
    """What computes a layer's output, in order; new nodes."""
    name = node.name or ""
    if node.op_type == "CrossbarConv":
        return [new_node("Conv", node.inputs, name, [node.attributes[key] for key in _CONV_ATTRIBUTES])]
    x, weight, *rest = node.inputs
    product = new_node("MatMul", [x, weight], name)
    return [product, *(new_node("Add", [product.outputs[0], bias], f"{name}.add") for bias in rest)]
