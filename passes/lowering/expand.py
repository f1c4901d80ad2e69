"""Write an operator as several simpler ones: rules by operator, and a builder for the nodes they make."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from passes.graph_edit import new_name, owner, source_of


class Builder:
    """Makes the nodes that take the place of one node, named after it."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.name = node.name or node.outputs[0].name or node.op_type
        self.tape = Tape()
        self.constants = 0

    def __call__(
        self, operator: str, *inputs: ir.Value | None, **attributes: int | float | str | Sequence[int]
    ) -> ir.Value:
        """A node with one output; the first product keeps the node's own name, which becomes the layer's."""
        own = operator in ("Conv", "MatMul", "Gemm") and all(node.name != self.name for node in self.tape.nodes)
        name = self.name if own else f"{self.name}.{operator.lower()}{len(self.tape.nodes)}"
        return self.tape.op(operator, inputs, attributes, name=name)

    def split(self, value: ir.Value, sizes: Sequence[int], axis: int = -1) -> Sequence[ir.Value]:
        """`value` cut along `axis`."""
        inputs = [value, self.constant(np.array(sizes, np.int64))]
        name = f"{self.name}.split{len(self.tape.nodes)}"
        return self.tape.op_multi_out("Split", inputs, {"axis": axis}, num_outputs=len(sizes), name=name)

    def constant(self, array: npt.NDArray[np.generic] | float, source: ir.Value | None = None) -> ir.Value:
        """An initializer; a Python number becomes a float32 scalar. source: the constant that it is computed from."""
        self.constants += 1
        name = new_name(owner(self.node), f"{self.name}.constant{self.constants}")
        tensor = np.array(array, np.float32) if isinstance(array, float) else array
        value = self.tape.initializer(ir.tensor(tensor, name=name))
        if source is not None:
            value.meta.update({**source.meta, "source": source_of(source)})
        return value

    def input(self, index: int) -> ir.Value | None:
        """The input of the node at `index`; None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def needed(self, index: int) -> ir.Value:
        """The input of the node at `index`, which must be there."""
        value = self.input(index)
        if value is None:
            raise ValueError(f"input {index} of {self.node.op_type} '{self.name}' is missing")
        return value


# The values for the node's outputs, in order (None: the output must be unused); or None: the node stays.
Rule = Callable[[Builder], Sequence[ir.Value | None] | None]


def expand(model: ir.Model, rules: Mapping[tuple[str, str], Rule]) -> int:
    """Replace every node that has a rule, by its domain and operator; the number of nodes replaced."""
    count = 0
    for node in model.graph:
        rule = rules.get((node.domain, node.op_type))
        if rule is None:
            continue
        build = Builder(node)
        values = rule(build)
        if values is None or any(
            output.name and (output.uses() or output.is_graph_output()) for output in node.outputs[len(values) :]
        ):
            continue
        pairs = [(old, new) for old, new in zip(node.outputs, values, strict=False) if new is not None]
        for value in build.tape.initializers:
            model.graph.register_initializer(value)
        old, new = [one for one, _ in pairs], [one for _, one in pairs]
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], build.tape.nodes, old, new)
        count += 1
    return count
