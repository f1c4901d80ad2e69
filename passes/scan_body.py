"""The bodies of Scan nodes: a recurrent layer is one crossbar layer in a body, used once a step."""

from collections.abc import Iterator

import onnx_ir as ir


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
