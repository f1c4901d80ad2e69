"""The bodies of Scan nodes: a recurrent layer is one crossbar layer in a body, used once a step."""

from collections.abc import Iterator

import onnx_ir as ir

from passes.graph_edit import new_node


def body_of(node: ir.Node) -> ir.Graph | None:
    """The body of a Scan; None for other nodes."""
    return node.attributes["body"].as_graph() if node.op_type == "Scan" and not node.domain else None


def states_of(node: ir.Node) -> int:
    """How many of a Scan's inputs are states, which one step hands to the next; the others are sequences."""
    return len(node.inputs) - node.attributes["num_scan_inputs"].as_int()


def steps_of(node: ir.Node) -> int | None:
    """How often a Scan runs its body for one image; None if that is not static."""
    sequences = node.inputs[states_of(node) :]
    axes = node.attributes.get_ints("scan_input_axes", None) or [0] * len(sequences)
    shapes = [None if value is None else value.shape for value in sequences]
    sizes = [shape[axis] for shape, axis in zip(shapes, axes, strict=True) if shape is not None]
    return next((size for size in sizes if isinstance(size, int)), None)


def nodes_with_steps(graph: ir.Graph) -> Iterator[tuple[ir.Node, int]]:
    """Every node and how often it runs for one image; those of the body of a Scan after the Scan."""
    for node in graph:
        yield node, 1
        body = body_of(node)
        if body is not None:
            steps = steps_of(node)
            assert steps is not None  # CheckLayerSizes
            yield from ((inner, steps) for inner in body)


def seen_from_outside(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """`value`, or, where it is in the body of a Scan of `graph`, a new result of the Scan that stacks its steps."""
    if value.graph is graph:
        return value
    for scan in graph:
        body = body_of(scan)
        if body is not None and value.graph is body:
            # What a body takes cannot leave it as it is.
            copy = new_node("Identity", [value], f"{value.name}.copy")
            copy.outputs[0].name = f"{value.name}.copy"
            body.append(copy)
            body.outputs.append(copy.outputs[0])
            scan.resize_outputs(len(scan.outputs) + 1)
            scan.outputs[-1].name = f"{value.name}.steps"
            return scan.outputs[-1]
    return value
