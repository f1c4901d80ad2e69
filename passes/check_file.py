"""Check what the ONNX checker lets pass in a file: data that does not fit its sizes, sizes and types that cannot be."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import TensorProto

from cimc.errors import CimcError

MOST_ELEMENTS = 2**28  # of one value, for a batch of one: 1 GiB of float32
MOST_NODES = 100_000  # written out, where the file itself has fewer
MOST_DEPTH = 100  # of functions that call each other

_INT32_KINDS = ("INT32", "INT16", "INT8", "UINT16", "UINT8", "BOOL", "FLOAT16", "BFLOAT16")
_FIELDS = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.STRING: "string_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    **{TensorProto.DataType.Value(kind): "int32_data" for kind in _INT32_KINDS},
}
_KINDS = frozenset(int(kind) for kind in ir.DataType) - {TensorProto.UNDEFINED}


def check_file(proto: onnx.ModelProto, path: Path) -> None:
    """Check every tensor and every declared shape of the model and of its functions and subgraphs.

    Raises:
        CimcError: naming the first tensor or value that cannot be.
    """
    for graph in graphs(proto):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_value(value, path)
    for tensor in tensors(proto):
        _check_tensor(tensor, path)


def check_expansion(proto: onnx.ModelProto, path: Path) -> None:
    """Count the nodes that the model has when its functions are written out, before they are.

    Raises:
        CimcError: more than `$CIMC_MAX_NODES` (default: 100,000), more than a tenth of that where most of them are
            copies, or functions that call themselves.
    """
    most = _most_nodes()
    functions = {(one.domain, one.name): one for one in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size_of(key: tuple[str, str], depth: int) -> int:
        if depth > MOST_DEPTH:
            raise CimcError(f"{path}: the function '{key[1]:.60}' calls itself, or too many others in a row; inline it")
        if key not in sizes:
            sizes[key] = sum(cost(node, depth + 1) for node in _below(functions[key].node))
        return sizes[key]

    def cost(node: onnx.NodeProto, depth: int) -> int:
        key = (node.domain, node.op_type)
        return size_of(key, depth) if key in functions else 1

    count = min(sum(cost(node, 0) for node in _below(proto.graph.node)), 10**300)  # a number that can be printed
    written = sum(1 for _ in _nodes(proto))
    if count > most or count > most // 10 + 10 * written:
        raise CimcError(
            f"{path}: its {written:,} nodes become {count:.3g} where functions are written out, more than can be "
            f"compiled in a sensible time; set CIMC_MAX_NODES={10 * count:.0f} to try"
            if count < 10**9
            else f"{path}: its functions expand to {count:.3g} nodes; export the network without them"
        )


def _most_nodes() -> int:
    text = os.environ.get("CIMC_MAX_NODES", "")
    return int(text) if text.isdecimal() and len(text) < 19 else MOST_NODES


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All constants of the model, of its functions and subgraphs, in attributes too."""
    for graph in graphs(proto):
        yield from graph.initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            yield from (tensor for tensor in (attribute.t, *attribute.tensors) if tensor.data_type or tensor.dims)


def _check_value(value: onnx.ValueInfoProto, path: Path) -> None:
    if not value.type.HasField("tensor_type"):
        return
    kind = value.type.tensor_type
    if kind.elem_type and kind.elem_type not in _KINDS:
        raise CimcError(f"{path}: '{value.name}' has an element type that ONNX does not know; export the network again")
    sizes = [size.dim_value for size in kind.shape.dim if size.HasField("dim_value")]
    if math.prod(max(size, 1) for size in sizes) > MOST_ELEMENTS:
        text = "x".join(map(str, sizes))[:60]
        raise CimcError(f"{path}: '{value.name}' has sizes that cannot be ({text}); export the network again")


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    fault = None
    if tensor.data_type not in _KINDS:
        fault = "has an element type that ONNX does not know"
    elif min(tensor.dims, default=0) < 0:
        fault = "has a negative size"
    elif tensor.data_location != TensorProto.EXTERNAL:
        count = math.prod(tensor.dims)
        if tensor.data_type != TensorProto.STRING and tensor.HasField("raw_data"):
            bits = count * ir.DataType(tensor.data_type).bitwidth
            if len(tensor.raw_data) != -(-bits // 8):
                fault = f"has {len(tensor.raw_data)} bytes of data, where its sizes need {-(-bits // 8)}"
        elif tensor.data_type in _FIELDS and len(getattr(tensor, _FIELDS[tensor.data_type])) != count:
            fault = f"has {len(getattr(tensor, _FIELDS[tensor.data_type]))} elements, where its sizes need {count}"
    if fault is not None:
        raise CimcError(f"{path}: the constant '{tensor.name}' {fault}; export the network again")


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and all subgraphs."""
    yield proto.graph
    for node in _nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, in subgraphs and functions too; protobuf itself bounds the depth."""
    yield from _below(proto.graph.node)
    for function in proto.functions:
        yield from _below(function.node)


def _below(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _below(graph.node)
