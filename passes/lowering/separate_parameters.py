"""Give every layer and every normalisation its own parameters, also where an exporter wrote equal ones once.

Exporters merge equal tensors: in a fresh network all normalisations have the same scales and means, and all biases are
zeros. Training changes each of them apart. Weights of crossbar layers stay shared: such nodes are one layer.
"""

import onnx_ir as ir

from cimc.operators import PARAMETERS
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import add_constant, constant, source_of


class SeparateParameters(ir.passes.InPlacePass):
    """Copy the parameters that something else uses too."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Copy them; the nodes of one crossbar layer go on sharing their bias."""
        copies: dict[tuple[int, int], ir.Value] = {}
        for node in list(model.graph.all_nodes()):
            for place in _places(node):
                value = node.inputs[place] if place < len(node.inputs) else None
                array = constant(value)
                if value is None or array is None:
                    continue
                owner = _owner(node, place)
                if not all(_owner(use.node, use.idx) == owner for use in value.uses()):
                    if owner not in copies:
                        copies[owner] = add_constant(model.graph, f"{value.name}.own", array)
                        copies[owner].meta["source"] = source_of(value)
                    node.replace_input_with(place, copies[owner])
        return ir.passes.PassResult(model, modified=bool(copies))


def _places(node: ir.Node) -> tuple[int, ...]:
    if is_crossbar(node):
        return (2,)
    return () if node.domain else PARAMETERS.get(node.op_type, ())


def _owner(node: ir.Node, place: int) -> tuple[int, int]:
    """What a parameter at this place belongs to: the crossbar layer, which is its weight, or the node."""
    return (id(node.inputs[1]) if is_crossbar(node) else id(node)), place
