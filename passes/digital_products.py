"""The products of a lowered network that run beside the arrays: with constant weights, and of two values."""

from typing import NamedTuple

import onnx_ir as ir

from cimc.chip import Chip
from cimc.mapping import Mapping
from cimc.operators import LEFT_DIGITAL, layer_of
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import constant
from passes.image_sizes import elements_of_image
from passes.mapper.layers import positions
from passes.product_macs import RECURRENT, is_product, macs_of, operands_of
from passes.scan_body import nodes_with_steps


class DigitalProduct(NamedTuple):
    """A product that is not on arrays.

    weights: elements of its constants. macs: multiply-accumulates of one image. ms: the vector units are at work on it
    for one image; mj: their energy; None where the chip file states no rate or energy, or nothing is scheduled.
    """

    name: str
    operator: str
    weights: int
    macs: int
    reason: str
    ms: float | None = None
    mj: float | None = None


class Products(NamedTuple):
    """What of a network is on arrays: weights and multiply-accumulates of one image, beside those of digital products.

    digital: with constant weights. value_macs: of products of two values, such as attention scores.
    """

    array_weights: int
    array_macs: int
    digital: tuple[DigitalProduct, ...]
    value_macs: int

    @property
    def weights(self) -> int:
        """All weights of products."""
        return self.array_weights + sum(product.weights for product in self.digital)

    @property
    def macs(self) -> int:
        """All multiply-accumulates of products."""
        return self.array_macs + sum(product.macs for product in self.digital) + self.value_macs


def products_of(model: ir.Model, mapping: Mapping, chip: Chip) -> Products:
    """The products of a lowered network that has this mapping on `chip`."""
    mapped = {layer.name: layer for layer in mapping.layers}
    digital: dict[str, DigitalProduct] = {}
    value_macs = 0
    cost = _Cost(mapping, chip)
    known = {value for value in model.graph.initializers.values() if value.const_value is not None}
    for node, steps in nodes_with_steps(model.graph):
        inputs = [value for value in node.inputs if value is not None]
        if inputs and all(value in known for value in inputs):
            known.update(node.outputs)
        elif is_crossbar(node):
            layer = layer_of(_name(node.inputs[1]))
            if layer not in mapped:
                macs = positions(node) * steps * elements_of_image(node.inputs[1])
                reason = f"{chip.name} leaves depthwise convolutions to its vector unit"
                found = DigitalProduct(layer, node.op_type, elements_of_image(node.inputs[1]), macs, reason)
                digital[layer] = cost.add(found, node, digital.get(layer))
        elif is_product(node):
            left = node.metadata_props.get(LEFT_DIGITAL)
            name = layer_of(_name(node.inputs[1])) if left else node.name or _name(node.outputs[0])
            fixed = [value for value in operands_of(node) if value in known and len(value.shape or ()) > 1]
            weights = sum(map(elements_of_image, fixed))
            if node.op_type == "MatMulNBits":  # several in a byte
                weights = node.attributes.get_int("K") * node.attributes.get_int("N")
            if weights:
                macs = macs_of(node, weights) * steps
                found = DigitalProduct(name, node.op_type, weights, macs, left or _reason(node, fixed))
                digital[name] = cost.add(found, node, digital.get(name) if left else None)
            else:
                value_macs += macs_of(node, 0) * steps
    return Products(
        array_weights=sum(layer.weights for layer in mapping.layers),
        array_macs=sum(layer.weights * layer.positions for layer in mapping.layers),
        digital=tuple(digital.values()),
        value_macs=value_macs,
    )


class _Cost:
    """What the vector units of a mapped network take for its digital products."""

    def __init__(self, mapping: Mapping, chip: Chip) -> None:
        stages = () if mapping.schedule is None or chip.cores.vector_bytes_per_ns is None else mapping.schedule.stages
        self.busy_ms = {stage.name: stage.busy_ns * 1e-6 for stage in stages}
        self.op_mj = None if chip.cost.digital_op_pj is None else chip.cost.digital_op_pj * 1e-9

    def add(self, product: DigitalProduct, node: ir.Node, before: DigitalProduct | None) -> DigitalProduct:
        """`product` of `node` with its cost, and with all that an earlier node of the same layer has."""
        macs, ms = product.macs, self.busy_ms.get(_name(node.outputs[0]))
        if before is not None:
            macs, ms = macs + before.macs, None if ms is None or before.ms is None else ms + before.ms
        return product._replace(macs=macs, ms=ms, mj=None if self.op_mj is None else macs * self.op_mj)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _reason(node: ir.Node, fixed: list[ir.Value]) -> str:
    """Why the weights are not on arrays; empty where it is not known."""
    made = next((producer for value in fixed if (producer := value.producer()) is not None), None)
    if made is not None:
        return f"its weight is computed by {made.op_type}, which was not folded"
    if node.domain:
        return f"no rule takes {node.domain}.{node.op_type} apart"
    if node.op_type == "Einsum":
        return "it is not a product of one value with a matrix or a stack of them"
    if node.op_type in ("Conv", "ConvTranspose") and any(
        v is not None and constant(v) is None for v in node.inputs[2:]
    ):
        return "its bias is computed"
    if node.op_type in RECURRENT:
        return "its weights or biases are not all constant"
    unknown = any(value is not None and value.shape is None for value in node.inputs)
    return "the sizes of its input are not known; give them with --shape" if unknown else ""
