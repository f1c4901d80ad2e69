"""The devices of virtual chips: programmed, and aged; one chip, or several at once with the same draws."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from runtime.crossbar.xla import jit
from runtime.devices.device import Device, device_of
from runtime.system.state import REFERENCES, State, System, reference_targets

# Keys beside those of the writes, which count the layers.
TRAITS = 1 << 20
AGEING = 1 << 21
AGAIN, READING = 1 << 22, 1 << 23  # and the round of reprogramming
READS = 16  # of every device before a round: their mean leaves a quarter of the read noise
POPULATION_BYTES = 1 << 28  # of the devices of all chips that are programmed at once


def aged_system(system: System, seconds: float | None) -> System:
    """The system with the 1/f noise of that time after programming; None: as the chip's description says."""
    cell = system.chip.cell
    if seconds is None or cell.flicker is None:
        return system
    aged = {"cell": cell.model_copy(update={"flicker": cell.flicker.model_copy(update={"after_s": seconds})})}
    crossbars = {
        name: replace(crossbar, chip=crossbar.chip.model_copy(update=aged))
        for name, crossbar in system.crossbars.items()
    }
    return replace(system, chip=system.chip.model_copy(update=aged), crossbars=crossbars)


def age_chip(
    system: System,
    written: Mapping[str, Array],
    seconds: float | None,
    key: Array,
    stuck: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Array]:
    """Conductances [devices, rows, columns] of every layer of a chip so long after programming; None: right after it.

    key, stuck: of `program_chip`; the same key is the same chip at every time.
    """
    if seconds is None:
        return dict(written)
    device, after = device_of(system.chip.cell), np.float32(seconds)
    return {
        name: _age(device, conductance, after, jax.random.fold_in(key, index), stuck.get(name))
        for index, (name, conductance) in enumerate(written.items())
    }


def age_chips(
    system: System,
    written: Mapping[str, Array],
    seconds: float | None,
    keys: Array,
    stuck: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Array]:
    """As `age_chip`, of several chips at once: all arrays are [chips, ...]."""
    if seconds is None:
        return dict(written)
    device, after = device_of(system.chip.cell), np.float32(seconds)
    return {
        name: _age_each(device, conductance, after, keys, np.int32(index), stuck.get(name))
        for index, (name, conductance) in enumerate(written.items())
    }


def _age_one(device: Device, conductance: Array, seconds: Array, key: Array, stuck: Array | None) -> Array:
    traits = _traits(device, conductance.shape, key, stuck)
    return device.age(conductance, seconds, jax.random.fold_in(key, AGEING), traits)


_age = jit(_age_one, static_argnums=0)


@partial(jit, static_argnums=0)
def _age_each(
    device: Device, conductance: Array, seconds: Array, keys: Array, index: Array, stuck: Array | None
) -> Array:
    def one(conductance: Array, key: Array, stuck: Array | None) -> Array:
        return _age_one(device, conductance, seconds, jax.random.fold_in(key, index), stuck)

    return jax.vmap(one)(conductance, keys, stuck)


