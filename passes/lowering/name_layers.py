"""Give every crossbar layer a unique name that can stand in a file name, and its weights names after it."""

import re

import onnx_ir as ir

from passes.crossbar_functions import is_crossbar
from passes.graph_edit import new_name

_LONGEST = 100


class NameLayers(ir.passes.InPlacePass):
    """Name crossbar layers after their nodes, and their constants `<layer>.weight` and `<layer>.bias`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename layers and constants; other values that bear such a name get another, inputs and outputs never."""
        graph = model.graph
        layers = [node for node in graph.all_nodes() if is_crossbar(node)]
        used = {node.name for node in graph.all_nodes() if not is_crossbar(node)}
        fixed = {value.name for value in (*graph.inputs, *graph.outputs)}
        for layer in layers:
            base = name = _clean(layer.name or layer.outputs[0].name or "") or "layer"
            number = 1
            while name in used or f"{name}.weight" in fixed or f"{name}.bias" in fixed:
                number += 1
                name = f"{base}_{number}"
            used.add(name)
            layer.name = name
        # Nodes that share a weight are one layer: the first gives it its name.
        first: dict[int, ir.Node] = {}
        for layer in layers:
            first.setdefault(id(layer.inputs[1]), layer)
        targets = {
            f"{layer.name}.{suffix}": value
            for layer in first.values()
            for suffix, value in zip(("weight", "bias"), layer.inputs[1:], strict=False)
            if value is not None
        }
        inner = [value for body in graph.subgraphs() for value in body.inputs]
        made = [output for node in graph.all_nodes() for output in node.outputs]
        for value in [*graph.initializers.values(), *inner, *made]:
            if value.name in targets and value is not targets[value.name]:
                value.name = new_name(graph, f"{value.name}.renamed")
        for name, value in targets.items():
            value.name = name
            if value.const_value is not None:
                value.const_value.name = name
        return ir.passes.PassResult(model, modified=bool(layers))


def _clean(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:_LONGEST]
