"""A PyTorch module as the ONNX network that `compile` takes; needs the extra `torch`."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from cimc.errors import CimcError
from cimc.files import replacing
from passes.messages import one_line

if TYPE_CHECKING:
    import torch

_SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node is of, outermost first, and its own name


def from_torch(module: "torch.nn.Module", example: Any, *, output: str | Path | None = None) -> onnx.ModelProto:
    """Export a module by `torch.onnx`, in evaluation mode, with every parameter under its name in the state dict.

    Nothing is folded into parameters: a batch normalisation stays one, and is trained with its running statistics.
    Layers get the names of their modules. Dropout is left out, in training too.

    Args:
        module: the network; left as it is.
        example: an input, a tensor or an array, or a tuple of several; its first axis is the batch, of any size.
        output: the ONNX file to write; None: nothing is written.

    Raises:
        CimcError: PyTorch is not installed, or cannot export the module.
    """
    torch = import_torch()
    given = example if isinstance(example, tuple | list) else (example,)
    inputs = tuple(_batch(torch, torch.as_tensor(one)) for one in given)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        model = _exported(torch, module, inputs)
    finally:
        for part, mode in modes.items():
            part.training = mode
    _keep_parameters_apart(model, set(module.state_dict()))
    _tidy(model, type(module).__name__)
    proto = ir.to_proto(model)
    if output is not None:
        with replacing(Path(output)) as temporary:
            temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def import_torch() -> Any:
    """PyTorch. Raises CimcError: it is not installed, or its exporter is not."""
    try:
        import onnxscript.optimizer  # noqa: F401  # what `torch.onnx` exports with
        import torch
    except ImportError as error:
        raise CimcError(f"{error.name} is not installed; install it with: pip install 'cimc[torch]'") from None
    return torch


def _batch(torch: Any, one: "torch.Tensor") -> "torch.Tensor":
    """The input with two samples at least: one alone the exporter takes for a constant."""
    if one.ndim == 0:
        raise CimcError("the example has no axes; give an input as the module takes it, with the batch first")
    return torch.cat([one, one]) if len(one) == 1 else one


def _exported(torch: Any, module: "torch.nn.Module", inputs: tuple[Any, ...]) -> ir.Model:
    """The network with a free batch, or where the module does not allow that with the example's."""
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    failure: Exception | None = None
    for shapes in (free, None):
        try:
            with _quiet():
                program = torch.onnx.export(
                    module, inputs, dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes
                )
            model: ir.Model = program.model
            return model
        except Exception as error:  # whatever the exporter and the module raise
            failure = error
    cause = failure.__cause__ or failure if failure is not None else None
    raise CimcError(f"torch.onnx cannot export {type(module).__name__}: {one_line(cause or Exception())}") from None


def _keep_parameters_apart(model: ir.Model, names: set[str]) -> None:
    """Compute what follows from sizes alone, in place. Parameters are inputs meanwhile, so none is folded into."""
    import onnxscript.optimizer

    graph = model.graph
    kept = {name: graph.initializers.pop(name) for name in list(graph.initializers) if name in names}
    tensors = {name: value.const_value for name, value in kept.items()}
    for value in kept.values():
        value.const_value = None
        graph.inputs.append(value)
    with _quiet():
        onnxscript.optimizer.optimize_ir(model)
    for name, tensor in tensors.items():
        value = next(value for value in graph.inputs if value.name == name)
        graph.inputs.remove(value)
        if value.uses():
            value.const_value = tensor
            graph.register_initializer(value)


def _tidy(model: ir.Model, name: str) -> None:
    """Call nodes after their modules, and drop what the exporter noted of the source and its files."""
    used: set[str] = set()
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES, "").strip("[]").split(", ")
        module = scopes[-2].strip("'") if len(scopes) > 1 else ""
        wanted = module if module and module not in used and node.op_type in _PRODUCTS else node.name or ""
        node.name = wanted
        used.add(wanted)
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    model.graph.name = name
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.doc_string = model.doc_string = None


_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "GRU", "LSTM", "RNN"})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
