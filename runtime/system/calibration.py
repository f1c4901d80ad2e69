"""The input ranges of a network for inference, layer after layer, with the programs that inference itself uses."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Preprocess, Samples
from cimc.units import pair_weight
from cimc.window import output_sizes
from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_node_exactly, run_steps
from runtime.system.carry import Carry, with_states
from runtime.system.inference import MOST_BYTES, Batch, batches, digital_parameters, exact_parameters
from runtime.system.input_ranges import RANGE_FACTORS, tried_images
from runtime.system.layers import held_of, read_layer, samples_first
from runtime.system.scans import choose_ranges_in_scan, read_scan
from runtime.system.state import State, System

CALIBRATION_IMAGES = 32
CALIBRATION_BATCHES = 8  # at most so many of them, where they do not fit into one
CALIBRATION_STEPS = 256  # of a stream, of which so many batches, evenly spaced, set the ranges


def calibration_index(seed: int, images: int, *, stream: bool = False, most: int = CALIBRATION_IMAGES) -> np.ndarray:
    """Indices of the training images that set the input ranges, at most so many; of a stream its first steps."""
    if stream:
        return np.arange(min(images, CALIBRATION_STEPS))
    return np.random.default_rng([seed, 1]).permutation(images)[:most]


def calibrate(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array,
    *,
    carry: Carry = MappingProxyType({}),
) -> State:
    """Choose every layer's input range on the samples, layer after layer. Returns a new state.

    Where the values of all samples do not fit into memory together, or the network has a fixed batch, in several
    batches: the largest of their ranges holds, as of a layer that is used several times. Of a stream (`carry`) some of
    the steps set the ranges, with the states that the exact network has there.
    """
    chosen: dict[str, np.float32] = {}

    def layer(samples: int, step: LayerStep, x: Floats) -> Floats:
        held = held_of(system, state, step.layer)
        best = _best_range(system, step, x, held, key)
        chosen[step.layer] = max(best, chosen.get(step.layer, best))
        held = held._replace(input_range=jnp.asarray(chosen[step.layer]))
        return read_layer(system, step, x, held, key, first=0, samples=samples)

    def scan(samples: int, step: ScanStep, values: Arrays) -> list[np.ndarray]:
        for name, best in choose_ranges_in_scan(system, state, step, values, key).items():
            chosen[name] = max(best, chosen.get(name, best))
        ranges = {**state["input_range"], **{name: jnp.asarray(value) for name, value in chosen.items()}}
        return read_scan(system, {**state, "input_range": ranges}, step, values, key, first=0, samples=samples)

    for batch in _looked_at(system, state, samples, preprocess, carry):
        of_batch = partial(layer, len(batch.samples)), partial(scan, len(batch.samples))
        run_steps(system.network, batch.feeds, digital_parameters(state), layer=of_batch[0], scan=of_batch[1])
    ranges = {name: jax.device_put(chosen.get(name, np.float32(1))) for name in system.crossbars}
    return {**state, "input_range": ranges}


def _looked_at(system: System, state: State, samples: Samples, preprocess: Preprocess, carry: Carry) -> Sequence[Batch]:
    """The batches that set the ranges; of a stream steps with even spaces between, with their states."""
    # Not what is free just now: the batches decide which samples count, and so the ranges.
    every = batches(system.network, samples, preprocess, MOST_BYTES, steps=bool(carry))
    if not carry:
        return list(islice(every, CALIBRATION_BATCHES))
    steps = list(with_states(system.network, carry, every, exact_parameters(system, state)))
    return steps[:: -(-len(steps) // CALIBRATION_BATCHES)]


def _best_range(system: System, step: LayerStep, x: Floats, held: Held, key: Array) -> np.float32:
    """As `calibrating_product` chooses it, with the programs that inference itself uses."""
    if system.chip.input.bits is None:
        return np.float32(1)
    crossbar, (vectors, _) = system.crossbars[step.layer], samples_first(system, step, x)
    sizes = vectors.shape[1:2] if crossbar.window is None else output_sizes(vectors.shape[2:], crossbar.window)
    tried = vectors[: tried_images(math.prod(sizes))]
    weight = pair_weight(np.asarray(held.conductance), np.asarray(held.weight_range), system.chip)
    values = (tried, weight * np.asarray(held.gain), np.asarray(held.bias))
    by_name = {name: value for name, value in zip(step.node.input, values, strict=False) if name}
    expected = run_node_exactly(system.network, step.node, by_name)[0]

    def error(candidate: np.float32) -> float:
        trial = held._replace(input_range=jnp.asarray(candidate))
        found = read_in_pieces(crossbar, tried, trial, key, number=step.number)
        return float(np.mean(np.square(found - expected, dtype=np.float64)))

    largest = np.maximum(np.max(np.abs(x), initial=0), np.float32(1e-6))
    candidates = largest * np.asarray(RANGE_FACTORS, np.float32)
    return candidates[int(np.argmin([error(candidate) for candidate in candidates]))]
