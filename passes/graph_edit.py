"""Small edits that the passes share: constants, names and replacing a node."""

from collections.abc import Hashable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

# Names of values by graph, those once given included: to walk a graph for every constant takes minutes on large ones.
_USED: WeakKeyDictionary[ir.Graph, set[str | None]] = WeakKeyDictionary()


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


def new_name(graph: ir.Graph, name: str) -> str:
    """`name`, or `name` with a number, as no value or node of `graph` is called; it counts as used from now on."""
    used = _USED.get(graph)
    if used is None:
        used = _USED[graph] = _names(graph)
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    used.add(candidate)
    return candidate


def forget_names(graph: ir.Graph) -> None:
    """Read the names of `graph` anew at the next `new_name`: another hand may have changed them, as a pass's end."""
    _USED.pop(graph, None)


def _names(graph: ir.Graph) -> set[str | None]:
    graphs = (graph, *graph.subgraphs())
    names = {value.name for one in graphs for value in (*one.inputs, *one.initializers.values())}
    for node in (node for one in graphs for node in one):
        names |= {node.name, *(value.name for value in node.outputs)}
    return names


def add_constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer of `graph`, under `name` or a name close to it."""
    return register_constant(graph, new_name(graph, name), array)


def register_constant(graph: ir.Graph, name: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer of `graph` under a name that no value bears."""
    tensor = ir.tensor(np.ascontiguousarray(array) if array.ndim else array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_by_constant(graph: ir.Graph, node: ir.Node, array: npt.NDArray[np.generic]) -> None:
    """Put a constant of the same name in the place of what a node of one output makes."""
    output, name = node.outputs[0], node.outputs[0].name or ""
    output.name = f"{name}.before_folding"
    output.replace_all_uses_with(register_constant(graph, name, array))
    graph.remove(node, safe=True)


def source_of(value: ir.Value) -> str:
    """The name of the constant that the constant `value` was computed from; its own where it was given."""
    return str(value.meta.get("source", value.name))


def derived_constant(
    graph: ir.Graph, name: str, array: npt.NDArray[np.generic], source: str, use: Hashable
) -> tuple[ir.Value, bool]:
    """An initializer with `array`, which comes from the constant `source` (`source_of`) and serves `use`.

    Returns:
        The initializer, and whether it was there: one of the same source and use with equal elements.
    """
    candidates = graph.meta.setdefault("derived", {}).setdefault((source, use), [])
    for known in candidates:
        held = constant(known) if graph.initializers.get(known.name) is known else None
        if held is not None and np.array_equal(held, array):
            return known, True
    value = add_constant(graph, name, array)
    value.meta.update({"source": source, "use": use})
    candidates.append(value)
    return value, False


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


def insert_before(
    place: ir.Node, operator: str, inputs: Sequence[ir.Value | None], *, outputs: int = 1, **attributes: int
) -> list[ir.Value]:
    """The outputs of a new node before `place`, which is named after it; their types are left to inference."""
    graph, given = owner(place), [ir.AttrInt64(name, number) for name, number in attributes.items()]
    name = f"{place.name or place.op_type}.{operator.lower()}"
    node = ir.Node("", operator, inputs, given, num_outputs=outputs, name=new_name(graph, name))
    for value in node.outputs:
        value.name = new_name(graph, name)
    graph.insert_before(place, node)
    return list(node.outputs)


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
    for place, link in enumerate(chain[:-1]):
        link.outputs[0].name = new_name(graph, f"{output.name}.{link.op_type.lower()}{place or ''}")
    ir.convenience.replace_nodes_and_values(graph, node, [node], chain, [output], [chain[-1].outputs[0]])
