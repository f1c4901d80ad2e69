"""Operators in another order: pooling before activation, for fewer operations, and what only moves values before the
activation that ends a network, so that training finds the logits. The values are the same.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from runtime.network.network import Node

_NEVER_DECREASING = ("Clip", "Relu")
ACTIVATIONS = ("LogSoftmax", "Sigmoid", "Softmax")  # that end a network
_MOVERS = frozenset(["Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
_FLOAT = 1  # as an ONNX element type

Shape = Sequence[int | None]


def pool_first(nodes: Sequence[Node], kept: Sequence[str]) -> tuple[Node, ...]:
    """Let MaxPool come before an activation that never decreases: max f(x) = f(max x), for a quarter of the values.

    Args:
        nodes: of a network, in execution order.
        kept: names of values that must stay what they are.
    """
    users = Counter([*kept, *(name for node in nodes for name in node.inputs)])
    activations = {node.outputs[0]: node for node in nodes if node.operator in _NEVER_DECREASING and not node.foreign}
    swaps = {
        node.inputs[0]: node
        for node in nodes
        if node.operator == "MaxPool"
        and not node.foreign
        and node.inputs[0] in activations
        and users[node.inputs[0]] == 1
    }
    result: list[Node] = []
    for node in nodes:
        if node.operator == "MaxPool" and swaps.get(node.inputs[0]) is node:
            activation, between = activations[node.inputs[0]], node.inputs[0]
            pooled = replace(node, inputs=(activation.inputs[0],), outputs=(between,))
            result += [pooled, replace(activation, inputs=(between, *activation.inputs[1:]), outputs=node.outputs)]
        elif not (node.outputs and node.outputs[0] in swaps):
            result.append(node)
    return tuple(result)


def activation_last(nodes: Sequence[Node], outputs: Sequence[str], shapes: Mapping[str, Shape]) -> tuple[Node, ...]:
    """Let the activation that ends a network come after what only moves its values: f(move x) = move f(x).

    Args:
        nodes: of a network, in execution order.
        outputs: names of the network's outputs.
        shapes: of values by name (None: not static).
    """
    result = list(nodes)
    for output in outputs:
        producers = {name: node for node in result for name in node.outputs}
        name, movers = output, list[Node]()
        while (node := producers.get(name)) is not None and _moves(node):
            movers.insert(0, node)
            name = node.inputs[0]
        if node is None or node.operator not in ACTIVATIONS or node.foreign or not movers:
            continue
        attributes = dict(node.attributes)
        if node.operator != "Sigmoid":
            axis = _moved_axis(int(attributes.get("axis", -1)), movers, shapes)
            if axis is None:
                continue
            attributes["axis"] = axis
        moved, value = list[Node](), node.inputs[0]
        for index, mover in enumerate(movers):
            moved.append(replace(mover, inputs=(value, *mover.inputs[1:]), outputs=(f"{output}.logits.{index}",)))
            value = moved[-1].outputs[0]
        last = replace(node, inputs=(value,), outputs=(output,), attributes=attributes)
        at = result.index(movers[-1])
        result[at : at + 1] = [*moved, last]
        for before in (*movers[-2::-1], node):
            if not _used(before, result, outputs):
                result.remove(before)
    return tuple(result)


def _moves(node: Node) -> bool:
    cast = node.operator == "Cast" and int(node.attributes["to"]) != _FLOAT
    return node.operator in _MOVERS and node.foreign is None and not cast


def _used(node: Node, nodes: Sequence[Node], outputs: Sequence[str]) -> bool:
    return any(name in outputs or any(name in other.inputs for other in nodes) for name in node.outputs)


def _moved_axis(axis: int, movers: Sequence[Node], shapes: Mapping[str, Shape]) -> int | None:
    """Where an axis is after the movers; None where it is no longer an axis of its own."""
    for mover in movers:
        before, after = shapes.get(mover.inputs[0], ()), shapes.get(mover.outputs[0], ())
        if not before or not after:
            return None
        axis %= len(before)
        if mover.operator == "Transpose":
            order = mover.attributes.get("perm") or range(len(before))[::-1]
            axis = [int(place) for place in order].index(axis)
        elif mover.operator not in ("Cast", "Identity"):
            # It is the axis of the same size with as many values behind it.
            wanted = _sizes_from(before, axis)
            places = [place for place in range(len(after)) if wanted and _sizes_from(after, place) == wanted]
            if not places:
                return None
            axis = places[0]
    return axis


def _sizes_from(shape: Shape, axis: int) -> tuple[int, int] | None:
    """The size of an axis, and the values behind it; None where they are not static."""
    sizes = [size for size in shape[axis:] if size is not None]
    return (sizes[0], prod(sizes[1:])) if len(sizes) == len(shape) - axis else None
