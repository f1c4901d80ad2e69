"""What each row of a value waits for: the rows of its inputs that must be complete, node by node.

A value has rows along one axis (the height of an image, the tokens of a sequence) or comes all at once. Written for the
event-driven simulator, and apart from `passes.mapper.schedule`, so that the one checks the other.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.operators import operators_where
from passes.graph_edit import constant
from passes.scan_body import body_of, states_of, steps_of

Rows = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]

_WINDOWS = operators_where(lambda operator: operator.rows == "window") | {"Conv", "CrossbarConv"}
_LAYOUTS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Concat", "Pad"})
_ALONG_AXIS = operators_where(lambda operator: operator.rows == "axis")
_WHOLE = operators_where(lambda operator: operator.rows == "all")
IMAGE_AXIS = 2  # of N x C x H x W, and of N x C x L
TOKEN_AXIS = 1  # of N x T x D


@dataclass(frozen=True)
class Source:
    """An input of a node: the node that makes it ("" for the network's input) and what each row waits for.

    needed[r]: rows of the source that must be complete before row r starts. oldest[r]: the first source row (from 0)
    that row r or a later one still reads. Neither ever falls with r.
    """

    node: str
    needed: Rows
    oldest: Rows


class Span(NamedTuple):
    """For each output row the source rows that it reads: from `first` (from 0) to before `last`."""

    first: Rows
    last: Rows


@dataclass(frozen=True)
class Flow:
    """Rows of a node's first output, along `axis` (None: all at once, one row), and its sources."""

    rows: int
    axis: int | None
    sources: tuple[Source, ...]


def row_flow(model: ir.Model) -> dict[str, Flow]:
    """The flow of every node of a lowered network, by the name of its first output, in network order."""
    flows: dict[str, Flow] = {}
    for node in model.graph:
        if body_of(node) is None:
            flows[node.outputs[0].name or ""] = _flow(node, flows)
        else:
            _add_scan(node, flows)
    return flows


def _add_scan(scan: ir.Node, flows: dict[str, Flow]) -> None:
    """The flows of the body of a Scan, a row a step, and of its results, which are there when all steps are done."""
    body, steps, states = body_of(scan), steps_of(scan), states_of(scan)
    assert body is not None
    assert steps is not None
    step = np.arange(steps)
    taken = dict(zip(body.inputs, scan.inputs, strict=True))
    handed_on = dict(zip(body.inputs, body.outputs[:states], strict=False))
    inside = {value: node.outputs[0].name or "" for node in body for value in node.outputs}

    def sources(value: ir.Value) -> list[Source]:
        if value in inside:
            return [Source(inside[value], step + 1, step)]
        found, outer = [], taken.get(value, value)
        if outer is not None and constant(outer) is None:
            name, rows, _ = _place(outer, flows)
            found.append(Source(name, np.full(steps, rows), np.zeros(steps, np.int64)))
        if value in handed_on:
            found.append(Source(inside[handed_on[value]], step, np.maximum(step - 1, 0)))
        return found

    own = {}
    for node in body:
        values = dict.fromkeys(value for value in node.inputs if value is not None)
        own[node.outputs[0].name or ""] = Flow(steps, None, tuple(one for value in values for one in sources(value)))
    for inner, value in zip(body.outputs, scan.outputs, strict=True):
        rows, axis, _ = _at_once(sizes(value), [])
        done = Source(inside[inner], np.full(rows, steps), np.zeros(rows, np.int64))
        own[value.name or ""] = Flow(rows, axis, (done,))
    flows |= own


def input_rows(value: ir.Value) -> tuple[int, int | None]:
    """Rows of a network input and their axis."""
    shape = sizes(value)
    axis = IMAGE_AXIS if len(shape) == 4 else TOKEN_AXIS if len(shape) == 3 else None
    return (1, None) if axis is None else (shape[axis], axis)


def sizes(value: ir.Value) -> tuple[int, ...]:
    """Sizes of a value for one image: every size that depends on the batch is 1 (or its factor, as in 4*N)."""
    found = []
    for size in value.shape or ():
        if isinstance(size, int):
            found.append(size)
        else:
            factor = str(size.value).partition("*")[0]
            found.append(int(factor) if factor.isdigit() else 1)
    return tuple(found)


def _flow(node: ir.Node, flows: dict[str, Flow]) -> Flow:
    inputs = [value for value in node.inputs if value is not None and constant(value) is None]
    if node.op_type in ("Shape", "Size"):  # known before any element is
        inputs = []
    places = [_place(value, flows) for value in inputs]
    rows, axis, spans = _needed(node, inputs, places)
    sources = []
    for (source, source_rows, _), need in zip(places, spans, strict=True):
        if need is None:
            sources.append(Source(source, np.full(rows, source_rows), np.zeros(rows, np.int64)))
            continue
        needed = np.clip(np.maximum.accumulate(need.last), 1, source_rows)
        oldest = np.clip(np.minimum.accumulate(need.first[::-1])[::-1], 0, source_rows - 1)
        sources.append(Source(source, needed, oldest))
    return Flow(rows, axis, tuple(sources))


def _place(value: ir.Value, flows: dict[str, Flow]) -> tuple[str, int, int | None]:
    """The node that makes a value, the value's rows, and their axis."""
    producer = value.producer()
    if producer is None:
        return ("", *input_rows(value))
    name = (value if producer.op_type == "Scan" else producer.outputs[0]).name or ""
    return name, flows[name].rows, flows[name].axis


def _needed(
    node: ir.Node, inputs: list[ir.Value], places: list[tuple[str, int, int | None]]
) -> tuple[int, int | None, list[Span | None]]:
    """Rows and axis of the output, and for each input the rows needed (None: all of them, for every row)."""
    whole: list[Span | None] = [None] * len(inputs)
    output = sizes(node.outputs[0])
    if not inputs or not output or node.outputs[0].shape is None:
        return 1, None, whole
    kind, axis = node.op_type, places[0][2]
    if kind in _WINDOWS:
        if axis != IMAGE_AXIS or (kind == "Conv" and len(inputs) > 1):
            return _at_once(output, whole)
        return output[axis], axis, [_window(node, output[axis]), *whole[1:]]
    if kind in _LAYOUTS:
        return _lay_out(node, inputs, places, output)
    if kind == "CrossbarMatMul":
        if axis is None or axis == len(output) - 1:
            return _at_once(output, whole)
        return output[axis], axis, [_same(output[axis])]
    if kind == "MatMul":
        return _product(inputs, places, output)
    if kind == "Resize" and axis is not None and len(output) == len(sizes(inputs[0])):
        scale = sizes(inputs[0])[axis] / output[axis]
        below = np.floor(np.arange(output[axis]) * scale).astype(np.int64)
        return output[axis], axis, [Span(below - 1, below + 2)]
    if kind in _WHOLE or (kind.startswith(("Reduce", "Global")) and not _keeps(node, axis)):
        return _at_once(output, whole)
    if kind in _ALONG_AXIS and axis is not None:
        first = node.attributes.get_int("axis", -1) % len(output)
        last = first if kind.endswith("max") else len(output) - 1
        if first <= axis <= last:
            return _at_once(output, whole)
    return _elementwise(inputs, places, output)


def _at_once(output: tuple[int, ...], whole: list[Span | None]) -> tuple[int, int | None, list[Span | None]]:
    """Needs all of its inputs, then makes its rows one after the other."""
    axis = IMAGE_AXIS if len(output) == 4 else TOKEN_AXIS if len(output) == 3 else None
    return (1, None, whole) if axis is None else (output[axis], axis, whole)


def _same(rows: int) -> Span:
    """Row r needs row r."""
    return Span(np.arange(rows), np.arange(1, rows + 1))


def _window(node: ir.Node, rows: int) -> Span:
    """Convolution and pooling: the input rows that the window of each output row touches."""
    attributes = node.attributes
    kernel = attributes["kernel_shape"].as_ints()[0]
    stride, dilation, pad = (
        attributes[name].as_ints()[0] if name in attributes else default
        for name, default in (("strides", 1), ("dilations", 1), ("pads", 0))
    )
    first = np.arange(rows) * stride - pad
    return Span(first, first + (kernel - 1) * dilation + 1)


def _product(
    inputs: list[ir.Value], places: list[tuple[str, int, int | None]], output: tuple[int, ...]
) -> tuple[int, int | None, list[Span | None]]:
    """Row i of a product needs row i of the left operand and all of the right one."""
    left, axis = sizes(inputs[0]), places[0][2]
    needed: list[Span | None] = [None] * len(inputs)
    if axis is None or axis == len(left) - 1 or len(left) != len(output):
        return _at_once(output, needed)
    needed[0] = _same(output[axis])
    return output[axis], axis, needed


def _elementwise(
    inputs: list[ir.Value], places: list[tuple[str, int, int | None]], output: tuple[int, ...]
) -> tuple[int, int | None, list[Span | None]]:
    """Operators that keep the place of every element, with broadcasting; all others need all of their inputs."""
    needed: list[Span | None] = [None] * len(inputs)
    aligned = [
        None if axis is None else axis + len(output) - len(sizes(value))
        for value, (_, _, axis) in zip(inputs, places, strict=True)
    ]
    axes = {
        axis for value, axis in zip(inputs, aligned, strict=True) if axis is not None and _fits(value, output, axis)
    }
    if len(axes) != 1:
        return _at_once(output, needed)
    (axis,) = axes
    for index, (value, place) in enumerate(zip(inputs, aligned, strict=True)):
        if place == axis and _fits(value, output, axis):
            needed[index] = _same(output[axis])
    return output[axis], axis, needed


def _fits(value: ir.Value, output: tuple[int, ...], axis: int) -> bool:
    shape = (1,) * (len(output) - len(sizes(value))) + sizes(value)
    return 0 <= axis < len(output) and len(shape) == len(output) and shape[axis] == output[axis]


def _keeps(node: ir.Node, axis: int | None) -> bool:
    """Whether a reduction leaves the axis of the rows as it is, in its place."""
    if axis is None or node.op_type.startswith("Global"):
        return False
    given = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant(given) if given is not None else None
    axes = [int(a) for a in np.ravel(array)] if array is not None else []
    rank = len(node.inputs[0].shape or ()) if node.inputs[0] is not None else 0
    return bool(axes) and node.attributes.get_int("keepdims", 1) == 1 and axis not in [a % rank for a in axes]


def _lay_out(
    node: ir.Node, inputs: list[ir.Value], places: list[tuple[str, int, int | None]], output: tuple[int, ...]
) -> tuple[int, int | None, list[Span | None]]:
    """Operators that move elements: the number of its source row is moved like the element itself."""
    whole: list[Span | None] = [None] * len(inputs)
    tables = []
    for value, (_, rows, axis) in zip(inputs, places, strict=True):
        shape = sizes(value)
        number = np.zeros(shape, np.int64)
        if axis is not None:
            number += np.arange(1, rows + 1).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        else:
            number += rows
        tables.append(number)
    if node.op_type == "Concat":
        axis = node.attributes.get_int("axis", 0) % len(output)
        moved = [
            np.concatenate([table if i == j else np.zeros_like(table) for j, table in enumerate(tables)], axis)
            for i in range(len(tables))
        ]
    elif node.op_type == "Transpose":
        order = node.attributes.get("perm")
        moved = [np.transpose(tables[0], None if order is None else order.as_ints())]
    elif node.op_type == "Pad":
        moved = [_pad(node, tables[0])]
    elif math.prod(output) == tables[0].size:
        moved = [tables[0].reshape(output)]
    else:
        return _at_once(output, whole)
    best = _best_axis(moved) if all(table.shape == output for table in moved) else None
    if best is None:
        return _at_once(output, whole)
    others = tuple(axis for axis in range(len(output)) if axis != best)
    return output[best], best, [Span(_least_positive(t, others) - 1, t.max(axis=others)) for t in moved]


def _pad(node: ir.Node, table: Rows) -> Rows:
    """The table with zeros (of no row) around it; unchanged where the pads are not known."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    pads = constant(given) if given is not None else None
    if pads is None or pads.size != 2 * table.ndim or pads.min() < 0:
        return table
    before, after = (side.astype(int).tolist() for side in pads.reshape(2, -1))
    return np.pad(table, list(zip(before, after, strict=True)))


def _best_axis(tables: list[Rows]) -> int | None:
    """The axis along which the source rows rise in step: all of an output row comes from the same source row."""
    shape, rows = tables[0].shape, sum(int(table.max()) for table in tables)
    for axis in range(1, len(shape)):
        # A matrix has no rows of its own: [N, T, D] flattened is needed as one piece.
        if shape[axis] == 1 or (shape[axis] > rows and len(shape) < 3):
            continue
        others = tuple(a for a in range(len(shape)) if a != axis)
        greatest = [table.max(axis=others) for table in tables]
        least = [_least_positive(table, others) for table in tables]
        if all(
            np.array_equal(most[most > 0], fewest[most > 0]) and np.all(np.diff(most[most > 0]) >= 0)
            for most, fewest in zip(greatest, least, strict=True)
        ) and any(np.ptp(most) for most in greatest):
            return axis
    return None


def _least_positive(table: Rows, axes: tuple[int, ...]) -> Rows:
    """The least row number along `axes`, elements of other inputs (0) left out."""
    return np.where(table > 0, table, table.max()).min(axis=axes)


def most_rows_held(produced: Times, consumed: Times, oldest: Rows) -> int:
    """The most source rows at one moment that are complete and that a row still to come reads.

    Args:
        produced: when each source row is complete.
        consumed: when each row of the reader is complete.
        oldest: the first source row that each of these, or a later one, reads.
    """
    last_reader = np.searchsorted(oldest, np.arange(len(produced)), side="right") - 1
    freed = np.maximum(produced, consumed[np.maximum(last_reader, 0)])
    moments = [(time, -1) for time in freed.tolist()] + [(time, 1) for time in produced.tolist()]
    held = most = 0
    for _, change in sorted(moments):
        held += change
        most = max(most, held)
    return most
