"""The operators of the domain `ai.cimc`, as ONNX functions that any ONNX runtime can execute.

    CrossbarMatMul(x, weight[, bias]) -> y    x [..., rows], weight [rows, columns], bias [columns]
    CrossbarConv(x, weight[, bias]) -> y      x [N, C_in, ...], weight [C_in / group * kernel, C_out]
    FakeQuantize(x, scale[, zero]) -> y       digital (see passes.lowering.pair_quantizers)

ONNX functions cannot leave out the operand of an Add: a CrossbarMatMul with a bias is the overload `bias` of the
operator. The Conv in the body of CrossbarConv takes an absent bias as it is.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, layer_of
from cimc.window import Window
from passes.graph_edit import add_constant, derived_constant, new_node, source_of

CROSSBAR_VERSION = 1
MINIMUM_IR_VERSION = 10  # overloads of functions exist from here on

_BODIES = (
    """<domain: "ai.cimc", opset_import: ["" : {opset}]>
    CrossbarMatMul (x, weight) => (y) {{
        y = MatMul (x, weight)
    }}""",
    """<domain: "ai.cimc", overload: "bias", opset_import: ["" : {opset}]>
    CrossbarMatMul (x, weight, bias) => (y) {{
        product = MatMul (x, weight)
        y = Add (product, bias)
    }}""",
    """<domain: "ai.cimc", opset_import: ["" : {opset}]>
    CrossbarConv <kernel_shape, strides, pads, dilations, group, weight_shape> (x, weight, bias) => (y) {{
        transposed = Transpose <perm = [1, 0]> (weight)
        shape = Constant <value_ints: ints = @weight_shape> ()
        kernel = Reshape (transposed, shape)
        y = Conv <kernel_shape: ints = @kernel_shape, strides: ints = @strides, pads: ints = @pads,
                  dilations: ints = @dilations, group: int = @group> (x, kernel, bias)
    }}""",
    """<domain: "ai.cimc", opset_import: ["" : {opset}]>
    FakeQuantize <axis> (x, scale, zero) => (y) {{
        level = QuantizeLinear <axis: int = @axis> (x, scale, zero)
        y = DequantizeLinear <axis: int = @axis> (level, scale, zero)
    }}""",
)


def is_crossbar(node: ir.Node) -> bool:
    """Whether `node` is a crossbar layer."""
    return node.domain == CROSSBAR_DOMAIN and node.op_type in CROSSBAR_OPERATORS


def crossbar_layers(model: ir.Model) -> dict[str, list[ir.Node]]:
    """The nodes of every crossbar layer by the layer's name, in network order; nodes that share a weight are one layer.

    Needs `passes.lowering.name_layers`, which names the weights.
    """
    layers: dict[str, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        if is_crossbar(node) and node.inputs[1] is not None:
            layers.setdefault(layer_of(node.inputs[1].name or ""), []).append(node)
    return layers


def crossbar_matmul(
    graph: ir.Graph,
    x: ir.Value,
    weight: npt.NDArray[np.float32],
    name: str,
    *,
    source: ir.Value,
    part: Hashable = None,
) -> ir.Node:
    """A CrossbarMatMul node; `weight` [rows, columns] becomes an initializer of `graph` as by `crossbar_weight`."""
    value = crossbar_weight(graph, name, weight, source=source, use=("CrossbarMatMul", part))
    return crossbar_product(x, value, name)


def crossbar_product(x: ir.Value, weight: ir.Value, name: str, bias: ir.Value | None = None) -> ir.Node:
    """A CrossbarMatMul node; nodes that share `weight` (from `crossbar_weight`) are one layer, and share its bias."""
    if bias is None:
        return new_node("CrossbarMatMul", [x, weight], name, domain=CROSSBAR_DOMAIN)
    return new_node("CrossbarMatMul", [x, weight, bias], name, domain=CROSSBAR_DOMAIN, overload="bias")


def crossbar_conv(
    graph: ir.Graph,
    x: ir.Value,
    weight: npt.NDArray[np.float32],
    name: str,
    *,
    window: Window,
    groups: int,
    source: ir.Value,
) -> ir.Node:
    """A CrossbarConv node; `weight` comes as in ONNX [C_out, C_in / group, kernel...], is stored [.., C_out].

    Convolutions with one kernel are one layer as by `crossbar_weight`, if they move it over their inputs alike.
    """
    attributes = [
        ir.AttrInt64s("kernel_shape", window.kernel),
        ir.AttrInt64s("strides", window.strides),
        ir.AttrInt64s("pads", window.pads),
        ir.AttrInt64s("dilations", window.dilations),
        ir.AttrInt64("group", groups),
        ir.AttrInt64s("weight_shape", weight.shape),
    ]
    matrix = weight.reshape(weight.shape[0], -1).T
    use = ("CrossbarConv", window, groups, weight.shape)
    value = crossbar_weight(graph, name, matrix, source=source, use=use)
    return new_node("CrossbarConv", [x, value], name, attributes, domain=CROSSBAR_DOMAIN)


def with_bias(node: ir.Node, bias: ir.Value | None) -> ir.Node:
    """A copy of the crossbar layer `node`, not yet in a graph, with `bias` [columns] in the place of its own bias."""
    inputs: Sequence[ir.Value | None] = node.inputs[:2]
    overload = ""
    if bias is not None:
        inputs = [*inputs, bias]
        overload = "bias" if node.op_type == "CrossbarMatMul" else ""
    attributes = list(node.attributes.values())
    return new_node(node.op_type, inputs, node.name or "", attributes, domain=CROSSBAR_DOMAIN, overload=overload)


def crossbar_bias(graph: ir.Graph, node: ir.Node, bias: npt.NDArray[np.float32], source: str) -> ir.Value:
    """The bias [columns] of the layer that `node` uses, an initializer of `graph`: one for all its uses of `source`."""
    weight = node.inputs[1]
    assert weight is not None
    array = bias.astype(np.float32, copy=False)
    return derived_constant(graph, f"{node.name}.bias", array, source, ("bias", weight.name))[0]


def crossbar_weight(
    graph: ir.Graph,
    name: str,
    matrix: npt.NDArray[np.float32],
    *,
    source: ir.Value | None = None,
    use: Hashable = None,
) -> ir.Value:
    """The weight [rows, columns] of a layer as an initializer of `graph`.

    Args:
        graph: where it becomes an initializer.
        name: of the layer.
        matrix: its elements.
        source: the constant that it is made of: equal matrices of one source and one `use` are one layer. None: a
            layer of its own.
        use: what the source is made into.
    """
    if source is None:
        return add_constant(graph, f"{name}.weight", matrix)
    value, known = derived_constant(graph, f"{name}.weight", matrix, source_of(source), ("weight", use))
    if not known and "stored_as" in source.meta:
        value.meta["stored_as"] = source.meta["stored_as"]
    value.meta["products"] = value.meta.get("products", 0) + 1 if known else 1
    return value


class AddCrossbarFunctions(ir.passes.InPlacePass):
    """Add the functions of the operators of `ai.cimc` that the network uses."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the functions with bodies in the network's own opset."""
        used = {node.op_identifier() for node in model.graph.all_nodes() if node.domain == CROSSBAR_DOMAIN}
        for body in _BODIES:
            text = body.format(opset=model.opset_imports[""])
            function = ir.from_proto(onnx.parser.parse_function(text))
            if function.identifier() in used:
                model.functions[function.identifier()] = function
        if used:
            model.opset_imports[CROSSBAR_DOMAIN] = CROSSBAR_VERSION
            model.ir_version = max(model.ir_version, MINIMUM_IR_VERSION)
        return ir.passes.PassResult(model, modified=bool(used))
