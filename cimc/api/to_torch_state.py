"""Trained weights back in the state dict of the PyTorch module that they come from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from cimc.api.from_torch import from_torch, import_torch, require_module
from cimc.api.sources import Source, artifact_of
from cimc.api.weights import read_original, trained_network
from cimc.errors import CimcError
from cimc.trained_names import TRAINED, UNUSED, names_stated
from passes.parameters_of import parameters_of

if TYPE_CHECKING:
    import torch

OPEN_SIZE = 2  # of the example for sizes that are not static


def to_torch_state(
    trained: Source, module: "torch.nn.Module", *, network: str | Path | onnx.ModelProto | None = None
) -> "dict[str, torch.Tensor]":
    """A state dict of the module with the trained weights: with it the module is as `evaluate` with `exact`.

    Gains of layers are in the weights; running statistics of batch normalisations are those of training. Where two
    biases are added up, as in an LSTM, the first has their sum and the second is 0. The module itself is left as it is:

        module.load_state_dict(cimc.to_torch_state(trained, module))

    Args:
        trained: a `.cim` file, its contents, or what `train` gave.
        module: the module of which `from_torch` made the network; its values may have changed since.
        network: what `from_torch` made of it, or its file; None: it is exported again.

    Raises:
        CimcError: PyTorch is not installed, the module is another one, or a trained value cannot be told from what the
            network holds, such as a parameter that two layers share and that was trained apart in them.
    """
    torch = import_torch()
    require_module(torch, module)
    artifact, name = artifact_of(trained)
    plain = trained_network(artifact, name)
    state = {key: value.detach().clone() for key, value in module.state_dict().items()}
    kind = type(module).__name__
    if network is None:
        network = from_torch(module, tuple(_example(value) for value in plain.graph.inputs))
    original = read_original(network)
    _require_parameters(original, module, kind)
    known = original.graph.initializers.keys()
    found = parameters_of(original, plain, names=state.keys() & known, name=kind)
    places = {_place(value): key for key, value in module.state_dict().items() if key in found}
    for key, value in module.state_dict().items():
        held = found.get(key, found.get(places.get(_place(value), "")))  # one tensor may have several names
        if held is None:
            continue
        state[key] = torch.tensor(held).to(dtype=value.dtype, device=value.device)
    return state


def _require_parameters(original: ir.Model, module: "torch.nn.Module", kind: str) -> None:
    """Raises CimcError: the network's parameters are not those of the module."""
    state = module.state_dict()
    held = {name: value.shape for name, value in original.graph.initializers.items()}
    stated = names_stated(original.metadata_props, TRAINED) or held.keys() & state.keys()
    missing = sorted(stated - state.keys())
    if missing:
        raise CimcError(f"{kind} is another module than the network is of: it has no parameter '{missing[0]}'")
    for name in sorted(held.keys() & state.keys()):
        if held[name] != tuple(state[name].shape):
            raise CimcError(f"{kind} is another module than the network is of: '{name}' has other sizes")
    places = {_place(state[name]) for name in held.keys() & state.keys()}
    unused = sorted(
        name for name, value in module.named_parameters() if name not in held and _place(value) not in places
    )
    stated_unused = names_stated(original.metadata_props, UNUSED)
    if TRAINED in original.metadata_props and (more := [name for name in unused if name not in stated_unused]):
        raise CimcError(f"{kind} is another module than the network is of: that has no parameter '{more[0]}'")


def _place(tensor: "torch.Tensor") -> tuple[Any, ...]:
    """What two names of one tensor have in common."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _example(value: ir.Value) -> np.ndarray:
    """An input of zeros."""
    sizes = [size if isinstance(size, int) else OPEN_SIZE for size in value.shape or ()]
    assert value.dtype is not None
    return np.zeros(sizes, value.dtype.numpy())
