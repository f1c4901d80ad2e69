"""One step of the devices: the policy wishes, the scheduler grants, devices are written, the policy settles."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from runtime.crossbar.xla import once
from runtime.devices.device import device_of
from runtime.devices.traits import Traits
from runtime.training.policies.policy import Change, LayerState, Tile, UpdateRule, Wish
from runtime.training.row_writes import PHASES, Lines
from runtime.training.writes import Beside, Scheduled, Scheduler, grant, settle_schedule, strip_of, write_due


def update_layers(
    rule: UpdateRule,
    chip: Chip,
    layers: Sequence[LayerState],
    changes: Sequence[Change],
    *,
    ranges: Sequence[Array],
    traits: Sequence[Traits],
    lines: Lines,
    scheduler: Scheduler,
    schedule: Scheduled,
    key: Array,
) -> tuple[tuple[LayerState, ...], Scheduled]:
    """Let a policy take a step: remember it, and program the devices that are due as far as they are granted.

    Args:
        rule: the policy and its options.
        chip: the chip.
        layers: or vectors of several; each weights [..], devices [2, ..].
        changes: what the step asks of each [..].
        ranges: of each, scalar or [..]; targets stay within +-range.
        traits: of the devices of each, [2, ..] (`runtime.devices.traits`).
        lines: the word line of every weight.
        scheduler: what may be written in a step.
        schedule: totals of the steps before.
        key: for programming and read errors.
    """
    keys = [jax.random.split(jax.random.fold_in(key, index)) for index in range(len(layers))]
    wished = [
        _wish(rule, chip, layer, changes[index], ranges[index], traits[index], keys[index][0])
        for index, layer in enumerate(layers)
    ]
    due = [wish.due for _, wish in wished]
    granted = grant([wish for _, wish in wished], ranges, lines, scheduler, schedule)
    longest = jnp.zeros((PHASES, len(lines.layer)), jnp.int32)
    of_tiles = dict.fromkeys(rule.tiles, longest)
    strip = strip_of(rule, chip)

    def write(some: LayerState, wish: Wish, beside: Beside, key: Array) -> tuple[LayerState, Array]:
        return _write(rule, chip, some, wish, beside, key)

    written = []
    for index, (layer, _) in enumerate(wished):
        beside = Beside(ranges[index], traits[index], lines.line[index])
        # The further devices of a policy are pulsed by itself; what is written here is the pair of each weight.
        tiles, wish = granted[index].tiles, granted[index]._replace(tiles={})
        of_tiles = {
            name: at.at[:, lines.line[index].reshape(wish.due.shape)].max(_taken(layer.tiles[name], tiles[name]))
            for name, at in of_tiles.items()
        }
        layer, longest = write_due(write, layer._replace(tiles={}), wish, beside, longest, keys[index][1], strip)
        layer = layer._replace(tiles=tiles)
        if rule.policy.combine is not None:
            read = jnp.clip(rule.policy.combine(rule.options, chip, layer), -1, 1)  # as `what_is_read` has it
            layer = layer._replace(weight=read * ranges[index])
        written.append(layer)
    of_pairs = jnp.stack([longest, *of_tiles.values()])
    return tuple(written), settle_schedule(schedule, scheduler, lines, of_pairs, due, [wish.due for wish in granted])


def _taken(before: Tile, after: Tile) -> Array:
    """The pulses that each pair of a tile took [..]: so many SET of one device, as many RESET of the other."""
    return jnp.max(after.trials - before.trials, axis=0)


def _wish(
    rule: UpdateRule, chip: Chip, layer: LayerState, change: Change, weight_range: Array, traits: Traits, key: Array
) -> tuple[LayerState, Wish]:
    """A layer whose devices have leaked and whose memory has the step in it, and what it should write."""
    device = device_of(chip.cell)
    layer = layer._replace(
        conductance=device.leak(layer.conductance, traits),
        tiles={
            name: tile._replace(conductance=device.leak(tile.conductance, tile.traits))
            for name, tile in layer.tiles.items()
        },
    )
    wish = rule.policy.update(rule.options, chip, layer, change, weight_range, key)
    return layer._replace(memory=wish.memory), wish


def _write(
    rule: UpdateRule, chip: Chip, layer: LayerState, wish: Wish, beside: Beside, key: Array
) -> tuple[LayerState, Array]:
    """Write weights [..], those of them that are due, and let the policy settle.

    Returns:
        The layer, and the SET and RESET pulses (or trials) of the longer device of each weight [2, ..].
    """
    write_key, settle_key, aim_key = jax.random.split(key, 3)
    device, weight_range, traits = device_of(chip.cell), beside.weight_range, beside.traits
    aim = rule.policy.aim(rule.options, chip, layer, wish, weight_range, aim_key)
    if aim.goal is None:
        assert aim.pulses is not None
        pulses = jnp.where(aim.selected, aim.pulses, 0)
        held, seen, trials = layer.conductance, layer.seen, jnp.abs(pulses).astype(jnp.int32)
        up, first_resets = pulses > 0, jnp.int32(0)
        if aim.reset is not None:
            held = jnp.where(aim.reset, jnp.float32(chip.cell.conductance_min_uS), held)
            seen = None if seen is None else jnp.where(aim.reset, 0, seen)
            first_resets = aim.reset.astype(jnp.int32)
        if seen is not None:
            traits = {**traits, "seen": seen}
            layer = layer._replace(seen=device.seen(seen, pulses, write_key))
        conductance = device.pulse(held, pulses, write_key, traits)
    else:
        if layer.seen is not None:
            traits = {**traits, "seen": layer.seen}
        written = once(device.write(aim.goal, write_key, traits, layer.conductance))
        conductance = jnp.where(aim.selected, written.conductance, layer.conductance)
        trials, first_resets = jnp.where(aim.selected, written.trials, 0), jnp.int32(0)
        up = aim.goal > layer.conductance
        if layer.seen is not None:
            left = jnp.float32(0) if written.seen is None else written.seen
            layer = layer._replace(seen=jnp.where(aim.selected, left, layer.seen))
    longest = jnp.stack(
        [jnp.max(jnp.where(up, trials, 0), axis=0), jnp.max(jnp.where(up, 0, trials), axis=0) + first_resets]
    )
    trials += first_resets
    layer = layer._replace(
        conductance=device.wear(layer.conductance, conductance, layer.trials, trials, traits),
        updates=layer.updates + (wish.due & jnp.any(aim.selected, axis=0)),
        writes=layer.writes + aim.selected,
        trials=layer.trials + trials,
    )
    return rule.policy.settle(rule.options, chip, layer, wish, aim, weight_range, settle_key), longest
