"""Stages: the lowered network as a graph of work, and which rows of its inputs every row of a stage's output needs.

The rows of an image (height) or of a sequence (tokens) are what a row-pipelined network hands on. Operators that are
known to work row by row need few rows of their input; all others need all of it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from cimc.chip import Chip
from cimc.operators import FAKE_QUANTIZE, LEFT_DIGITAL, OPERATORS, layer_of, operators_where
from cimc.schedule import Dependency, Route, Stage
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import constant
from passes.image_sizes import elements_of_image, sizes_of_image
from passes.mapper.layers import Layer, positions
from passes.product_macs import is_product, macs_of, operands_of
from passes.scan_body import body_of, states_of, steps_of

# One output row needs the same row of every input: element by element, or along other axes only.
_ROW_BY_ROW = operators_where(lambda operator: operator.rows == "same") | {FAKE_QUANTIZE}
_ALONG_AN_AXIS = operators_where(lambda operator: operator.rows == "axis")
_WINDOWED = operators_where(lambda operator: operator.rows == "window")
_REGROUPING = operators_where(lambda operator: operator.rows == "regroup")
_MOVING = operators_where(lambda operator: operator.moves)


class _Value(NamedTuple):
    """What is known of a value: the stage that makes it and the axis of its rows (None: one row)."""

    stage: str
    layer: str
    axis: int | None


def stages_of(model: ir.Model, layers: Sequence[Layer], chip: Chip) -> list[Stage]:
    """The stages of a lowered network in its order, without times; layers that are not in `layers` are digital."""
    on_arrays = {layer.name: layer for layer in layers}
    values = {value: _Value("", "", _default_axis(value)) for value in model.graph.inputs if not value.is_initializer()}
    stages: list[Stage] = []
    for node in model.graph:
        if body_of(node) is None:
            stages.append(_stage(node, values, on_arrays, chip))
        else:
            stages += _scan_stages(node, values, on_arrays, chip)
    return _route(stages, chip)


def _stage(node: ir.Node, values: dict[ir.Value, _Value], on_arrays: Mapping[str, Layer], chip: Chip) -> Stage:
    layer = _layer_name(node)
    inputs = [value for value in node.inputs if value is not None and value in values]
    axis = _output_axis(node, values)
    home = layer if layer in on_arrays else next((values[v].layer for v in inputs if values[v].layer), "")
    name = node.outputs[0].name or ""
    for value in node.outputs:
        like_the_first = len(sizes_of_image(value)) == len(sizes_of_image(node.outputs[0]))
        values[value] = _Value(name, home, axis if like_the_first else _default_axis(value))
    crossbar = layer in on_arrays
    return Stage(
        name=name,
        operator=node.op_type,
        kind="crossbar" if crossbar else "digital",
        layer=home,
        rows=max(_extent(node.outputs[0], axis), 1),  # of a value without elements too
        positions=positions(node) if crossbar else 0,
        elements=sum(elements_of_image(value) for value in node.outputs),
        operations=_layer_operations(node, on_arrays[layer]) if crossbar else _operations(node),
        network_outputs=sum(elements_of_image(value) for value in node.outputs if value.is_graph_output()),
        inputs=tuple(_dependency(node, value, values[value], axis, chip) for value in dict.fromkeys(inputs)),
    )


def _scan_stages(
    scan: ir.Node, values: dict[ir.Value, _Value], on_arrays: Mapping[str, Layer], chip: Chip
) -> list[Stage]:
    """The stages of the body of a Scan, with one row a step, and a stage for each of its results.

    The first step waits for all of what the Scan takes.
    """
    body, steps, states = body_of(scan), steps_of(scan), states_of(scan)
    assert body is not None
    assert steps is not None
    taken = dict(zip(body.inputs, scan.inputs, strict=True))
    made = dict(zip(body.inputs, body.outputs[:states], strict=False))
    known = {inner: values[outer] for inner, outer in taken.items() if outer in values}
    # Twice: what a state comes from is at home where the step before made it.
    for _ in range(2):
        inside = {**values, **known}
        found = [_stage(node, inside, on_arrays, chip) for node in body]
        known |= {
            inner: known.get(inner, inside[value])._replace(layer=inside[value].layer)
            for inner, value in made.items()
            if value in inside
        }
    own = {stage.name for stage in found}

    def needs(value: ir.Value) -> list[Dependency]:
        moved = math.ceil(elements_of_image(value) * chip.cores.activation_bytes)
        if value not in taken and inside[value].stage in own:
            return [Dependency(inside[value].stage, steps, 1, 1.0, 1, moved * steps)]
        outer = taken.get(value) or value
        result = []
        if outer in values:
            rows = _extent(outer, values[outer].axis)
            whole = math.ceil(elements_of_image(outer) * chip.cores.activation_bytes)
            outside = "" if values[outer].stage else outer.name or ""
            result.append(Dependency(values[outer].stage, rows, rows, 0.0, rows, whole, network_input=outside))
        if value in made:
            result.append(Dependency(inside[made[value]].stage, steps, 0, 1.0, 1, moved * (steps - 1), carried=True))
        return result

    stages = []
    for node, stage in zip(body, found, strict=True):
        inputs = dict.fromkeys(value for value in node.inputs if value is not None and value in inside)
        more = {"rows": steps, "scan": scan.name or "", "network_outputs": 0}
        more |= {key: getattr(stage, key) * steps for key in ("positions", "elements", "operations")}
        more["inputs"] = tuple(dependency for value in inputs for dependency in needs(value))
        stages.append(stage.model_copy(update=more))
    for inner, value in zip(body.outputs, scan.outputs, strict=True):
        if value.uses() or value.is_graph_output():
            stages.append(_result(value, inside[inner], steps, chip))
            values[value] = _Value(stages[-1].name, stages[-1].layer, _default_axis(value))
    return stages


def _result(value: ir.Value, known: _Value, steps: int, chip: Chip) -> Stage:
    """The stage of a result of a Scan: it needs all steps."""
    moved = math.ceil(elements_of_image(value) * chip.cores.activation_bytes)
    return Stage(
        name=value.name or "",
        operator="Scan",
        kind="digital",
        layer=known.layer,
        rows=_extent(value, _default_axis(value)),
        positions=0,
        elements=elements_of_image(value),
        operations=0,
        network_outputs=elements_of_image(value) if value.is_graph_output() else 0,
        inputs=(Dependency(known.stage, steps, steps, 0.0, steps, moved),),
    )


def _route(stages: Sequence[Stage], chip: Chip) -> list[Stage]:
    """The stages with the way of every input.

    What leaves a core goes over the mesh or the bus; with a bus and a shared memory, every value takes the one that is
    done earlier with all that is on it, the largest first: the bus once for all readers, the memory once to write and
    once for each reading layer.
    """
    homes = {stage.name: stage.layer for stage in stages}
    remote: dict[str, int] = {}
    readers: dict[str, set[str]] = {}
    for stage in stages:
        for source in stage.inputs:
            if homes.get(source.source) and stage.layer and homes[source.source] != stage.layer:
                remote[source.source] = source.bytes
                readers.setdefault(source.source, set()).add(stage.layer)
    ways: dict[str, Route] = dict.fromkeys(remote, "mesh" if chip.cores.bus_bytes_per_ns is None else "bus")
    if chip.cores.bus_bytes_per_ns is not None and chip.cores.global_bytes_per_ns is not None:
        bus_ns = memory_ns = 0.0
        for name in sorted(remote, key=lambda name: -remote[name]):
            bus = remote[name] / chip.cores.bus_bytes_per_ns
            memory = remote[name] * (1 + len(readers[name])) / chip.cores.global_bytes_per_ns
            if bus_ns + bus > memory_ns + memory:
                ways[name], memory_ns = "memory", memory_ns + memory
            else:
                bus_ns += bus
    return [
        stage.model_copy(
            update={
                "inputs": tuple(
                    source._replace(route="memory" if not source.source else ways[source.source])
                    if not source.source or (source.source in ways and homes[source.source] != stage.layer)
                    else source
                    for source in stage.inputs
                )
            }
        )
        for stage in stages
    ]


def _layer_name(node: ir.Node) -> str:
    weight = node.inputs[1] if is_crossbar(node) else None
    return "" if weight is None else layer_of(weight.name or "")


def _extent(value: ir.Value, axis: int | None) -> int:
    return 1 if axis is None else sizes_of_image(value)[axis]


def _default_axis(value: ir.Value) -> int | None:
    """Rows of a value that no input decides: the height of an image, the tokens of a sequence."""
    rank = len(sizes_of_image(value))
    return 2 if rank >= 4 else 1 if rank == 3 else None


def _output_axis(node: ir.Node, values: dict[ir.Value, _Value]) -> int | None:
    """The axis of the output's rows."""
    output, source = node.outputs[0], next((v for v in node.inputs if v is not None and v in values), None)
    if "kernel_shape" in node.attributes or source is None:
        return _default_axis(output) if len(sizes_of_image(output)) != 3 or source is None else 2
    axis, rank = values[source].axis, len(sizes_of_image(output))
    if axis is None:
        return _default_axis(output)
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", None) or list(range(rank))[::-1]
        return list(order).index(axis)
    if node.op_type in _REGROUPING:
        return _regrouped_axis(sizes_of_image(source), sizes_of_image(output), axis)
    if node.op_type in ("MatMul", "CrossbarMatMul", "Gemm"):
        return axis if axis < rank - 1 and rank == len(sizes_of_image(source)) else _default_axis(output)
    # Broadcasting aligns axes from the last one.
    aligned = axis + rank - len(sizes_of_image(source))
    return aligned if 0 <= aligned < rank else _default_axis(output)


