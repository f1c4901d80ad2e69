"""Where the batch is in every value of a network, followed from the inputs on while its Reshape targets are freed."""

import contextlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from passes.graph_edit import constant

_KEEPS_ORDER = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_MOST_DATA = 64  # elements of a value that is followed as data, because it may be a shape
PROBE = 7  # times the batch


class FollowBatch:
    """Tells which axis of the target of a Reshape holds the batch.

    The elements before the batch in memory are as many after a Reshape as before it. An axis of just the batch at that
    place holds it; else it goes to the axis that begins there, unless that is the last, which holds features.
    """

    def __init__(self, model: ir.Model, sizes: Mapping[str, Sequence[int | None] | None], batch: int) -> None:
        """`model`, whose inputs have a free batch, is followed as it is when asked; `sizes`: at the batch of before."""
        self._model, self._fixed, self._batch = model, sizes, batch
        self._sizes: dict[ir.Value, tuple[int, ...]] = {}  # at PROBE times the batch
        self._data: dict[ir.Value, npt.NDArray[np.generic]] = {}
        self._inside: dict[ir.Value, int] = {}  # elements of the batch's own axis that come before it
        self._seen: set[ir.Node] = set()
        for value in model.graph.inputs:
            dims = value.shape or ()
            self._sizes[value] = tuple(size if isinstance(size, int) else batch * PROBE for size in dims)
        self._opsets = [onnx.helper.make_opsetid(*entry) for entry in model.opset_imports.items()]

    def axis(self, node: ir.Node, target: Sequence[int]) -> int | None:
        """The axis of the sizes `target` of a Reshape that holds the batch; None: none, or it is not known."""
        for other in self._model.graph:
            if other is node:
                break
            if other not in self._seen:
                self._seen.add(other)
                with contextlib.suppress(Exception):  # what cannot be inferred is not followed
                    self._infer(other)
        before = None if node.inputs[0] is None else self._before(node.inputs[0])
        if before is None:
            return None
        found, done = [], 1
        for axis, size in enumerate(target):
            inside = before // done if done <= before and before % done == 0 else 0
            if inside and size % (inside * self._batch) == 0:
                last = axis == len(target) - 1
                found.append(((inside, size) != (1, self._batch), inside == 1 and last, inside > 1, axis))
            done *= size
        return min(found)[-1] if found else None

    def _before(self, value: ir.Value) -> int | None:
        """How many elements of a value come before the batch in memory."""
        fixed, axis = self._fixed.get(value.name or ""), self._axis(value)
        if axis is None or fixed is None:
            return None
        return math.prod(size or 0 for size in fixed[:axis]) * self._inside.get(value, 1)

    def _axis(self, value: ir.Value) -> int | None:
        fixed, sizes = self._fixed.get(value.name or ""), self._sizes.get(value)
        if fixed is None or sizes is None or len(fixed) != len(sizes):
            return None
        return next((n for n, (one, other) in enumerate(zip(fixed, sizes, strict=True)) if one != other), None)

    def _infer(self, node: ir.Node) -> None:
        inputs = [value for value in node.inputs if value is not None]
        data = {value: array for value in inputs if (array := self._small(value)) is not None}
        if node.op_type == "Shape" and inputs[0] in self._sizes:
            sizes = self._sizes[inputs[0]]
            start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes))
            results = [np.array(sizes[start:end], np.int64)]
        elif len(data) == len(inputs):
            feeds = {value.name: array for value, array in data.items()}
            results = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
        else:
            self._infer_sizes(node, inputs, data)
            return
        for value, result in zip(node.outputs, results, strict=True):
            self._data[value] = np.asarray(result)
            self._sizes[value] = np.shape(result)

    def _infer_sizes(
        self, node: ir.Node, inputs: Sequence[ir.Value], data: Mapping[ir.Value, npt.NDArray[np.generic]]
    ) -> None:
        schema = onnx.defs.get_schema(node.op_type, self._model.opset_imports[node.domain], node.domain)
        types = {
            value.name or "": onnx.helper.make_tensor_type_proto(int(kind), self._known(value))
            for value in inputs
            if (kind := value.dtype if value.const_value is None else value.const_value.dtype) is not None
        }
        tensors = {value.name or "": onnx.numpy_helper.from_array(array) for value, array in data.items()}
        found = onnx.shape_inference.infer_node_outputs(
            schema, ir.to_proto(node), types, tensors, opset_imports=self._opsets, ir_version=10
        )
        inside = next((self._inside[value] for value in inputs if value in self._inside), 1)
        before = self._before(inputs[0])
        for value in node.outputs:
            if value.name not in found:
                continue
            sizes = [size.dim_value for size in found[value.name].tensor_type.shape.dim]
            self._sizes[value] = tuple(sizes)
            axis = self._axis(value)
            if node.op_type in _KEEPS_ORDER and before is not None and axis is not None:
                inside = before // math.prod(sizes[:axis])
            if inside > 1:
                self._inside[value] = inside

    def _known(self, value: ir.Value) -> tuple[int, ...]:
        array = value.const_value
        return self._sizes[value] if array is None else tuple(array.shape.numpy())

    def _small(self, value: ir.Value) -> npt.NDArray[np.generic] | None:
        array = self._data.get(value, constant(value))
        return array if array is not None and array.size <= _MOST_DATA else None
