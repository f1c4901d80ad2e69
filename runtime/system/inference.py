"""Outputs of a network for any number of samples, on its arrays or exactly, in bounded memory."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.dataset import Preprocess, Samples
from runtime.crossbar.pieces import Floats
from runtime.network.network import Network
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, bytes_at_once, run_exactly, run_steps
from runtime.system.inputs import network_inputs, sample_shapes
from runtime.system.layers import held_of, read_layer
from runtime.system.scans import read_scan
from runtime.system.state import State, System, gain_name

MOST_SAMPLES = 512  # at once: more are not faster
# Of what is free, for the values between layers; and no more than that without being asked.
FREE_SHARE, MOST_BYTES = 0.25, 1 << 28
Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples that run together. first: the number of the first. feeds: the inputs as the network takes them, which may
    be filled up beyond the samples.
    """

    first: int
    samples: Samples
    feeds: Arrays


def batches(
    network: Network,
    samples: Samples,
    preprocess: Preprocess,
    memory: int | None = None,
    *,
    steps: bool = False,
    times: int = 1,
) -> Iterator[Batch]:
    """All samples in batches that fit into the memory; arguments as `predict`.

    steps: the samples are the steps of a stream, so that a free batch is 1. times: that a free batch is run at once.
    """
    single = has_whole_calls(network, samples) or (steps and fixed_batch(network) is None)
    size = 1 if single else max(batch_size(network, memory) // times, 1)
    for first in range(0, len(samples), size):
        some = samples.take(slice(first, min(first + size, len(samples))))
        yield Batch(first, some, feeds_of(network, some, preprocess, size))


def outputs_on_arrays(
    system: System,
    state: State,
    batch: Batch,
    key: Array | None,
    *,
    seen: Callable[[LayerStep, Floats, Batch], None] | None = None,
) -> Outputs:
    """The network's outputs by name, on its arrays; key None: no noise. seen: called with the inputs of each layer."""

    def layer(step: LayerStep, x: Floats) -> Floats:
        if seen is not None:
            seen(step, x, batch)
        held = held_of(system, state, step.layer)
        return read_layer(system, step, x, held, key, first=batch.first, samples=len(batch.samples))

    def scan(step: ScanStep, values: Arrays) -> list[np.ndarray]:
        return read_scan(system, state, step, values, key, first=batch.first, samples=len(batch.samples))

    parameters = digital_parameters(state)
    return cut_outputs(
        system.network, run_steps(system.network, batch.feeds, parameters, layer=layer, scan=scan), batch
    )


def outputs_exactly(network: Network, parameters: Arrays, batch: Batch) -> Outputs:
    """The network's outputs by name, in float32, with `exact_parameters`."""
    return cut_outputs(network, run_exactly(network, batch.feeds, parameters), batch)


def cut_outputs(network: Network, outputs: Outputs, batch: Batch) -> Outputs:
    """The outputs with the samples first, without those by which the network's fixed batch was filled up."""
    count, size = len(batch.samples), fixed_batch(network)
    for name, array in outputs.items():
        axis = batch_axis(network, name)
        outputs[name] = np.moveaxis(array, axis, 0) if axis else array
    if size is None or count == size or has_whole_calls(network, batch.samples):
        return outputs
    return {name: array[:count] for name, array in outputs.items()}


def batch_axis(network: Network, value: str) -> int:
    """Where the batch of a value stands: it may be second, as of recurrent states [layers, N, features]."""
    sizes = network.shapes.get(value, ())
    return next((axis for axis, size in enumerate(sizes) if isinstance(size, str)), 0)


def predict(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    *,
    key: Array | None = None,
    exact: bool = False,
    memory: int | None = None,
) -> Outputs:
    """The network's outputs by name for all samples.

    Args:
        system: network and chip.
        state: what the chip and the digital side hold.
        samples: inputs by the network's names; a network with a fixed batch takes them so many at a time.
        preprocess: from stored values to inputs.
        key: for noise; None: none. The noise of a sample does not depend on the batch it comes in.
        exact: float32, without the arrays.
        memory: bytes for the values between layers; None: a share of what is free.
    """
    parameters = exact_parameters(system, state) if exact else {}
    parts = [
        outputs_exactly(system.network, parameters, batch) if exact else outputs_on_arrays(system, state, batch, key)
        for batch in batches(system.network, samples, preprocess, memory)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def batch_size(network: Network, memory: int | None = None) -> int:
    """Samples at once: what the memory holds, from 1 to `MOST_SAMPLES`; of a network without a free batch its own."""
    fixed = fixed_batch(network)
    if fixed is not None:
        return fixed
    if memory is None:
        memory = min(int(_free_bytes() * FREE_SHARE), MOST_BYTES)
    constant, growing = (bytes_at_once(network, partial(_elements, network, samples)) for samples in (0, 1))
    return int(np.clip((memory - constant) // max(growing - constant, 1), 1, MOST_SAMPLES))


def has_whole_calls(network: Network, samples: Samples) -> bool:
    """Whether each sample is all that a call of a fixed batch takes. A single number is so in any case."""
    shapes = sample_shapes(network, samples)
    return fixed_batch(network) is not None and any(
        0 < len(sizes) < len(shapes[name][0]) for name, sizes in network.inputs.items()
    )


def fixed_batch(network: Network) -> int | None:
    """The batch that the network was exported for, where it could not be freed; 1 where the inputs do not agree."""
    with_sizes = [sizes for sizes in network.inputs.values() if sizes]
    first = {sizes[0] for sizes in with_sizes}
    # Recurrent networks have the batch second; of a cache that grows the length alone is open.
    if None in first or (with_sizes and all(None in sizes for sizes in with_sizes)):
        return None
    sizes = {size for size in first if size is not None}
    return sizes.pop() if len(sizes) == 1 else 1


def _free_bytes() -> int:
    """Memory that is free; where the system does not tell, a GiB."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 30


def _elements(network: Network, samples: int, name: str) -> int:
    """Elements of a value with so many samples."""
    if name in network.initializers:
        return 0
    sizes = network.shapes.get(name, ())
    # A multiple of the batch is written as `4*N`.
    return math.prod(size if isinstance(size, int) else samples * _multiple(size) for size in sizes if size is not None)


def _multiple(symbol: str) -> int:
    factor, star, _ = symbol.partition("*")
    return int(factor) if star and factor.isdigit() else 1


def digital_parameters(state: State) -> Arrays:
    """Digital parameters and statistics by initializer."""
    return {name: np.asarray(array) for group in ("digital", "statistics") for name, array in state[group].items()}


def exact_parameters(system: System, state: State) -> Arrays:
    """Those, and the digital copy of the weights, each times its gain, by initializer."""
    weights = {}
    for node in system.network.layers():
        if node.layer is not None:
            weight, gain = (
                np.asarray(a) for a in (state["weight"][node.layer], state["digital"][gain_name(node.layer)])
            )
            weights[node.inputs[1]] = weight if gain == 1 else weight * gain  # no copy where it would be the same
    return {**digital_parameters(state), **weights}


def feeds_of(network: Network, samples: Samples, preprocess: Preprocess, size: int) -> Arrays:
    """The inputs of a batch by name as the network takes them; of a fixed batch filled up with its first sample.

    Args:
        network: the network.
        samples: with the network's own input names (`match_inputs`); inputs that are carried may be missing.
        preprocess: from stored values to inputs.
        size: of a full batch.
    """
    fixed = fixed_batch(network) is not None
    feeds = {}
    shapes = {name: shape for name, shape in sample_shapes(network, samples).items() if name in samples.inputs}
    for name, x in network_inputs(samples.inputs, shapes, preprocess).items():
        sizes, kind = network.inputs[name], shapes[name][1]
        if len(shapes[name][0]) > len(sizes):
            x = x[0]
        elif fixed and len(x) < size:
            x = np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])
        feeds[name] = np.moveaxis(x, 0, sizes.index(None) if None in sizes else 0).astype(kind, copy=False)
    return feeds
