"""Let a network compute in float32, whatever floating point format it was exported in."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from passes.notes import add_note

_NAMES = {ir.DataType.DOUBLE: "float64", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}
# Attributes that name the type of what a node computes.
_TYPES = ("to", "dtype", "output_dtype", "output_datatype", "stash_type")


def set_float32(model: ir.Model) -> None:
    """Make every float64, float16 and bfloat16 input, output, constant and value float32, in place, with a note."""
    found: dict[str, None] = {}
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in _values(graph):
            if value.dtype in _NAMES:
                found[_NAMES[value.dtype]] = None
                value.type = ir.TensorType(ir.DataType.FLOAT) if isinstance(value.type, ir.TensorType) else None
            if value.is_initializer() and value.const_value is not None and value.const_value.dtype in _NAMES:
                value.const_value = _float32(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                kind = _kind(name, attribute)
                if kind is not None:
                    found[_NAMES[kind]] = None
                    tensor = attribute.type == ir.AttributeType.TENSOR
                    number = ir.AttrInt64(name, int(ir.DataType.FLOAT))
                    node.attributes[name] = ir.AttrTensor(name, _float32(attribute.as_tensor())) if tensor else number
    if found:
        add_note(model, f"{' and '.join(found)} values are computed in float32, inputs and outputs too")


def _kind(name: str, attribute: ir.Attr) -> ir.DataType | None:
    """The format that an attribute holds or names, where it is one to be changed."""
    kind = None
    if attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        kind = attribute.as_tensor().dtype
    elif attribute.type == ir.AttributeType.INT and name in _TYPES:
        kind = next((one for one in _NAMES if int(one) == attribute.as_int()), None)
    return kind if kind in _NAMES else None


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.DOUBLE:  # a mask of the least float64 stays finite
        limit = np.finfo(np.float32)
        array = np.where(np.isfinite(array), np.clip(array, limit.min, limit.max), array)
    return ir.tensor(array.astype(np.float32), name=tensor.name)
