"""Trained weights back in the state dict of the PyTorch module that they come from."""

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from cimc.api.from_torch import from_torch, import_torch
from cimc.api.sources import Source, artifact_of
from cimc.api.weights import trained_network
from cimc.errors import CimcError
from passes.parameters_of import parameters_of
from passes.read import read_proto

if TYPE_CHECKING:
    import torch

OPEN_SIZE = 2  # of the example for sizes that are not static


def to_torch_state(
    trained: Source, module: "torch.nn.Module", *, network: onnx.ModelProto | None = None
) -> "dict[str, torch.Tensor]":
    """A state dict of the module with the trained weights: with it the module is as `evaluate` with `exact`.

    Gains of layers are in the weights; running statistics of batch normalisations are those of training. Where two
    biases are added up, as in an LSTM, the first has their sum and the second is 0. The module itself is left as it is:

        module.load_state_dict(cimc.to_torch_state(trained, module))

    Args:
        trained: a `.cim` file, its contents, or what `train` gave.
        module: the module of which `from_torch` made the network; its values may have changed since.
        network: what `from_torch` made of it; None: it is exported again.

    Raises:
        CimcError: PyTorch is not installed, the module is another one, or a trained value cannot be told from what the
            network holds, such as a parameter that two layers share and that was trained apart in them.
    """
    torch = import_torch()
    artifact, name = artifact_of(trained)
    plain = trained_network(artifact, name)
    state = {key: value.detach().clone() for key, value in module.state_dict().items()}
    kind = type(module).__name__
    if network is None:
        network = from_torch(module, tuple(_example(value) for value in plain.graph.inputs))
    known = {initializer.name for initializer in network.graph.initializer}
    found = parameters_of(read_proto(network), plain, names=state.keys() & known, name=kind)
    places = {_place(value): key for key, value in module.state_dict().items() if key in found}
    for key, value in module.state_dict().items():
        held = found.get(key, found.get(places.get(_place(value), "")))  # one tensor may have several names
        if held is None:
            continue
        if held.shape != tuple(value.shape):
            raise CimcError(f"'{key}' of {kind} has other sizes than in the network that was trained")
        state[key] = torch.tensor(held).to(dtype=value.dtype, device=value.device)
    return state


def _place(tensor: "torch.Tensor") -> tuple[Any, ...]:
    """What two names of one tensor have in common."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _example(value: ir.Value) -> np.ndarray:
    """An input of zeros."""
    sizes = [size if isinstance(size, int) else OPEN_SIZE for size in value.shape or ()]
    assert value.dtype is not None
    return np.zeros(sizes, value.dtype.numpy())
