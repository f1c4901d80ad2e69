"""What a command suggests to do next: with the data that it was given itself, else with data that fit the network."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import onnx_ir as ir

OWN = "YOUR.npz"
BUILT_IN = {"mnist": (28, 28), "cifar10": (3, 32, 32)}  # sizes of a sample without those of 1; both have 10 classes
CLASSES = 10


def data_options(
    data: str,
    data_dir: Path | None = None,
    *,
    mean: str | None = None,
    std: str | None = None,
    channels_last: bool = False,
    carry: Iterable[str] = (),
) -> str:
    """The options of such data as they are typed."""
    stated = {"data": data, "data-dir": data_dir, "mean": mean, "std": std}
    pairs = [(f"--{name}", str(value)) for name, value in stated.items() if value is not None]
    pairs += [("--carry", text) for text in carry]
    return shlex.join([*chain.from_iterable(pairs), *(["--channels-last"] if channels_last else [])])


def known_data(training: Mapping[str, Any], preprocess: Mapping[str, Any], carry: Iterable[str] = ()) -> str:
    """The options of the data of a training run, as a package's notes have it; of the user's own where there was none.

    preprocess: the fields of `cimc.dataset.Preprocess`.
    """
    mean, std = (",".join(f"{value:.9g}" for value in preprocess.get(name, ())) or None for name in ("mean", "std"))
    channels_last = bool(preprocess.get("channels_last"))
    return data_options(training.get("data", OWN), mean=mean, std=std, channels_last=channels_last, carry=carry)


def after_compile(network: ir.Model, file: Path, given: str | None) -> str:
    """What to do with a compiled network: train it, or evaluate it, on the data that were `given`, or on data that fit.

    given: as of `data_options`; None: there were none.
    """
    data = given or data_options(fitting_data(network))
    path = shlex.quote(str(file))
    steps = [f"cimc eval {path} {data}"]
    if all(_sizes(value) and not isinstance(_sizes(value)[0], int) for value in network.graph.inputs):
        steps = [f"cimc train {path} {data} -o trained.cim", f"{steps[0]} where it is trained already"]
    hint = ", or ".join(steps)
    if given is None and fitting_data(network) == OWN:
        hint += f"; {OWN}, written by numpy.savez, holds " + ", ".join(map(_array, network.graph.inputs))
    return hint


def fitting_data(network: ir.Model) -> str:
    """A set by name that the network can be trained on: its only input has that shape, its only output 10 values."""
    graph = network.graph
    if len(graph.inputs) == 1 and len(graph.outputs) == 1 and graph.inputs[0].dtype == ir.DataType.FLOAT:
        sample, scores = (_without_ones(_sizes(values[0])[1:]) for values in (graph.inputs, graph.outputs))
        for name, shape in BUILT_IN.items():
            if scores == (CLASSES,) and sample in (shape, (math.prod(shape),)):
                return name
    return OWN


def _sizes(value: ir.Value) -> Sequence[int | ir.SymbolicDim]:
    return () if value.shape is None else tuple(value.shape)


def _without_ones(sizes: Sequence[int | ir.SymbolicDim]) -> tuple[int | ir.SymbolicDim, ...]:
    return tuple(size for size in sizes if size != 1)


def _array(value: ir.Value) -> str:
    """Name, type and sizes of an input as data hold it: the samples first, other open sizes as `?`."""
    sizes = list(_sizes(value))
    free = [index for index, size in enumerate(sizes) if not isinstance(size, int)]
    if free:
        del sizes[free[0]]
    shape = ", ".join(["N", *(str(size) if isinstance(size, int) else "?" for size in sizes)])
    kind = "float32" if value.dtype is None else value.dtype.numpy().name
    return f"{value.name} ({kind} [{shape}])"
