"""Read an ONNX file from disk, checked, with its external data left on disk until it is used."""

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from cimc.errors import CimcError
from passes.check_file import check_expansion, check_file, graphs, tensors
from passes.lowering.expand_qonnx import expand_qonnx
from passes.lowering.upgrade_opset import OF_ONNXRUNTIME, is_of_onnxruntime
from passes.messages import one_line


def read_network(path: Path) -> ir.Model:
    """Load the ONNX model at `path`.

    External data is memory-mapped, and must lie in the model's own folder or below it.

    Raises:
        CimcError: the file is missing, is a folder, is not ONNX, is cut off, fails the ONNX checker, or names external
            data that is missing, too short or outside its folder.
    """
    path = Path(path)
    return _checked(_parse(path), path, str(path))


def read_proto(proto: onnx.ModelProto) -> ir.Model:
    """A model in memory, checked as a file is. Raises CimcError as `read_network`; it has no external data."""
    path = Path(proto.graph.name or "the network")
    if any(tensor.external_data for tensor in tensors(proto)):
        raise CimcError(f"{path} has its weights in files beside it; save it, and give the file")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return _checked(copy, path, copy)


def _checked(proto: onnx.ModelProto, path: Path, checked: str | onnx.ModelProto) -> ir.Model:
    """The network of a parsed file. checked: what the ONNX checker takes, a path for files beyond 2 GiB."""
    check_expansion(proto, path)
    try:
        onnx.checker.check_model(_as_standard(proto) or checked)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, OSError) as error:
        raise CimcError(f"{path} fails the ONNX checker: {one_line(error)}; export the network again") from None
    check_file(proto, path)
    _open_negative_sizes(proto)
    _drop_dictionaries(proto.graph)
    _drop_strings(proto.graph)
    _drop_repeated_names(proto.graph)
    try:
        model: ir.Model = ir.from_proto(proto)
    # A file that passes the checker can still hold nonsense in any field.
    except Exception as error:
        raise CimcError(f"cannot read {path} as ONNX: {one_line(error)}; export the network again") from None
    _open_external_data(model, path)
    return expand_qonnx(model)


def external_files(path: Path) -> set[Path]:
    """The files that hold the weights of the model at `path`, beside it."""
    proto = _parse(Path(path))
    entries = (entry for tensor in tensors(proto) for entry in tensor.external_data)
    locations = (entry.value for entry in entries if entry.key == "location")
    return {(Path(path).parent / location).resolve() for location in locations}


def _parse(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise CimcError(f"cannot read {path}: it is a folder; give the .onnx file in it")
    if path.exists() and not path.is_file():
        raise CimcError(f"cannot read {path}: it is a device or a pipe; give a .onnx file")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except FileNotFoundError:
        raise CimcError(f"cannot read {path}: there is no such file; check the name and the folder") from None
    except OSError as error:
        raise CimcError(f"cannot read {path}: {error.strerror or error}; check the file and its rights") from None
    except DecodeError:
        raise CimcError(f"{path} is not an ONNX file, or is cut off; export or copy it again") from None
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise CimcError(f"{path} holds no network: it is not an ONNX file, or is cut off; export or copy it again")
    return proto


def _as_standard(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy for the checker, which does not know onnxruntime's own operators; None where there are none.

    They get another domain. Tensors in other files are empty: in memory the checker does not find those.
    """
    opset = max((one.version for one in proto.opset_import if not one.domain), default=1)
    if not any(is_of_onnxruntime(node, opset) for graph in graphs(proto) for node in graph.node):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.opset_import.add(domain=OF_ONNXRUNTIME, version=1)
    for graph in graphs(copy):
        for node in graph.node:
            if is_of_onnxruntime(node, opset):
                node.domain = OF_ONNXRUNTIME
    for tensor in tensors(copy):
        if tensor.external_data:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.dims[:] = [0]
    return copy


def _open_negative_sizes(proto: onnx.ModelProto) -> None:
    """Let sizes below zero be unknown: so Paddle writes them."""
    for graph in graphs(proto):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for size in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
                if size.dim_value < 0:
                    size.Clear()


def _drop_dictionaries(graph: onnx.GraphProto) -> None:
    """Take ZipMap nodes out, which only write an array of scores as dictionaries: the output keeps its name."""
    zipmaps = {node.output[0]: node for node in graph.node if node.op_type == "ZipMap" and len(node.input) == 1}
    for output in graph.output:
        node = zipmaps.get(output.name)
        if node is None or any(output.name in other.input for other in graph.node):
            continue
        output.ClearField("type")
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]


def _drop_strings(graph: onnx.GraphProto) -> None:
    """Leave out outputs that are strings (names of classes) where others remain: no array computes them."""
    kept = [o for o in graph.output if o.type.tensor_type.elem_type != onnx.TensorProto.STRING]
    if kept and len(kept) < len(graph.output):
        del graph.output[:]
        graph.output.extend(kept)


def _drop_repeated_names(graph: onnx.GraphProto) -> None:
    """Leave a node's name to the first that has it: ONNX does not ask for different ones, but onnxruntime does."""
    seen: set[str] = set()
    for node in graph.node:
        if node.name in seen:
            node.name = ""
        seen.add(node.name)


def _open_external_data(model: ir.Model, path: Path) -> None:
    """Replace tensors in other files by tensors on the memory-mapped files, which know no location any more."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _map(value.const_value, path)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, _map(attribute.value, path))


def _map(tensor: ir.ExternalTensor, path: Path) -> ir.TensorProtocol:
    tensor.base_dir = path.absolute().parent  # onnx-ir checks the place only where it has an absolute folder
    try:
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    except FileNotFoundError:
        raise CimcError(
            f"{path}: the file {tensor.location} with the weights of '{tensor.name}' is missing; "
            f"copy it to the folder of the model"
        ) from None
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise CimcError(
            f"{path}: cannot read the external data of '{tensor.name}': {one_line(error)}; "
            f"put the whole file {Path(tensor.location).name} into the folder of the model"
        ) from None
