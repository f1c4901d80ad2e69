"""Layer by layer, what the arrays lose: the outputs against those of the exact network on the same samples."""

import math
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jax import Array

from cimc.dataset import Preprocess, Samples
from runtime.crossbar.pieces import Floats, clipped_share
from runtime.network.network import Network
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_node_exactly, run_steps
from runtime.system.carry import Carry, with_states
from runtime.system.inference import Batch, batches, digital_parameters, exact_parameters
from runtime.system.layers import held_of, read_layer, samples_first
from runtime.system.scans import read_scan
from runtime.system.state import State, System

# The outputs of all layers stand side by side: of so many samples, if they take no more than that.
MOST_SAMPLES, MOST_BYTES = 32, 1 << 28


@dataclass
class LayerError:
    """Of one layer, in all its uses; of a Scan with crossbar layers, its results.

    signal, error: sums of squares of the exact output, and of its difference on the arrays. own_error: the same where
    the layer gets the exact input, so that only what it adds itself counts; 0 of a Scan. clipped_inputs: share of its
    inputs beyond the input range; clipped_codes: share of its conversions that end at the ADC's largest code; both of
    the use that clips most.
    """

    name: str
    signal: float = 0.0
    error: float = 0.0
    own_error: float = 0.0
    clipped_inputs: float = 0.0
    clipped_codes: float = 0.0

    @property
    def figures(self) -> dict[str, float | None]:
        """snr_db: of all that happened up to here; own_snr_db: of the layer alone; None where nothing differs."""
        return {
            "snr_db": decibels(self.signal, self.error),
            "own_snr_db": decibels(self.signal, self.own_error),
            "clipped_inputs": self.clipped_inputs,
            "clipped_codes": self.clipped_codes,
        }


def decibels(signal: float, error: float) -> float | None:
    """The ratio of two powers in dB; None where either is 0."""
    return 10 * math.log10(signal / error) if signal > 0 and error > 0 else None


def layer_errors(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array | None,
    *,
    carry: Carry = MappingProxyType({}),
) -> list[LayerError]:
    """The errors of all layers in their order, on some of the samples.

    Args:
        system: network and chip.
        state: what the chip and the digital side hold.
        samples: by the network's input names.
        preprocess: from stored values to inputs.
        key: for noise; None: none.
        carry: the samples are the steps of a stream, of which each gets the states of the exact network.
    """
    errors: dict[str, LayerError] = {}
    network, some = system.network, samples.take(slice(_samples(system.network)))
    every = batches(network, some, preprocess, steps=bool(carry))
    for batch in with_states(network, carry, every, exact_parameters(system, state)):
        _compare(system, state, batch, key, errors)
    return list(errors.values())


def _samples(network: Network) -> int:
    """How many samples' values fit side by side."""
    sizes = [network.shapes.get(name, ()) for node in network.protos for name in node.output]
    elements = sum(math.prod(size for size in shape if isinstance(size, int)) for shape in sizes)
    return max(min(MOST_BYTES // (4 * max(elements, 1)), MOST_SAMPLES), 1)


def _compare(system: System, state: State, batch: Batch, key: Array | None, errors: dict[str, LayerError]) -> None:
    """Add the errors of a batch: the network runs exactly, then on the arrays."""
    network, parameters = system.network, exact_parameters(system, state)
    place = {"first": batch.first, "samples": len(batch.samples)}
    expected: dict[int, list[np.ndarray]] = {}

    def exact_layer(step: LayerStep, x: Floats) -> Floats:
        weights = {name: parameters[name] for name in step.node.input[1:]}
        y: Floats = run_node_exactly(network, step.node, {step.node.input[0]: x, **weights})[0]
        found, held = errors.setdefault(step.layer, LayerError(step.layer)), held_of(system, state, step.layer)
        found.signal += _power(y)
        found.own_error += _power(y - read_layer(system, step, x, held, key, **place))
        expected[step.number] = [y]
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
        if system.chip.input.bits is not None:
            beyond = float(np.mean(np.abs(x) > float(held.input_range) * 1.001)) if x.size else 0.0
            found.clipped_inputs = max(found.clipped_inputs, beyond)
        vectors, _ = samples_first(system, step, x)
        codes = clipped_share(system.crossbars[step.layer], vectors, held, key)
        found.clipped_codes = max(found.clipped_codes, codes)
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
