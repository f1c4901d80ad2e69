"""Input ranges in training: watched, and chosen again when they have moved.

The weights change, so the best range does too: ranges that stay for a hundred steps cost a network percents of
accuracy, and the network that has learnt to live with clipped inputs jumps when they are set. So every few steps a
handful of images is read, and three figures of each layer are held against those right after its ranges were chosen:
how large its inputs are, how many of them are clipped, and how many conversions end at the ADC's largest code.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.dataset import Preprocess
from runtime.crossbar.figures import jit_with_figures
from runtime.crossbar.product import clipped_conversions
from runtime.network.run import run_network
from runtime.network.scan import Product, WatchingProduct
from runtime.system.input_ranges import calibrating_product, read_part
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.products import array_product, layer_on_arrays, state_as_read
from runtime.system.state import State, System

WATCHED_IMAGES = 8  # of the calibration images
# Steps between two looks, and up to which step: the first changes are large and fast.
LOOKS = ((5, 100), (20, 1000))
SETTLED_LOOK_STEPS = 100
# Ranges are chosen again when, in any layer, the inputs have grown or shrunk by that factor, or when the share of
# clipped inputs or conversions has changed by that factor and by more than so many of all.
MOVED_FACTOR, MOVED_SHARE = 1.2, 0.01

Stored = Mapping[str, Array]  # arrays [N, ...] by input name, as the data holds them


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


def steps_to_look(step: int) -> int:
    """Steps from that step of training to the next look at the ranges; 0: it is due before that step."""
    every = next((every for every, until in LOOKS if step < until), SETTLED_LOOK_STEPS)
    return -step % every


def new_watch(system: System) -> Watch:
    """Nothing seen yet: the first look chooses all ranges."""
    nothing = Seen(*(jnp.float32(0),) * 3)
    layers = dict.fromkeys(system.crossbars, nothing)
    return Watch(layers, layers, jnp.int32(0), jnp.int32(0))


def follow(
    system: System, state: State, watch: Watch, stored: Stored, preprocess: Preprocess, key: Array
) -> tuple[State, Watch]:
    """Look at some of the stored inputs, and choose all ranges on all of them if those of any layer moved.

    The same `key` serves all looks: each takes its number into it.
    """
    part = read_part(state)
    seen, moved = _look(system, part, watch, stored, preprocess, key, 0)
    looked = watch._replace(seen=seen, looks=watch.looks + 1)
    # Not one program with both branches: looking, which both do, would be compiled twice.
    if not moved:
        return state, looked
    ranges = _choose(system, part, watch, stored, preprocess, key)
    chosen, _ = _look(system, {**part, "input_range": ranges}, watch, stored, preprocess, key, 2)
    return {**state, "input_range": ranges}, looked._replace(
        chosen=chosen, seen=chosen, calibrations=watch.calibrations + 1
    )


def _key_of(key: Array, watch: Watch, use: int | Array) -> Array:
    """Of the first look, of the choice, and of the look that follows it."""
    return jax.random.split(jax.random.fold_in(key, watch.looks), 3)[use]


@jit_with_figures(static_argnums=(0, 4))
def _look(
    system: System, state: State, watch: Watch, stored: Stored, preprocess: Preprocess, key: Array, use: int | Array
) -> tuple[dict[str, Seen], Array]:
    """What is seen, and whether it has moved since the ranges were chosen."""
    few = {name: array[:WATCHED_IMAGES] for name, array in stored.items()}
    seen = look(system, state, few, preprocess, _key_of(key, watch, use))
    moved = jnp.any(jnp.stack([_moved(seen[name], watch.chosen[name]) for name in seen])) | (watch.calibrations == 0)
    return seen, moved


def _moved(now: Seen, then: Seen) -> Array:
    moved = jnp.abs(jnp.log((now.inputs + 1e-9) / (then.inputs + 1e-9))) > math.log(MOVED_FACTOR)
    for share, before in ((now.clipped_inputs, then.clipped_inputs), (now.clipped_codes, then.clipped_codes)):
        larger, smaller = jnp.maximum(share, before), jnp.minimum(share, before)
        moved |= (larger > MOVED_FACTOR * smaller) & (larger - smaller > MOVED_SHARE)
    return moved


def look(system: System, state: State, stored: Stored, preprocess: Preprocess, key: Array) -> dict[str, Seen]:
    """What the converters of every layer see of stored inputs."""
    record: dict[str, Seen] = {}
    read = state_as_read(system, state)

    def product(name: str, x: Array, layer_key: Array | None) -> Array:
        input_range = state["input_range"][name]
        codes = clipped_conversions(
            system.crossbars[name].traced_reading, x, read["conductance"][name], input_range, layer_key
        )
        size = jnp.sqrt(jnp.mean(jnp.square(x))) / input_range
        beyond = jnp.mean(jnp.abs(x) > input_range * 1.001, dtype=jnp.float32)
        if system.chip_of(name).input.bits is None:  # nothing is clipped
            beyond = jnp.float32(0)
        seen = Seen(size, beyond, codes)
        # Of a layer used several times, the use that clips most.
        record[name] = Seen(*map(jnp.maximum, seen, record[name])) if name in record else seen
        return layer_on_arrays(system, read, name, x, input_range, layer_key)

    arrays = array_product(system, state)
    _run(system, state, stored, preprocess, WatchingProduct(product, arrays, arrays), key)
    return record


@jit_with_figures(static_argnums=(0, 4))
def _choose(
    system: System, state: State, watch: Watch, stored: Stored, preprocess: Preprocess, key: Array
) -> dict[str, Array]:
    record: dict[str, Array] = {}
    _run(system, state, stored, preprocess, calibrating_product(system, state, record), _key_of(key, watch, 1))
    return record


def _run(system: System, state: State, stored: Stored, preprocess: Preprocess, product: Product, key: Array) -> None:
    feeds = network_inputs(stored, input_shapes(system.network), preprocess)
    run_network(system.network, feeds, product, state["digital"], state["statistics"], key)
