"""Compute at compile time every node whose inputs are all constants."""

import contextlib
import math

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from passes.graph_edit import constant, register_constant, source_of

GROWTH_LIMIT_BYTES = 16 * 2**20
FILL_LIMIT_BYTES = 2**30  # of a ConstantOfShape, which takes no memory until it is written
FLOAT_LIMIT_BYTES = 2**33
_FLOATS = frozenset({"DequantizeLinear", "Cast"})  # weights, which come onto the arrays as float32
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike", "Dropout"})


class FoldConstants(ir.passes.InPlacePass):
    """Replace nodes on constants by their results, unless those are much larger than the inputs."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in graph order, so that chains fold in one go."""
        count = 0
        for node in model.graph:
            results = _evaluate(node, model.opset_imports.get("", 1))
            if results is None:
                continue
            for output, array in zip(node.outputs, results, strict=True):
                name = output.name or ""
                output.name = f"{name}.before_folding"
                folded = register_constant(model.graph, name, array)
                _remember_source(folded, node)
                output.replace_all_uses_with(folded)
            model.graph.remove(node, safe=True)
            count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _remember_source(folded: ir.Value, node: ir.Node) -> None:
    """What is computed from a weight, such as its transpose, is still that weight."""
    largest = max((value for value in node.inputs if value is not None), key=lambda value: _bytes(value))
    if _bytes(largest) and largest.shape is not None and len(largest.shape) > 1:
        folded.meta.update({**largest.meta, "source": source_of(largest)})


def _bytes(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


def _evaluate(node: ir.Node, opset: int) -> list[npt.NDArray[np.generic]] | None:
    if node.domain or node.op_type in _RANDOM or not node.inputs:
        return None
    if any(output.is_graph_output() or not output.name for output in node.outputs):
        return None
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return None
    feeds: dict[str, npt.NDArray[np.generic]] = {}
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
    if not _stays_small(proto, limit):
        return None
    # What onnxruntime cannot compute stays in the network, where the check of operators names it.
    with contextlib.suppress(Exception):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        given = {entry.name for entry in session.get_inputs()}
        results = session.run(None, {name: array for name, array in feeds.items() if name in given})
        return [np.asarray(result) for result in results]
    return None


def _fill(node: ir.Node, shape: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]] | None:
    """One value broadcast to a shape; networks published without their weights are full of them."""
    value = np.zeros(1, np.float32)
    if "value" in node.attributes:
        value = np.asarray(node.attributes["value"].as_tensor().numpy())
    sizes = [int(size) for size in shape]
    if value.size != 1 or min(sizes, default=0) < 0 or math.prod(sizes) * value.itemsize > FILL_LIMIT_BYTES:
        return None
    return [np.broadcast_to(value.reshape(()), sizes)]


def _single_node_model(node: ir.Node, feeds: dict[str, npt.NDArray[np.generic]], opset: int) -> onnx.ModelProto:
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


def _stays_small(proto: onnx.ModelProto, limit: int) -> bool:
    total = 0
    for output in onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output:
        kind = output.type.tensor_type
        if not kind.elem_type or not kind.HasField("shape"):
            return False
        if not all(dimension.HasField("dim_value") for dimension in kind.shape.dim):
            return False
        size = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        total += size * math.prod(dimension.dim_value for dimension in kind.shape.dim)
    return total <= limit
