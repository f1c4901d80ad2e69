"""The input ranges of a network for inference, layer after layer, with the programs that inference itself uses."""

import math
from collections.abc import Collection, Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Preprocess, Samples
from cimc.units import weight_of
from cimc.window import output_sizes
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats, Held, bytes_of_mvm, read_in_pieces, samples_of_piece
from runtime.network.network import with_bodies
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_node_exactly, run_steps
from runtime.system.carry import Carry, with_states
from runtime.system.fit_scales import Case, Seen, divide_channels, fit_scales, largest_inputs, rows_of_channels
from runtime.system.inference import MOST_BYTES, Batch, batches, digital_parameters, exact_parameters
from runtime.system.input_ranges import RANGE_FACTORS, TRIED_MVMS, tried_images
from runtime.system.layers import held_of, read_layer, samples_first
from runtime.system.program import retarget
from runtime.system.sample_vectors import sample_vectors
from runtime.system.scans import choose_ranges_in_scan, read_scan
from runtime.system.state import State, System, bias_of, gain_of

CALIBRATION_IMAGES = 32
CALIBRATION_BATCHES = 8  # at most so many of them, where they do not fit into one
REFIT = 1.2  # scales are fitted anew to a batch whose largest input is so many times that of the batch before
# Scales are tried twice on so many vectors of a layer, as the read of that many takes so many bytes.
MOST_VECTORS, LEAST_VECTORS, TRIED_BYTES = 4096, 256, 1 << 27
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
    key: Array | None,
    *,
    fit: bool = False,
    fixed: Collection[str] = (),
    carry: Carry = MappingProxyType({}),
) -> State:
    """Choose every layer's input range on the samples, layer after layer. Returns a new state.

    What the fixed layers hold, and their scales, stay as they are: the others are chosen for what these give.

    With `fit` the weights may be written anew: then all scales and the targets that go with them are chosen
    (`runtime.system.fit_scales`), of the layers in a Scan those of the columns' weight ranges. Conductances that the
    state has are not looked at. Without a key scales are for reads without noise.

    Where the values of all samples do not fit into memory together, or the network has a fixed batch, in several
    batches: the largest of their ranges holds, as of a layer that is used several times. Of a stream (`carry`) some of
    the steps set the ranges, with the states that the exact network has there.
    """
    if fit:
        in_scans = {node.layer for scan in system.network.nodes if scan.body for node in with_bodies(scan.body.nodes)}
        state = retarget(system, state, layers=[name for name in state["weight"] if name in in_scans], fixed=fixed)
    chosen: dict[str, np.float32] = {}
    fitted: dict[str, Held] = {}
    peaks: dict[str, float] = {}

    def layer(samples: int, step: LayerStep, x: Floats) -> Floats:
        if step.layer in fixed:
            return read_layer(system, step, x, held_of(system, state, step.layer), key, first=0, samples=samples)
        peak = float(np.max(np.abs(x), initial=0))
        # Of a stream the first steps may have far smaller inputs than those that follow.
        if fit and peak > REFIT * peaks.get(step.layer, -1.0):
            peaks[step.layer] = peak
            found = fit_scales(_case(system, state, step, x, key))
            fitted[step.layer] = found._replace(bias=bias_of(system, state, step.layer))
            best = np.float32(fitted[step.layer].input_range)
        else:
            best = best_range(system, step, [x], fitted.get(step.layer) or held_of(system, state, step.layer), key)
        chosen[step.layer] = max(best, chosen.get(step.layer, best))
        held = fitted.get(step.layer) or held_of(system, state, step.layer)
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
    new = {**state, "conductance": {}, "weight_range": {}, "input_factor": {}}
    for name in state["weight"]:  # in their order, by which chips are programmed
        held = fitted.get(name) or held_of(system, state, name)
        new["conductance"][name], new["weight_range"][name] = held.conductance, held.weight_range
        if held.input_factor is not None:
            new["input_factor"][name] = held.input_factor
    chosen |= {name: np.float32(state["input_range"][name]) for name in fixed}
    new["input_range"] = {name: jax.device_put(chosen.get(name, np.float32(1))) for name in system.crossbars}
    return new


def _case(system: System, state: State, step: LayerStep, x: Floats, key: Array | None) -> Case:
    """What the scales of a layer are fitted to: its weights, and what it sees in every other sample and in the rest."""
    crossbar, (inputs, _) = system.crossbars[step.layer], samples_first(system, step, x)
    if len(inputs) == 1 and crossbar.window is None:
        inputs = inputs.swapaxes(0, 1)  # each vector a sample
    halves = (inputs[::2], inputs[1::2]) if len(inputs) > 1 else (inputs, inputs)
    weight = np.asarray(state["weight"][step.layer])
    seen = [
        Seen(_drawn(crossbar, half, weight, seed), largest_inputs(half, crossbar)) for seed, half in enumerate(halves)
    ]
    return Case(crossbar, seen[0], seen[1], weight, np.asarray(gain_of(state, step.layer)), key, step.number)


