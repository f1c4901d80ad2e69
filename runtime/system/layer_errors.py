"""Layer by layer, what the arrays lose: the outputs against those of the exact network on the same samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jax import Array

from cimc.dataset import Preprocess, Samples
from cimc.units import device_targets
from runtime.crossbar.pieces import Floats
from runtime.network.network import Network
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_node_exactly, run_steps
from runtime.system.carry import Carry, with_states
from runtime.system.inference import Batch, batches, digital_parameters, exact_parameters
from runtime.system.layers import held_of, read_layer, samples_first
from runtime.system.loss_causes import Losses, decibels, loss_causes
from runtime.system.read_effects import MOST_MVMS, row_factors
from runtime.system.sample_vectors import sample_vectors
from runtime.system.scans import read_scan
from runtime.system.state import State, System

# The outputs of all layers stand side by side: of so many samples, if they take no more than that.
MOST_SAMPLES, MOST_BYTES = 32, 1 << 28


@dataclass
class LayerError:
    """Of one layer, in all its uses; of a Scan with crossbar layers, its results.

    signal, error: sums of squares of the exact output, and of its difference on the arrays. own_error: the same where
    the layer gets the exact input, so that only what it adds itself counts; 0 of a Scan. clipped_inputs: share of its
    inputs beyond the input range, of the use that clips most. losses: the causes of its own error, and which of its
    conversions are clipped on exact inputs; None of a Scan.
    """

    name: str
    signal: float = 0.0
    error: float = 0.0
    own_error: float = 0.0
    clipped_inputs: float = 0.0
    losses: Losses | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """snr_db: of all that happened up to here; own_snr_db: of the layer alone; None where nothing differs. And the
        figures of its losses.
        """
        return {
            "snr_db": decibels(self.signal, self.error),
            "own_snr_db": decibels(self.signal, self.own_error),
            "clipped_inputs": self.clipped_inputs,
            "clipped_codes": self.losses.clipped_codes if self.losses else 0.0,
            **(self.losses.figures if self.losses else {}),
        }


def layer_errors(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array | None,
    *,
    carry: Carry = MappingProxyType({}),
    targets: Mapping[str, Array] | None = None,
) -> list[LayerError]:
    """The errors of all layers in their order, on some of the samples.

    Args:
        system: network and chip.
        state: what the chip and the digital side hold.
        samples: by the network's input names.
        preprocess: from stored values to inputs.
        key: for noise; None: none.
        carry: the samples are the steps of a stream, of which each gets the states of the exact network.
        targets: by layer the conductances that were to be programmed; None: those of the digital copy.
    """
    errors: dict[str, LayerError] = {}
    inputs: dict[str, list[Floats]] = {}
    network, some = system.network, samples.take(slice(samples_side_by_side(system.network)))
    every = batches(network, some, preprocess, steps=bool(carry))
    for batch in with_states(network, carry, every, exact_parameters(system, state)):
        _compare(system, state, batch, key, errors, inputs, -(-MOST_MVMS * len(batch.samples) // len(some)))
    for layer, found in inputs.items():
        goal = None if targets is None else targets[layer]
        errors[layer].losses = _losses(system, state, found, layer=layer, targets=goal, noise=key is not None)
    return list(errors.values())


def samples_side_by_side(network: Network) -> int:
    """How many samples' values fit side by side."""
    sizes = [network.shapes.get(name, ()) for node in network.protos for name in node.output]
    elements = sum(math.prod(size for size in shape if isinstance(size, int)) for shape in sizes)
    return max(min(MOST_BYTES // (4 * max(elements, 1)), MOST_SAMPLES), 1)


def _losses(
    system: System, state: State, inputs: Sequence[Floats], *, layer: str, targets: Array | None, noise: bool
) -> Losses:
    """The causes of a layer's own error on inputs [rows, MVMs] of its uses."""
    parameters, held, crossbar = exact_parameters(system, state), held_of(system, state, layer), system.crossbars[layer]
    node = next(node for node in system.network.layers() if node.layer == layer)
    exact, *bias = [np.asarray(parameters[name]) for name in node.inputs[1:] if name]
    weight = np.asarray(state["weight"][layer])
    if held.input_factor is not None:
        weight = weight * row_factors(crossbar, held.input_factor, weight)
    if targets is None:
        targets = device_targets(weight, np.asarray(held.weight_range), system.chip_of(layer))
    return loss_causes(
        crossbar,
        np.random.default_rng(0).permutation(np.concatenate(inputs, axis=1), axis=1),
        held,
        targets=np.asarray(targets),
        weight=weight,
        exact=(exact, bias[0] if bias else None),
        seed=0 if noise else None,
    )


def _compare(
    system: System,
    state: State,
    batch: Batch,
    key: Array | None,
    errors: dict[str, LayerError],
    inputs: dict[str, list[Floats]],
    most: int,
) -> None:
    """Add the errors of a batch: the network runs exactly, then on the arrays; and inputs of at most so many MVMs."""
    network, parameters = system.network, exact_parameters(system, state)
    place = {"first": batch.first, "samples": len(batch.samples)}
    expected: dict[int, list[np.ndarray]] = {}
    random = np.random.default_rng(batch.first)

    def exact_layer(step: LayerStep, x: Floats) -> Floats:
        weights = {name: parameters[name] for name in step.node.input[1:]}
        y: Floats = run_node_exactly(network, step.node, {step.node.input[0]: x, **weights})[0]
        found, held = errors.setdefault(step.layer, LayerError(step.layer)), held_of(system, state, step.layer)
        found.signal += _power(y)
        found.own_error += _power(y - read_layer(system, step, x, held, key, **place))
        expected[step.number] = [y]
        vectors, _ = samples_first(system, step, x)
        drawn = sample_vectors(system.crossbars[step.layer], vectors, most, random)
        inputs.setdefault(step.layer, []).append(drawn)
        return y

    def exact_scan(step: ScanStep, values: Arrays) -> list[np.ndarray]:
        made = run_node_exactly(network, step.node, {**network.initializers, **parameters, **values})
        found = errors.setdefault(step.node.name, LayerError(step.node.name))
        found.signal += sum(map(_power, made))
        expected[step.number] = made
        return made

    def layer(step: LayerStep, x: Floats) -> Floats:
        found, held = errors[step.layer], held_of(system, state, step.layer)
        y = read_layer(system, step, x, held, key, **place)
        found.error += _power(y - expected.pop(step.number)[0])
        if system.chip_of(step.layer).input.bits is not None:
            beyond = float(np.mean(np.abs(x) > float(held.input_range) * 1.001)) if x.size else 0.0
            found.clipped_inputs = max(found.clipped_inputs, beyond)
        return y

    def scan(step: ScanStep, values: Arrays) -> list[np.ndarray]:
        made = read_scan(system, state, step, values, key, **place)
        for array, wanted in zip(made, expected.pop(step.number), strict=True):
            errors[step.node.name].error += _power(array - wanted)
        return made

    run_steps(network, batch.feeds, digital_parameters(state), layer=exact_layer, scan=exact_scan)
    run_steps(network, batch.feeds, digital_parameters(state), layer=layer, scan=scan)


def _power(array: np.ndarray) -> float:
    return float(np.square(array, dtype=np.float64).sum())
