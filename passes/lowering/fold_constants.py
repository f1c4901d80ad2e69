"""Compute at compile time every node whose inputs are all constants."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from passes.graph_edit import constant, register_constant, source_of

GROWTH_LIMIT_BYTES = 16 * 2**20
FILL_LIMIT_BYTES = 2**30  # of a ConstantOfShape, which takes no memory until it is written
FLOAT_LIMIT_BYTES = 2**33
_FLOATS = frozenset({"DequantizeLinear", "Cast"})  # weights, which come onto the arrays as float32
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Dropout"}
)

_Arrays = dict[str, npt.NDArray[np.generic]]
_RESHAPES = frozenset({"Reshape", "Squeeze", "Unsqueeze"})  # elements stay as they are


class FoldConstants(ir.passes.InPlacePass):
    """Replace nodes on constants by their results, unless those are much larger than the inputs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in graph order, so that chains fold in one go."""
        opset = model.opset_imports.get("", 1)
        count = sum(fold(model.graph, node, opset) is not None for node in model.graph)
        return ir.passes.PassResult(model, modified=bool(count))


def fold(graph: ir.Graph, node: ir.Node, opset: int) -> list[ir.Value] | None:
    """Replace `node` of `graph` by constants, which are returned; None: it stays."""
    results = _evaluate(node, opset)
    if results is None:
        return None
    constants = []
    for output, array in zip(node.outputs, results, strict=True):
        name = output.name or ""
        output.name = f"{name}.before_folding"
        folded = register_constant(graph, name, array)
        _remember_source(folded, node)
        constants.append(folded)
        output.replace_all_uses_with(folded)
    graph.remove(node, safe=True)
    return constants


def _remember_source(folded: ir.Value, node: ir.Node) -> None:
    """What is computed from a weight, such as its transpose, is still that weight."""
    largest = max((value for value in node.inputs if value is not None), key=_bytes, default=None)
    if largest is None or not _bytes(largest) or largest.shape is None:
        return
    if len(largest.shape) > 1 or node.op_type in _RESHAPES:
        folded.meta.update({**largest.meta, "source": source_of(largest)})


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


def _evaluate(node: ir.Node, opset: int) -> list[npt.NDArray[np.generic]] | None:
    if node.domain or node.op_type in RANDOM or not node.inputs:
        return None
    if any(output.is_graph_output() or not output.name for output in node.outputs):
        return None
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return None
    feeds: _Arrays = {}
    for value in node.inputs:
        if value is None:
            continue
        array = constant(value)
        if array is None or not value.name:
            return None
        feeds[value.name] = array
    if node.op_type == "ConstantOfShape":
        return _fill(node, next(iter(feeds.values())))
    proto = _single_node_model(node, feeds, opset)
    limit = sum(array.nbytes for array in feeds.values()) + GROWTH_LIMIT_BYTES
    if node.op_type in _FLOATS:
        limit = FLOAT_LIMIT_BYTES
    kinds = _kinds_if_small(proto, limit)
    if kinds is None:
        return None
    exotic = any(kind.isbuiltin == 2 for kind in (*kinds, *(array.dtype for array in feeds.values())))
    # What neither can compute stays in the network, where the check of operators names it.
    for compute in (_run_reference,) if exotic else (_run_onnxruntime, _run_reference):
        with contextlib.suppress(Exception):
            return [np.asarray(result) for result in compute(proto, feeds)]
    return None


def _run_reference(proto: onnx.ModelProto, feeds: _Arrays) -> Sequence[npt.ArrayLike]:
    """The outputs by the standard's own code: onnxruntime takes no arrays of small types, nor the newest opset."""
    results: Sequence[npt.ArrayLike] = ReferenceEvaluator(proto).run(None, feeds)
    return results


def _run_onnxruntime(proto: onnx.ModelProto, feeds: _Arrays) -> Sequence[npt.ArrayLike]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    given = {entry.name for entry in session.get_inputs()}
    results: Sequence[npt.ArrayLike] = session.run(None, {n: array for n, array in feeds.items() if n in given})
    return results


def _fill(node: ir.Node, shape: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]] | None:
    """One value broadcast to a shape; networks published without their weights are full of them."""
    value = np.zeros(1, np.float32)
    if "value" in node.attributes:
        value = np.asarray(node.attributes["value"].as_tensor().numpy())
    sizes = [int(size) for size in shape]
    if value.size != 1 or min(sizes, default=0) < 0 or math.prod(sizes) * value.itemsize > FILL_LIMIT_BYTES:
        return None
    return [np.broadcast_to(value.reshape(()), sizes)]


def _single_node_model(node: ir.Node, feeds: _Arrays, opset: int) -> onnx.ModelProto:
    inputs, small = [], []
    for name, array in feeds.items():
        if array.nbytes <= 1024:  # shape inference needs to see these
            small.append(onnx.numpy_helper.from_array(array, name))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    outputs = [onnx.ValueInfoProto(name=output.name) for output in node.outputs]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "fold", inputs, outputs, small)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def _kinds_if_small(proto: onnx.ModelProto, limit: int) -> list[np.dtype[Any]] | None:
    """The types of the outputs, if those have at most `limit` bytes."""
    total, kinds = 0, []
    for output in onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output:
        kind = output.type.tensor_type
        if not kind.elem_type or not kind.HasField("shape"):
            return None
        if not all(dimension.HasField("dim_value") for dimension in kind.shape.dim):
            return None
        kinds.append(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        total += kinds[-1].itemsize * math.prod(dimension.dim_value for dimension in kind.shape.dim)
    return kinds if total <= limit else None