@jit
def fold_in_each(keys: Array, number: Array) -> Array:
    """Another key of each of a vector of keys."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def chips_at_once(state: State) -> int:
    """How many chips are programmed before they are evaluated: memory is bounded by the network, not by the chips."""
    of_one = sum(array.nbytes for array in state["conductance"].values())
    return max(POPULATION_BYTES // max(of_one, 1), 1)


def program_chip(
    system: System, state: State, key: Array, stuck: Mapping[str, np.ndarray] = MappingProxyType({})
) -> dict[str, Array]:
    """Conductances [devices, rows, columns] of the weights of every layer of a chip, written closed-loop.

    stuck: by layer what its stuck devices hold (`runtime.deployment.population.Request`).
    """
    device = device_of(system.chip.cell)
    return {
        name: _write(device, targets, jax.random.fold_in(key, index), stuck.get(name))
        for index, (name, targets) in enumerate(state["conductance"].items())
    }


def programmed_chip(
    system: System, state: State, key: Array, stuck: Mapping[str, np.ndarray] = MappingProxyType({})
) -> State:
    """The state of a chip with all that its arrays hold, written closed-loop; arguments of `program_chip`."""
    references = program_chip(system, references_of(system), jax.random.fold_in(key, REFERENCES))
    return {**state, "conductance": program_chip(system, state, key, stuck), "reference_column": references}


def references_of(system: System) -> State:
    """A state whose devices are those of the reference columns, by layer, for the functions here.

    Their keys are those of the chips with `REFERENCES` folded in.
    """
    return {"conductance": reference_targets(system)}


def program_layer(
    system: System,
    state: State,
    layer: str,
    key: Array,
    stuck: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Array:
    """One layer of `program_chip`: on the same chip, as its key says, with the same draws."""
    index = list(state["conductance"]).index(layer)
    targets = state["conductance"][layer]
    return _write(device_of(system.chip.cell), targets, jax.random.fold_in(key, index), stuck.get(layer))


def program_chips(
    system: System, state: State, keys: Array, stuck: Mapping[str, np.ndarray] = MappingProxyType({})
) -> dict[str, Array]:
    """As `program_chip`, of several chips at once: keys [chips], stuck and conductances [chips, ...]."""
    device = device_of(system.chip.cell)
    return {
        name: _write_each(device, targets, keys, np.int32(index), stuck.get(name))
        for index, (name, targets) in enumerate(state["conductance"].items())
    }


def _write_one(device: Device, targets: Array, key: Array, stuck: Array | None) -> Array:
    return device.write(targets, key, _traits(device, targets.shape, key, stuck)).conductance


_write = jit(_write_one, static_argnums=0)


@partial(jit, static_argnums=0)
def _write_each(device: Device, targets: Array, keys: Array, index: Array, stuck: Array | None) -> Array:
    def one(key: Array, stuck: Array | None) -> Array:
        return _write_one(device, targets, jax.random.fold_in(key, index), stuck)

    return jax.vmap(one)(keys, stuck)


def read_chips(system: System, held: Mapping[str, Array], keys: Array, number: int) -> dict[str, Array]:
    """What a tester reads of all devices, the mean of some reads, before that round of reprogramming; shapes and keys
    as of `program_chips`.
    """
    device = device_of(system.chip.cell)
    return {
        name: _read_each(device, conductance, keys, np.int32(index), np.int32(number))
        for index, (name, conductance) in enumerate(held.items())
    }


@partial(jit, static_argnums=0)
def _read_each(device: Device, conductance: Array, keys: Array, index: Array, number: Array) -> Array:
    def one(conductance: Array, key: Array) -> Array:
        read_key = jax.random.fold_in(jax.random.fold_in(key, index), READING + number)
        return device.read(conductance, read_key, READS)

    return jax.vmap(one)(conductance, keys)


def write_again(
    system: System,
    state: State,
    held: Mapping[str, Array],
    chosen: Mapping[str, np.ndarray],
    keys: Array,
    number: int,
    stuck: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Array]:
    """Conductances of chips after a round of reprogramming, of that number: the chosen devices are written closed-loop
    once more. Shapes, keys and stuck as of `program_chips`, whose chips they are.
    """
    device = device_of(system.chip.cell)
    return {
        name: _write_again_each(
            device, targets, held[name], chosen[name], keys, np.int32(index), np.int32(number), stuck.get(name)
        )
        for index, (name, targets) in enumerate(state["conductance"].items())
    }


@partial(jit, static_argnums=0)
def _write_again_each(
    device: Device,
    targets: Array,
    held: Array,
    chosen: Array,
    keys: Array,
    index: Array,
    number: Array,
    stuck: Array | None,
) -> Array:
    def one(held: Array, chosen: Array, key: Array, stuck: Array | None) -> Array:
        own = jax.random.fold_in(key, index)
        traits = _traits(device, targets.shape, own, stuck)
        written = device.write(targets, jax.random.fold_in(own, AGAIN + number), traits, held)
        return jnp.where(chosen, written.conductance, held)

    return jax.vmap(one)(held, chosen, keys, stuck)


def stuck_shares(system: System, state: State, keys: Array, stuck: Mapping[str, np.ndarray]) -> NDArray[np.float64]:
    """The share of each chip's devices that is stuck [chips]; arguments as `program_chips`."""
    device, count, total = device_of(system.chip.cell), np.zeros(len(keys)), 0
    for index, (name, targets) in enumerate(state["conductance"].items()):
        total += targets.size
        if name in stuck or "stuck" in device.trait_names:
            count += np.asarray(_count_stuck(device, targets, keys, np.int32(index), stuck.get(name)))
    return count / max(total, 1)


@partial(jit, static_argnums=0)
def _count_stuck(device: Device, targets: Array, keys: Array, index: Array, stuck: Array | None) -> Array:
    """How many of a layer's devices are stuck on each chip [chips]."""

    def one(key: Array, stuck: Array | None) -> Array:
        traits = _traits(device, targets.shape, jax.random.fold_in(key, index), stuck)
        return jnp.sum(~jnp.isnan(traits["stuck"]))

    return jax.vmap(one)(keys, stuck)


def _traits(device: Device, shape: tuple[int, ...], key: Array, stuck: Array | None) -> dict[str, Array]:
    """The traits of a layer's devices on the chip with that key; stuck: those of a fault map."""
    traits = device.traits(jax.random.fold_in(key, TRAITS), shape) if device.trait_names else {}
    return traits if stuck is None else {**traits, "stuck": stuck}
