"""Between the groups of the state, by layer, and what policies see: layers packed, with the further devices of a
policy.

A policy with tiles has the pairs that its writes go to in the group `main`, and its tiles' devices in groups of their
names. `conductance` then is what the network reads: the pairs that stand for the weights of all of them together.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.programming_counts import TILE_TRIALS
from runtime.devices.device import device_of
from runtime.system.state import State, System, draw_chip
from runtime.training.policies.policy import LayerState, Tile, UpdateRule
from runtime.training.vectors import Packing, pack, unpack

COUNTS = ("updates", "writes", "trials")  # of a run, by weight and by device
MAIN = "main"
IN_THE_MIDDLE = 0.5  # of the window: a tile's devices at first, where a pulse either way moves them alike


def trial_groups(rule: UpdateRule) -> tuple[str, ...]:
    """The groups of the state that count pulses and trials: of the pairs that are written, and of each tile."""
    return ("trials", *(f"{name}{TILE_TRIALS}" for name in rule.tiles))


def begin_memory(rule: UpdateRule, chip: Chip, state: State, key: Array) -> State:
    """The groups of the state with what the policy remembers at first."""
    new: State = {
        group: {name: jnp.zeros_like(a) for name, a in state["weight"].items()} for group in rule.policy.memory
    }
    if rule.policy.begin is None:
        return new
    for index, (name, weight) in enumerate(state["weight"].items()):
        own = jax.random.fold_in(key, index)
        begun = rule.policy.begin(rule.options, chip, weight.shape, state["weight_range"][name], own)
        for group, array in begun.items():
            new[group][name] = array
    return new


def packed_layers(rule: UpdateRule, chip: Chip, weights: Packing, state: State) -> tuple[LayerState, ...]:
    """The layers of a state, packed."""
    seen = "seen" in state
    names = ["weight", *COUNTS, *rule.policy.memory, *(("seen",) if seen else ()), *_tile_groups(rule, chip, seen)]
    groups = {name: pack(weights, state[name]) for name in names}
    held = pack(weights, state[MAIN if rule.tiles else "conductance"])
    layers = []
    for index in range(len(weights)):
        here = {name: vectors[index] for name, vectors in groups.items()}
        layers.append(
            LayerState(
                weight=here["weight"],
                memory={name: here[name] for name in rule.policy.memory},
                conductance=held[index],
                **{name: here[name] for name in COUNTS},
                seen=here.get("seen"),
                tiles={name: _tile(here, name, chip) for name in rule.tiles},
            )
        )
    return tuple(layers)


def unpacked_layers(rule: UpdateRule, chip: Chip, weights: Packing, layers: Sequence[LayerState]) -> State:
    """The groups of the state that a step changes, from the packed layers."""
    new: State = {group: unpack(weights, [getattr(layer, group) for layer in layers]) for group in ("weight", *COUNTS)}
    for group in rule.policy.memory:
        new[group] = unpack(weights, [layer.memory[group] for layer in layers])
    if seen := [layer.seen for layer in layers if layer.seen is not None]:  # no layer is packed where all are frozen
        new["seen"] = unpack(weights, seen)
    new["conductance"] = unpack(weights, what_is_read(rule, chip, layers))
    if rule.tiles:
        new[MAIN] = unpack(weights, [layer.conductance for layer in layers])
    for name in rule.tiles:
        tiles = [layer.tiles[name] for layer in layers]
        new[name] = unpack(weights, [tile.conductance for tile in tiles])
        new[f"{name}{TILE_TRIALS}"] = unpack(weights, [tile.trials for tile in tiles])
        if seen := [tile.seen for tile in tiles if tile.seen is not None]:
            new[f"{name}_seen"] = unpack(weights, seen)
    return new


def what_is_read(rule: UpdateRule, chip: Chip, layers: Sequence[LayerState]) -> list[Array]:
    """The conductances [2, ..] in uS that the network's products see, of each packed layer.

    With tiles one pair for the weight of all of them, its other device idle, within the window: the tiles are summed as
    if by one read of one pair.
    """
    if not rule.tiles or rule.policy.combine is None:
        return [layer.conductance for layer in layers]
    cell = chip.cell
    fractions = [jnp.clip(rule.policy.combine(rule.options, chip, layer), -1, 1) for layer in layers]
    return [cell.conductance_min_uS + cell.window_uS * chip.scheme.shares(fraction, False) for fraction in fractions]


def add_tiles(
    rule: UpdateRule,
    system: System,
    state: State,
    trials: Mapping[str, Array],
    key: Array,
    count: Callable[[str, Array], Array],
) -> tuple[State, dict[str, Array]]:
    """The state with the devices of the policy's tiles, all programmed to the middle of the window, and the trials.

    The pairs that the state holds become those that writes go to.

    Args:
        rule: the policy with its options.
        system: network and chip.
        state: before.
        trials: so far, by layer.
        key: for traits and programming errors.
        count: as of `runtime.system.state.program`, called for each layer of each tile.

    Raises:
        CimcError: a layer has an ADC of its own.
    """
    if not rule.tiles:
        return state, dict(trials)
    other = next((name for name, layer in system.crossbars.items() if layer.chip.adc != system.chip.adc), None)
    if other is not None:
        raise CimcError(
            f"--update {rule.policy.name} reads its devices by the ADC of the chip, and layer {other} has one of its "
            f"own; compile it without, or use --update mixed-precision"
        )
    device, cell = device_of(system.chip.cell), system.chip.cell
    state, trials = {**state, MAIN: state["conductance"]}, dict(trials)
    middle = cell.conductance_min_uS + IN_THE_MIDDLE * cell.window_uS
    for index, name in enumerate(rule.tiles):
        traits_key, write_key = jax.random.split(jax.random.fold_in(key, index))
        traits = draw_chip(system, state["conductance"], traits_key)
        state |= {f"{name}_{trait}": arrays for trait, arrays in traits.items()}
        state |= {name: {}, f"{name}{TILE_TRIALS}": {}, **({f"{name}_seen": {}} if "seen" in state else {})}
        for n, (layer, pairs) in enumerate(state["conductance"].items()):
            own = {trait: arrays[layer] for trait, arrays in traits.items()}
            written = device.write(jnp.full_like(pairs, middle), jax.random.fold_in(write_key, n), own)
            state[name][layer] = written.conductance
            state[f"{name}{TILE_TRIALS}"][layer] = jnp.zeros(pairs.shape, jnp.int32)
            trials[layer] += count(layer, written.trials)
            if "seen" in state:
                state[f"{name}_seen"][layer] = jnp.zeros_like(pairs) if written.seen is None else written.seen
    return state, trials


def _tile_groups(rule: UpdateRule, chip: Chip, seen: bool) -> list[str]:
    """The groups of the state that hold the tiles."""
    parts = [
        "",
        TILE_TRIALS,
        *(["_seen"] if seen else []),
        *(f"_{trait}" for trait in device_of(chip.cell).trait_names),
    ]
    return [f"{name}{part}" for name in rule.tiles for part in parts]


def _tile(groups: Mapping[str, Array], name: str, chip: Chip) -> Tile:
    traits = {trait: groups[f"{name}_{trait}"] for trait in device_of(chip.cell).trait_names}
    return Tile(groups[name], groups[f"{name}{TILE_TRIALS}"], traits, groups.get(f"{name}_seen"))
