"""Input ranges: chosen so that a layer's output errs least, watched in training, chosen again when they have moved.

A small range clips inputs and drives currents beyond the ADC; a large one wastes the steps of both converters. The
weights change, so the best range does too: ranges that stay for a hundred steps cost a network percents of accuracy,
and the network that has learnt to live with clipped inputs jumps when they are set. So every few steps a handful of
images is read, and three figures of each layer are held against those right after its ranges were chosen: how large
its inputs are, how many of them are clipped, and how many conversions end at the ADC's largest code.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Preprocess, Samples
from cimc.units import pair_weight
from cimc.window import output_sizes
from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.crossbar.product import clipped_conversions
from runtime.crossbar.xla import jit
from runtime.network.run import Product, run_network
from runtime.network.stepwise import LayerStep, run_layer_exactly, run_steps
from runtime.system.inference import batch_size, digital_parameters, feeds_of
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.layers import held_of, read_layer, samples_first
from runtime.system.products import exact_layer, layer_on_arrays
from runtime.system.state import State, System

CALIBRATION_IMAGES = 32
CALIBRATION_BATCHES = 8  # at most so many of them, where they do not fit into one
WATCHED_IMAGES = 8  # of the calibration images
# Input ranges tried, as multiples of the largest input in the calibration batch. No small fractions: with them, half
# of all 8-bit pixels would lie exactly between two DAC codes.
RANGE_FACTORS = tuple(1.37**power for power in range(-3, 8))
# Of a convolution's images as many are tried as make that many MVMs, but at least so many images.
TRIED_MVMS, TRIED_IMAGES = 2048, 4
# Steps between two looks, and up to which step: the first changes are large and fast.
LOOKS = ((5, 100), (20, 1000))
SETTLED_LOOK_STEPS = 100
# Ranges are chosen again when, in any layer, the inputs have grown or shrunk by that factor, or when the share of
# clipped inputs or conversions has changed by that factor and by more than so many of all.
MOVED_FACTOR, MOVED_SHARE = 1.2, 0.01


Stored = Mapping[str, Array]  # arrays [N, ...] by input name, as the data holds them
READ_GROUPS = ("weight", "conductance", "weight_range", "input_range", "digital", "statistics")


class Seen(NamedTuple):
    """What the converters of a layer see. scalars.

    inputs: root mean square of the inputs, in units of the input range. clipped_inputs: share of the inputs beyond it.
    clipped_codes: share of the conversions that end at the ADC's largest code.
    """

    inputs: Array
    clipped_inputs: Array
    clipped_codes: Array


class Watch(NamedTuple):
    """The ranges of a network in training, by layer.

    chosen: what was seen right after the ranges were last chosen. seen: at the last look. calibrations: times that
    ranges were chosen; looks: times that it was looked.
    """

    chosen: dict[str, Seen]
    seen: dict[str, Seen]
    calibrations: Array
    looks: Array


def calibration_index(seed: int, images: int) -> np.ndarray:
    """Indices of the training images that set the input ranges."""
    return np.random.default_rng([seed, 1]).permutation(images)[:CALIBRATION_IMAGES]


def steps_to_look(step: int) -> int:
    """Steps from that step of training to the next look at the ranges; 0: it is due before that step."""
    every = next((every for every, until in LOOKS if step < until), SETTLED_LOOK_STEPS)
    return -step % every


def new_watch(system: System) -> Watch:
    """Nothing seen yet: the first look chooses all ranges."""
    nothing = Seen(*(jnp.float32(0),) * 3)
    layers = dict.fromkeys(system.crossbars, nothing)
    return Watch(layers, layers, jnp.int32(0), jnp.int32(0))


def calibrate(system: System, state: State, samples: Samples, preprocess: Preprocess, key: Array) -> State:
    """Choose every layer's input range on the samples, layer after layer. Returns a new state.

    Where the values of all samples do not fit into memory together, or the network has a fixed batch, in several
    batches: the largest of their ranges holds, as of a layer that is used several times.
    """
    size = batch_size(system.network)
    chosen: dict[str, np.float32] = {}

    def layer(samples: int, step: LayerStep, x: Floats) -> Floats:
        held = held_of(system, state, step.layer)
        best = _best_range(system, step, x, held, key)
        chosen[step.layer] = max(best, chosen.get(step.layer, best))
        held = held._replace(input_range=jnp.asarray(chosen[step.layer]))
        return read_layer(system, step, x, held, key, first=0, samples=samples)

    for first in range(0, len(samples), size)[:CALIBRATION_BATCHES]:
        batch = samples.take(slice(first, first + size))
        feeds = feeds_of(system.network, batch, preprocess, size)
        run_steps(system.network, feeds, digital_parameters(state), partial(layer, len(batch)))
    ranges = {name: jax.device_put(chosen.get(name, np.float32(1))) for name in system.crossbars}
    return {**state, "input_range": ranges}


def _best_range(system: System, step: LayerStep, x: Floats, held: Held, key: Array) -> np.float32:
    """As `calibrating_product` chooses it, with the programs that inference itself uses."""
    if system.chip.input.bits is None:
        return np.float32(1)
    crossbar, (vectors, _) = system.crossbars[step.layer], samples_first(system, step, x)
    sizes = vectors.shape[1:2] if crossbar.window is None else output_sizes(vectors.shape[2:], crossbar.window)
    tried = vectors[: tried_images(math.prod(sizes))]
    weight = pair_weight(np.asarray(held.conductance), np.asarray(held.weight_range), system.chip)
    constants = [weight * np.asarray(held.gain), np.asarray(held.bias)]
    expected = run_layer_exactly(system.network, step.node, [tried, *constants[: len(step.node.input) - 1]])

    def error(candidate: np.float32) -> float:
        trial = held._replace(input_range=jnp.asarray(candidate))
        found = read_in_pieces(crossbar, tried, trial, key, number=step.number)
        return float(np.mean(np.square(found - expected), dtype=np.float64))

    largest = np.maximum(np.max(np.abs(x), initial=0), np.float32(1e-6))
    candidates = largest * np.asarray(RANGE_FACTORS, np.float32)
    return candidates[int(np.argmin([error(candidate) for candidate in candidates]))]


def follow(
    system: System, state: State, watch: Watch, stored: Stored, preprocess: Preprocess, key: Array
) -> tuple[State, Watch]:
    """Look at some of the stored inputs, and choose all ranges on all of them if those of any layer moved.

    The same `key` serves all looks: each takes its number into it.
    """
    ranges, watch = _follow(system, _read_part(state), watch, stored, preprocess, key)
    return {**state, "input_range": ranges}, watch


def _read_part(state: State) -> State:
    """The groups that a forward pass reads: what passes through a compiled function untouched is copied."""
    return {group: state[group] for group in READ_GROUPS}


@partial(jit, static_argnums=(0, 4))
def _follow(
    system: System, state: State, watch: Watch, stored: Stored, preprocess: Preprocess, key: Array
) -> tuple[dict[str, Array], Watch]:
    look_key, choose_key, again_key = jax.random.split(jax.random.fold_in(key, watch.looks), 3)
    few = {name: array[:WATCHED_IMAGES] for name, array in stored.items()}
    seen = look(system, state, few, preprocess, look_key)

    def choose(_: None) -> tuple[dict[str, Array], dict[str, Seen]]:
        ranges = _choose(system, state, stored, preprocess, choose_key)
        return ranges, look(system, {**state, "input_range": ranges}, few, preprocess, again_key)

    moved = jnp.any(jnp.stack([_moved(seen[name], watch.chosen[name]) for name in seen])) | (watch.calibrations == 0)
    ranges, chosen = jax.lax.cond(moved, choose, lambda _: (state["input_range"], watch.chosen), None)
    seen = jax.tree.map(lambda a, b: jnp.where(moved, a, b), chosen, seen)
    return ranges, Watch(chosen, seen, watch.calibrations + moved, watch.looks + 1)


def _moved(now: Seen, then: Seen) -> Array:
    moved = jnp.abs(jnp.log((now.inputs + 1e-9) / (then.inputs + 1e-9))) > math.log(MOVED_FACTOR)
    for share, before in ((now.clipped_inputs, then.clipped_inputs), (now.clipped_codes, then.clipped_codes)):
        larger, smaller = jnp.maximum(share, before), jnp.minimum(share, before)
        moved |= (larger > MOVED_FACTOR * smaller) & (larger - smaller > MOVED_SHARE)
    return moved


def look(system: System, state: State, stored: Stored, preprocess: Preprocess, key: Array) -> dict[str, Seen]:
    """What the converters of every layer see of stored inputs."""
    record: dict[str, Seen] = {}

    def product(name: str, x: Array, layer_key: Array | None) -> Array:
        input_range = state["input_range"][name]
        codes = clipped_conversions(system.crossbars[name], x, state["conductance"][name], input_range, layer_key)
        size = jnp.sqrt(jnp.mean(jnp.square(x))) / input_range
        beyond = jnp.mean(jnp.abs(x) > input_range * 1.001, dtype=jnp.float32)
        if system.chip.input.bits is None:  # nothing is clipped
            beyond = jnp.float32(0)
        seen = Seen(size, beyond, codes)
        # Of a layer used several times, the use that clips most.
        record[name] = Seen(*map(jnp.maximum, seen, record[name])) if name in record else seen
        return layer_on_arrays(system, state, name, x, input_range, layer_key)

    _run(system, state, stored, preprocess, product, key)
    return record


def _choose(system: System, state: State, stored: Stored, preprocess: Preprocess, key: Array) -> dict[str, Array]:
    record: dict[str, Array] = {}
    _run(system, state, stored, preprocess, calibrating_product(system, state, record), key)
    return record


def _run(system: System, state: State, stored: Stored, preprocess: Preprocess, product: Product, key: Array) -> None:
    feeds = network_inputs(stored, input_shapes(system.network), preprocess)
    run_network(system.network, feeds, product, state["digital"], state["statistics"], key)


def tried_images(positions: int) -> int:
    """Images on which a convolution of that many output positions tries its ranges, if there are so many."""
    return max(-(-TRIED_MVMS // positions), TRIED_IMAGES)


def calibrating_product(system: System, state: State, record: dict[str, Array]) -> Product:
    """Layers on the arrays, each with the input range that gives its output the least mean squared error.

    The error is taken against the exact product with the conductances as they are, converters and noise included. The
    ranges found are put into `record` by layer.
    """

    def product(name: str, x: Array, key: Array | None) -> Array:
        if system.chip.input.bits is None:
            record[name] = jnp.float32(1.0)
            return layer_on_arrays(system, state, name, x, record[name], key)
        largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.float32(1e-6))
        candidates = largest * jnp.asarray(RANGE_FACTORS, jnp.float32)
        window, tried = system.crossbars[name].window, x
        if window is not None:
            positions = math.prod(output_sizes(x.shape[1:-1], window))
            tried = x[..., : tried_images(positions)]
        weight = pair_weight(state["conductance"][name], state["weight_range"][name], system.chip)
        reference = exact_layer(system, state, name, tried, weight)

        def error(input_range: Array) -> Array:
            return jnp.mean(jnp.square(layer_on_arrays(system, state, name, tried, input_range, key) - reference))

        # All of them: the error has more than one minimum, so that a search near the present range can be stuck.
        chosen = candidates[jnp.argmin(jax.lax.map(error, candidates))]
        # A layer used several times has one converter range: that of the use with the largest inputs.
        record[name] = jnp.maximum(chosen, record[name]) if name in record else chosen
        return layer_on_arrays(system, state, name, x, record[name], key)

    return product