def _drawn(crossbar: Crossbar, inputs: Floats, weight: Floats, seed: int) -> Floats:
    """Vectors [MVMs, rows of all groups] on which scales are tried: so many that the read is bounded."""
    mvm = bytes_of_mvm(crossbar.reading, crossbar.chip.scheme.devices, *weight.shape)
    most = int(np.clip(TRIED_BYTES // mvm, LEAST_VECTORS, MOST_VECTORS))
    return np.ascontiguousarray(sample_vectors(crossbar, inputs, most, np.random.default_rng(seed)).T)


def _some(crossbar: Crossbar, vectors: Floats, held: Held) -> Floats:
    """As much of the samples as input ranges alone are tried on: of a product vectors of all of them.

    Not less than a piece, which then is of the program that reads the whole.
    """
    if crossbar.window is None:
        count = vectors.shape[0] * vectors.shape[1]
        if count <= TRIED_MVMS:
            return vectors
        return vectors.reshape(1, count, -1)[:, np.random.default_rng(0).permutation(count)[:TRIED_MVMS]]
    sizes = output_sizes(vectors.shape[2:], crossbar.window)
    return vectors[: max(tried_images(math.prod(sizes)), samples_of_piece(crossbar, vectors, held))]


def _exactly(system: System, step: LayerStep, x: Floats, weight: Floats, held: Held) -> Floats:
    """The layer's outputs with these weights, exactly."""
    values = (x, weight * np.asarray(held.gain), np.asarray(held.bias))
    by_name = {name: value for name, value in zip(step.node.input, values, strict=False) if name}
    y: Floats = run_node_exactly(system.network, step.node, by_name)[0]
    return y


def _looked_at(system: System, state: State, samples: Samples, preprocess: Preprocess, carry: Carry) -> Sequence[Batch]:
    """The batches that set the ranges; of a stream steps with even spaces between, with their states."""
    # Not what is free just now: the batches decide which samples count, and so the ranges.
    every = batches(system.network, samples, preprocess, MOST_BYTES, steps=bool(carry))
    if not carry:
        return list(islice(every, CALIBRATION_BATCHES))
    steps = list(with_states(system.network, carry, every, exact_parameters(system, state)))
    return steps[:: -(-len(steps) // CALIBRATION_BATCHES)]


def best_range(
    system: System,
    step: LayerStep,
    batches_of: Sequence[Floats],
    held: Held,
    key: Array | None,
    *,
    also: Sequence[np.float32] = (),
) -> np.float32:
    """The input range with which a layer's outputs err least from the products with the conductances as they are.

    As `calibrating_product` chooses it, with the programs that inference itself uses.

    Args:
        system, step: the layer.
        batches_of: its input, by batch.
        held: what chip and digital side hold of it.
        key: for noise; None: none.
        also: ranges that are tried beside multiples of the largest input.
    """
    if system.chip_of(step.layer).input.bits is None:
        return np.float32(1)
    crossbar, largest = system.crossbars[step.layer], np.float32(1e-6)
    tried: list[tuple[Floats, Floats]] = []  # inputs, and the exact products with them
    for x in batches_of:
        inputs, _ = samples_first(system, step, x)
        some = _some(crossbar, inputs, held)
        tried.append((some, _expected(system, step, some, held)))
        if held.input_factor is not None:
            inputs = divide_channels(inputs, np.asarray(held.input_factor), crossbar)
        largest = np.maximum(largest, np.max(np.abs(inputs), initial=0))

    def error(candidate: np.float32) -> float:
        trial, total = held._replace(input_range=jnp.asarray(candidate)), 0.0
        for some, expected in tried:
            found = read_in_pieces(crossbar, some, trial, key, number=step.number)
            total += float(np.sum(np.square(found - expected, dtype=np.float64)))
        return total

    candidates = np.array([*largest * np.asarray(RANGE_FACTORS, np.float32), *also], np.float32)
    return np.float32(candidates[int(np.argmin([error(candidate) for candidate in candidates]))])


def _expected(system: System, step: LayerStep, x: Floats, held: Held) -> Floats:
    """The exact product with the conductances as they are. The weights are let go with it: of a large layer they are as
    much as all that reads it.
    """
    weight = weight_of(np.asarray(held.conductance), np.asarray(held.weight_range), system.chip)
    if held.input_factor is not None:
        weight /= rows_of_channels(np.asarray(held.input_factor), system.crossbars[step.layer], weight)
    return _exactly(system, step, x, weight, held)
