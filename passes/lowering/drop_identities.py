"""Remove Identity nodes, and never an output of the network with them."""

import onnx_ir as ir

from passes.graph_edit import new_name


class DropIdentities(ir.passes.InPlacePass):
    """Remove every Identity, except where an output would become an input, a constant or another output.

    onnx-ir's own pass loses an output where two Identity nodes give one value to two outputs.

    An Identity of a matrix of floats stands where an exporter stored equal parameters once: its name is that of another
    parameter. It becomes a constant of its own, on the same memory; `passes.lowering.decide_shared_weights` decides.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove them in graph order."""
        count = 0
        for node in model.graph:
            if node.op_type != "Identity" or node.domain or node.inputs[0] is None:
                continue
            source, output = node.inputs[0], node.outputs[0]
            if _is_parameter(source) and not output.is_graph_output():
                source = _parameter(model.graph, source, output.name or "")
            if output.is_graph_output():
                if source.producer() is None or source.is_graph_output():
                    continue
                source.name, output.name = output.name, f"{output.name}.identity"
            output.replace_all_uses_with(source, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _is_parameter(value: ir.Value) -> bool:
    tensor = value.const_value if value.is_initializer() else None
    return tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > 1


def _parameter(graph: ir.Graph, stored: ir.Value, name: str) -> ir.Value:
    """Another constant of the same tensor, that remembers the first of them."""
    first = str(stored.meta.get("stored_as", stored.name))
    value = ir.Value(
        name=new_name(graph, f"{name}.parameter"),
        shape=stored.shape,
        type=stored.type,
        const_value=stored.const_value,
    )
    value.meta.update({"source": name, "stored_as": first})
    graph.register_initializer(value)
    return value
