"""Lists of tensors that are known before the network runs become the tensors themselves."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from passes.graph_edit import add_constant, constant, insert_before, owner
from passes.lowering.infer_shapes import InferShapes
from passes.lowering.inline_graph import replace_by

_List = list[ir.Value]
# The list that a node makes, from that of its first input (empty where that is none); None: it is not known.
_Maker = Callable[[ir.Node, _List], _List | None]
# The tensor that a node takes from the list of its first input.
_Reader = Callable[[ir.Node, _List], ir.Value | None]


class FoldSequences(ir.passes.InPlacePass):
    """Replace what reads a list of tensors; what makes the list is removed when nothing uses it."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in graph order, so that chains fold in one go."""
        nodes = [node for node in model.graph if not node.domain]
        if not any(node.op_type in (*_MAKERS, *_READERS) for node in nodes):
            return ir.passes.PassResult(model, modified=False)
        InferShapes()(model)
        lists: dict[ir.Value, _List] = {}
        count = 0
        for node in nodes:
            source = node.inputs[0] if node.inputs else None
            known = source is not None and source in lists
            elements = lists[source] if source is not None and known else []
            if node.op_type in _MAKERS or (node.op_type == "Identity" and known):
                takes_list = node.op_type in ("SequenceInsert", "SequenceErase")
                made = _MAKERS.get(node.op_type, _copy)(node, elements) if known or not takes_list else None
                if made is not None:
                    lists[node.outputs[0]] = made
            elif node.op_type in _READERS and known:
                result = _READERS[node.op_type](node, elements)
                if result is not None:
                    replace_by(node, [result])
                    count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _copy(node: ir.Node, elements: _List) -> _List:
    return list(elements)


def _empty(node: ir.Node, elements: _List) -> _List:
    return []


def _construct(node: ir.Node, elements: _List) -> _List:
    return [value for value in node.inputs if value is not None]


def _insert(node: ir.Node, elements: _List) -> _List | None:
    tensor, place = node.inputs[1], _place(node, 2, len(elements))
    if place is None or tensor is None:
        return None
    place += len(elements) if place < 0 else 0
    return [*elements[:place], tensor, *elements[place:]]


def _erase(node: ir.Node, elements: _List) -> _List | None:
    place = _place(node, 1, -1)
    return None if place is None else [v for n, v in enumerate(elements) if n != place % len(elements)]


def _split(node: ir.Node, elements: _List) -> _List | None:
    value, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    length = value.shape[axis] if value is not None and value.shape is not None else None
    given = node.inputs[1] if len(node.inputs) > 1 else None
    parts = np.array(1) if given is None else constant(given)
    if not isinstance(length, int) or parts is None:
        return None
    graph = owner(node)
    if given is None and not node.attributes.get_int("keepdims", 1):
        places = [add_constant(graph, f"{node.name}.place", np.array(n)) for n in range(length)]
        return [insert_before(node, "Gather", [value, place], axis=axis)[0] for place in places]
    starts = range(0, length, int(parts.item())) if not parts.ndim else []
    sizes = parts if parts.ndim else np.diff([*starts, length])
    counts = add_constant(graph, f"{node.name}.sizes", sizes.astype(np.int64))
    return insert_before(node, "Split", [value, counts], outputs=len(sizes), axis=axis)


def _at(node: ir.Node, elements: _List) -> ir.Value | None:
    place = _place(node, 1, 0)
    return None if place is None or not -len(elements) <= place < len(elements) else elements[place]


def _length(node: ir.Node, elements: _List) -> ir.Value:
    return add_constant(owner(node), f"{node.name}.length", np.array(len(elements), np.int64))


def _concat(node: ir.Node, elements: _List) -> ir.Value | None:
    axis = node.attributes.get_int("axis")
    if node.attributes.get_int("new_axis", 0):
        where = add_constant(owner(node), f"{node.name}.axis", np.array([axis], np.int64))
        elements = [insert_before(node, "Unsqueeze", [value, where])[0] for value in elements]
    return insert_before(node, "Concat", elements, axis=axis)[0] if elements else None


def _place(node: ir.Node, index: int, default: int) -> int | None:
    """The number at an input; None: it is not known."""
    value = node.inputs[index] if index < len(node.inputs) else None
    array = constant(value)
    return default if value is None else None if array is None else int(array.item())


_MAKERS: dict[str, _Maker] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SplitToSequence": _split,
}
_READERS: dict[str, _Reader] = {"ConcatFromSequence": _concat, "SequenceAt": _at, "SequenceLength": _length}
