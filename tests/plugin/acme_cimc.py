"""What a third party may add: a chip as a file, a chip as text, and a pass that knows an operator of its own."""

from pathlib import Path

import onnx_ir as ir

CHIP = Path(__file__).with_name("acme-64.toml")
WIDE = CHIP.read_text(encoding="utf-8").replace("acme-64", "acme-wide").replace("columns = 64", "columns = 256")


class ExpandSwish(ir.passes.InPlacePass):
    """`ai.acme.Swish(x)` becomes `x * sigmoid(x)`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Expand every such node; the others stay."""
        found = [node for node in model.graph if (node.domain, node.op_type) == ("ai.acme", "Swish")]
        for node in found:
            sigmoid = ir.node("Sigmoid", node.inputs)
            product = ir.node("Mul", [node.inputs[0], sigmoid.outputs[0]])
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [sigmoid, product], node.outputs, product.outputs
            )
        return ir.passes.PassResult(model, modified=bool(found))


EXPAND_SWISH = ExpandSwish()
