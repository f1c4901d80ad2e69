"""Remove Identity nodes, and never an output of the network with them."""

import onnx_ir as ir


class DropIdentities(ir.passes.InPlacePass):
    """Remove every Identity, except where an output would become an input, a constant or another output.

    onnx-ir's own pass loses an output where two Identity nodes give one value to two outputs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove them in graph order."""
        count = 0
        for node in model.graph:
            if node.op_type != "Identity" or node.domain or node.inputs[0] is None:
                continue
            source, output = node.inputs[0], node.outputs[0]
            if output.is_graph_output():
                if source.producer() is None or source.is_graph_output():
                    continue
                source.name, output.name = output.name, f"{output.name}.identity"
            output.replace_all_uses_with(source, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            count += 1
        return ir.passes.PassResult(model, modified=bool(count))