def _regrouped_axis(before: list[int], after: list[int], axis: int) -> int | None:
    """Where the row axis is after a reshape that leaves it whole: as long, with as much before and behind it."""
    inner, size = math.prod(before[axis + 1 :]), before[axis]
    for candidate, extent in enumerate(after):
        if extent == size and math.prod(after[candidate + 1 :]) == inner:
            return candidate
    for candidate, extent in enumerate(after):
        # The rows and columns of an image become one axis: patches become tokens.
        if len(after) > 2 and extent % size == 0 and extent * math.prod(after[candidate + 1 :]) == size * inner:
            return candidate
    return 2 if len(after) >= 4 else 1 if len(after) == 3 else None


def _dependency(node: ir.Node, value: ir.Value, known: _Value, axis: int | None, chip: Chip) -> Dependency:
    rows = _extent(value, known.axis)
    first, step, window = _rows_needed(node, value, known.axis, axis, rows)
    moved = math.ceil(elements_of_image(value) * chip.cores.activation_bytes)
    outside = "" if known.stage else value.name or ""
    return Dependency(known.stage, rows, first, step, window, moved, network_input=outside)


def _rows_needed(
    node: ir.Node, value: ir.Value, from_axis: int | None, axis: int | None, rows: int
) -> tuple[int, float, int]:
    """first_rows, step and window of a dependency; see `cimc.schedule.Dependency`."""
    everything = rows, 0.0, rows
    output_rows = _extent(node.outputs[0], axis)
    if from_axis is None or axis is None or rows == 1:
        return everything
    operator = node.op_type
    left_digital = operator == "Conv" and LEFT_DIGITAL in node.metadata_props
    if operator == "CrossbarConv" or operator in _WINDOWED or left_digital:
        return _window(node, output_rows, rows) if from_axis == axis == 2 else everything
    if operator == "Resize":
        return 2, rows / output_rows, 2
    if operator in ("MatMul", "CrossbarMatMul", "Gemm") and value is not node.inputs[0]:
        return everything
    if operator in _ALONG_AN_AXIS:
        along = node.attributes.get_int("axis", -1) % len(sizes_of_image(value))
        whole = along <= axis if operator.endswith("Normalization") else along == axis
        return everything if whole else (1, 1.0, 1)
    if operator == "Gather" and len(sizes_of_image(value)) == len(sizes_of_image(node.outputs[0])):
        return everything if node.attributes.get_int("axis", 0) % len(sizes_of_image(value)) == axis else (1, 1.0, 1)
    if operator == "Concat" and node.attributes.get_int("axis", 1) % len(sizes_of_image(value)) == axis:
        return everything
    known = operator in _ROW_BY_ROW or operator in _REGROUPING or operator in ("Transpose", "CrossbarMatMul", "MatMul")
    return (1, 1.0, 1) if known and output_rows == rows else everything


