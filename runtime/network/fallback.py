"""Operators that this runtime does not implement: executed by onnxruntime, node by node, outside of JAX.

Correct but slow, because all inputs leave the compiled program and come back. No gradient passes through.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from cimc.errors import CimcError

_FATAL_ONLY = 4


def describe(node: onnx.NodeProto) -> str:
    """The operator and the name of a node, or what it computes."""
    return f"{node.op_type} '{node.name or ', '.join(node.output)}'"


def run_in_onnxruntime(
    node: onnx.NodeProto, opsets: dict[str, int], types: Sequence[int], inputs: Sequence[Any]
) -> Any:
    """The outputs of one node, in order.

    Args:
        node: the node.
        opsets: version of each operator set.
        types: ONNX element type of each input; JAX holds 64-bit integers in 32 bits.
        inputs: arrays, None where left out; NumPy arrays become constants of the node, so that they may give sizes.

    Raises:
        CimcError: the sizes of the outputs depend on the data; or, when differentiated, always.
    """
    constants = {i: value for i, value in enumerate(inputs) if isinstance(value, np.ndarray)}
    dynamic = [i for i, value in enumerate(inputs) if value is not None and i not in constants]
    shapes = {node.input[i]: (types[i], inputs[i].shape) for i in dynamic}
    arrays = {node.input[i]: value.astype(_dtype(types[i])) for i, value in constants.items()}
    model = _model(node, opsets, shapes, arrays)
    results = [
        jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(kind)) for shape, kind in _outputs(model, node)
    ]
    content = model.SerializeToString()
    names = [node.input[i] for i in dynamic]
    kinds = [_dtype(types[i]) for i in dynamic]

    def call(*values: Any) -> list[np.ndarray]:
        feeds = {n: np.asarray(v).astype(k) for n, v, k in zip(names, values, kinds, strict=True)}
        computed = _session(content).run(None, feeds)
        return [np.asarray(a).astype(r.dtype) for a, r in zip(computed, results, strict=True)]

    if not dynamic:  # of constants alone: nothing to compile
        return tuple(call())

    @jax.custom_jvp
    def outputs(*values: Any) -> Any:
        return jax.pure_callback(call, results, *values, vmap_method="sequential")

    @outputs.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        raise CimcError(
            f"{describe(node)} runs in onnxruntime and passes no gradient on, but layers before it are to be trained; "
            f"replace it (`cimc ops` lists what trains), or train the network up to it"
        )

    return tuple(outputs(*[jnp.asarray(inputs[i]) for i in dynamic]))


def _dtype(kind: int) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))


def _model(
    node: onnx.NodeProto,
    opsets: dict[str, int],
    inputs: dict[str, tuple[int, tuple[int, ...]]],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        [node],
        "node",
        [onnx.helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


def _outputs(model: onnx.ModelProto, node: onnx.NodeProto) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each output."""
    found = []
    if node.domain not in ("", "ai.onnx.ml"):
        return _outputs_of_a_run(model)
    for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output:
        kind = value.type.tensor_type
        if not kind.HasField("shape") or not all(size.HasField("dim_value") for size in kind.shape.dim):
            raise CimcError(
                f"{describe(node)}: the size of '{value.name}' depends on the data, and cannot be compiled; "
                f"replace the node or fix the size"
            )
        found.append((tuple(size.dim_value for size in kind.shape.dim), _dtype(kind.elem_type)))
    return found


def _outputs_of_a_run(model: onnx.ModelProto) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each output of an operator of onnxruntime's own, which shape inference does not know."""
    feeds = {
        value.name: np.zeros(
            [size.dim_value for size in value.type.tensor_type.shape.dim], _dtype(value.type.tensor_type.elem_type)
        )
        for value in model.graph.input
    }
    return [
        (array.shape, array.dtype) for array in map(np.asarray, _session(model.SerializeToString()).run(None, feeds))
    ]


@lru_cache(maxsize=256)
def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def element_types(node: ir.Node) -> tuple[int, ...]:
    """ONNX element type of each input of a node; float32 where none is known."""
    kinds = [None if value is None else value.dtype for value in node.inputs]
    return tuple(int(kind if kind is not None else ir.DataType.FLOAT) for kind in kinds)
