"""Small edits that the passes share: constants, names and replacing a node."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The array of `value` if it is an initializer, else None."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    array: npt.NDArray[np.generic] = value.const_value.numpy()
    return array


def float_constant(value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    """The array of `value` if it is a float32 initializer, else None."""
    array = constant(value)
    return None if array is None or array.dtype != np.float32 else array.astype(np.float32, copy=False)


def used_names(graph: ir.Graph) -> set[str | None]:
    """The names of all values of `graph`, those of the bodies of its nodes included."""
    used: set[str | None] = set()
    for part in (graph, *graph.subgraphs()):
        used.update(value.name for value in part.inputs)
        used.update(part.initializers)
    return used | {value.name for node in graph.all_nodes() for value in node.outputs}


def unused_name(used: Collection[str | None], name: str) -> str:
    """`name`, or `name` with the first number that is not among the `used_names` of a graph."""
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def add_constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer of `graph`, under `name` or a name close to it."""
    return register_constant(graph, unused_name(used_names(graph), name), array)


def register_constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer of `graph` under a name that no value bears."""
    tensor = ir.tensor(np.ascontiguousarray(array) if array.ndim else array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def new_node(
    operator: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    attributes: Sequence[ir.Attr] = (),
    *,
    domain: str = "",
    overload: str = "",
) -> ir.Node:
    """A node with one float32 output, not yet in a graph."""
    node = ir.Node(domain, operator, inputs, attributes, overload=overload, num_outputs=1, name=name)
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return node


def owner(node: ir.Node) -> ir.Graph:
    """The graph that holds `node`."""
    graph = node.graph
    if graph is None:
        raise ValueError(f"node {node.name!r} is in no graph")
    return graph


def replace_node(node: ir.Node, chain: Sequence[ir.Node]) -> None:
    """Put `chain` in the place of `node`; the first output of its last node takes over the first output of `node`."""
    graph = owner(node)
    output = node.outputs[0]
    used = used_names(graph)
    for place, link in enumerate(chain[:-1]):
        name = unused_name(used, f"{output.name}.{link.op_type.lower()}{place or ''}")
        link.outputs[0].name = name
        used.add(name)
    ir.convenience.replace_nodes_and_values(graph, node, [node], chain, [output], [chain[-1].outputs[0]])