def _window(node: ir.Node, output_rows: int, rows: int) -> tuple[int, float, int]:
    """A convolution or pooling: output row r reads rows r stride - pad and on, as many as the kernel is high."""
    kernel = node.attributes["kernel_shape"].as_ints()[0]
    strides, dilations, pads = (node.attributes.get_ints(key, None) for key in ("strides", "dilations", "pads"))
    stride, extent = (strides or [1])[0], (kernel - 1) * (dilations or [1])[0] + 1
    total = max((output_rows - 1) * stride + extent - rows, 0)
    automatic = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    pad = total // 2 if automatic else (pads or [0])[0]
    return extent - pad, float(stride), extent


def _layer_operations(node: ir.Node, layer: Layer) -> int:
    """Additions of the partial sums of row blocks and of their reads, and of the bias."""
    bias = len(node.inputs) > 2 and node.inputs[2] is not None
    return elements_of_image(node.outputs[0]) * (layer.reads_per_output - 1 + bias)


def _operations(node: ir.Node) -> int:
    """Operations on single elements: what moves data only has none, a product has its multiply-adds."""
    elements = elements_of_image(node.outputs[0])
    if node.op_type in _MOVING:
        return 0
    if is_product(node):
        weights = sum(elements_of_image(value) for value in operands_of(node) if constant(value) is not None)
        return max(macs_of(node, weights), elements)
    if "kernel_shape" in node.attributes:  # pooling, or a convolution that the chip leaves to the vector unit
        kernel = math.prod(node.attributes["kernel_shape"].as_ints())
        if is_crossbar(node) and node.inputs[1] is not None:
            return elements * sizes_of_image(node.inputs[1])[0]
        return elements * max(kernel - 1, 1)
    if node.op_type.startswith(("Reduce", "Global")) and node.inputs[0] is not None:
        return elements_of_image(node.inputs[0])
    if node.op_type == "Resize" and (scales := _constant(node, 2)) is not None and np.all(scales == 1):
        return 0
    known = OPERATORS.get(node.op_type)
    data = sum(value is not None for value in node.inputs) if node.op_type in ("Sum", "Max", "Min", "Mean") else 2
    return elements * max(known.passes if known is not None else 1, data - 1)


def _constant(node: ir.Node, index: int) -> np.ndarray | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None else constant(value)
