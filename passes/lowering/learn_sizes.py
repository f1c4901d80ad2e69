"""Sizes that shape inference does not know: of onnxruntime's own operators, found by running them, and a few more."""

import contextlib

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from passes.graph_edit import constant

_FATAL_ONLY = 4
_AS_THE_INPUT = ("GroupNormalization",)  # of the standard, without a rule of inference


def learn_sizes(model: ir.Model) -> int:
    """Run each node of another domain whose inputs have known sizes and whose outputs do not; the number learnt."""
    count = 0
    for node in model.graph:
        if not node.domain and node.op_type in _AS_THE_INPUT and node.outputs[0].shape is None:
            source = node.inputs[0]
            if source is not None and source.shape is not None:
                node.outputs[0].shape, node.outputs[0].type = source.shape, source.type
                count += 1
        elif node.domain and any(value.name and value.shape is None for value in node.outputs):
            with contextlib.suppress(Exception):  # what does not run keeps no sizes, and is refused by name
                results = _run(node, model)
                for value, array in zip((value for value in node.outputs if value.name), results, strict=True):
                    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
                count += 1
    return count


def _run(node: ir.Node, model: ir.Model) -> list[np.ndarray]:
    """The outputs for random numbers, and zeros as integers; constants as they are."""
    random, feeds, inputs = np.random.default_rng(0), {}, []
    for value in dict.fromkeys(value for value in node.inputs if value is not None):
        array = constant(value)
        if array is None:
            kind, sizes = value.dtype, None if value.shape is None else value.shape.numpy()
            if kind is None or sizes is None:
                raise ValueError(f"'{value.name}' has no known sizes")
            array = (
                random.random(sizes).astype(kind.numpy()) if kind.is_floating_point() else np.zeros(sizes, kind.numpy())
            )
        feeds[value.name or ""] = array
        kind_number = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(onnx.helper.make_tensor_value_info(value.name or "", kind_number, array.shape))
    outputs = [onnx.ValueInfoProto(name=value.name) for value in node.outputs if value.name]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "sizes", inputs, outputs)
    opsets = [onnx.helper.make_opsetid(*entry) for entry in model.opset_imports.items()]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, feeds)]
