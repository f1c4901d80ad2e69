"""A PyTorch module as the ONNX network that `compile` takes; needs the extra `torch`."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from cimc.errors import CimcError
from cimc.files import replacing
from cimc.trained_names import FIXED, TRAINED, UNUSED, names_stated, state_names
from passes.messages import one_line
from passes.notes import add_note

if TYPE_CHECKING:
    import torch

_SCOPES = "pkg.torch.onnx.name_scopes"  # the modules that a node is of, outermost first, and its own name
# What errors of control flow that depends on data hold.
DATA_DEPENDENT = ("GuardOnDataDependentSymNode", "data-dependent", "Data-dependent", "DataDependent")


def from_torch(module: "torch.nn.Module", example: Any, *, output: str | Path | None = None) -> onnx.ModelProto:
    """Export a module by `torch.onnx`, in evaluation mode, with every parameter under its name in the state dict.

    Nothing is folded into parameters: a batch normalisation stays one, and is trained with its running statistics.
    Parameters are trained, but for frozen ones (`requires_grad` is False), which a note of `compile` names; buffers are
    not. Layers get the names of their modules. Dropout is left out, in training too.

    Args:
        module: the network; left as it is.
        example: an input, a tensor or an array, or a tuple of several; its first axis is the batch, of any size.
        output: the ONNX file to write; None: nothing is written.

    Raises:
        CimcError: PyTorch is not installed, or the module is none, or it cannot be exported.
    """
    torch = import_torch()
    given = example if isinstance(example, tuple | list) else (example,)
    require_module(torch, module)
    inputs = tuple(_input(torch, one) for one in given)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        model = _exported(torch, module, inputs)
    finally:
        for part, mode in modes.items():
            part.training = mode
    _keep_parameters_apart(model, set(module.state_dict()))
    _tidy(model, type(module).__name__)
    _state_trained(model, module)
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


def require_module(torch: Any, module: object) -> None:
    """Raises CimcError: it is no module, such as a class or a state dict."""
    if not isinstance(module, torch.nn.Module):
        given = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
        raise CimcError(f"{given} was given for the module; give a torch.nn.Module, made and with its weights")


def _input(torch: Any, one: Any) -> "torch.Tensor":
    try:
        tensor: torch.Tensor = torch.as_tensor(one)
    except (TypeError, ValueError, RuntimeError):
        raise CimcError(
            f"the example is a {type(one).__name__}; give an input as the module takes it, a tensor or an array"
        ) from None
    if tensor.ndim == 0 or len(tensor) == 0:
        raise CimcError("the example has no batch; give an input as the module takes it, with the batch first")
    return tensor


def _state_trained(model: ir.Model, module: "torch.nn.Module") -> None:
    """Keep with the network what is trained: parameters, but for frozen ones; buffers never are."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained = {name for name, value in parameters.items() if value.requires_grad}
    held = model.graph.initializers.keys()
    state_names(model.metadata_props, TRAINED, held & trained)
    state_names(model.metadata_props, FIXED, held & {*parameters, *dict(module.named_buffers())} - trained)
    state_names(model.metadata_props, UNUSED, parameters.keys() - held)
    statistics = {
        value.name for node in model.graph if node.op_type == "BatchNormalization" for value in node.inputs[3:] if value
    }
    kept = names_stated(model.metadata_props, FIXED) - statistics
    if kept:
        add_note(model, f"buffers and frozen parameters are not trained: {', '.join(sorted(kept))}")


def _exported(torch: Any, module: "torch.nn.Module", inputs: tuple[Any, ...]) -> ir.Model:
    """The network with a free batch, or where the module does not allow that with the example's."""
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    failures: list[str] = []
    doubled = tuple(torch.cat([one, one]) if len(one) == 1 else one for one in inputs)  # 1 is taken for a constant
    for given, shapes in ((doubled, free), (inputs, None)):
        try:
            with _quiet():
                program = torch.onnx.export(
                    module, given, dynamo=True, optimize=False, verbose=False, dynamic_shapes=shapes
                )
            model: ir.Model = program.model
            return model
        except Exception as error:  # whatever the exporter and the module raise
            failures.append(_reason(error))
    reasons = dict.fromkeys(failures)
    raise CimcError(
        f"torch.onnx cannot export {type(module).__name__}: {'; and with a fixed batch: '.join(reasons)}"
    ) from None


def _reason(error: Exception) -> str:
    """Why the exporter failed."""
    told, cause = [], error if error.__cause__ is None else error.__cause__
    seen: BaseException | None = error
    while seen is not None:
        told.append(f"{type(seen).__name__} {seen}")
        seen = seen.__cause__ or seen.__context__
    if any(word in text for word in DATA_DEPENDENT for text in told):
        return "its control flow depends on values of the data; write it with torch.where or torch.cond"
    return one_line(cause)


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
        wanted = node.name or ""
        if module and node.op_type in _PRODUCTS:
            wanted = next(name for name in chain([module], (f"{module}.{n}" for n in count(1))) if name not in used)
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
    """Without what the exporter prints and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
