"""One step of the devices: the policy wishes, the scheduler grants, devices are written, the policy settles."""

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from runtime.crossbar.xla import once
from runtime.devices.device import NONE, device_of
from runtime.devices.traits import Traits
from runtime.training.policies.policy import Change, LayerState, UpdateRule, Wish
from runtime.training.writes import Beside, grant, write_due


def update_layer(
    rule: UpdateRule,
    chip: Chip,
    layer: LayerState,
    change: Change,
    *,
    weight_range: Array,
    word_line: Array,
    key: Array,
    traits: Traits = NONE,
) -> LayerState:
    """Let a policy take a step: remember it, and program the devices that are due.

    Args:
        rule: the policy and its options.
        chip: the chip.
        layer: weights [..], devices [2, ..].
        change: what the step asks for [..].
        weight_range: scalar or [..]; targets stay within +-weight_range.
        word_line: of every weight [..] (`runtime.training.writes.word_lines`).
        key: for programming and read errors.
        traits: of the devices, each [2, ..] (`runtime.devices.traits`).
    """
    wish_key, write_key = jax.random.split(key)
    device = device_of(chip.cell)
    layer = layer._replace(
        conductance=device.leak(layer.conductance, traits),
        tiles={
            name: tile._replace(conductance=device.leak(tile.conductance, tile.traits))
            for name, tile in layer.tiles.items()
        },
    )
    wish = rule.policy.update(rule.options, chip, layer, change, weight_range, wish_key)
    wish = grant(wish, word_line)
    # The further devices of a policy are pulsed by itself; what is written here is the pair of each weight.
    tiles, wish = wish.tiles, wish._replace(tiles={})
    layer = layer._replace(memory=wish.memory, tiles={})

    def write(some: LayerState, wish: Wish, beside: Beside, key: Array) -> LayerState:
        return _write(rule, chip, some, wish, beside, key)

    layer = write_due(write, layer, wish, Beside(weight_range, traits), write_key)._replace(tiles=tiles)
    if rule.policy.combine is None:
        return layer
    return layer._replace(weight=rule.policy.combine(rule.options, chip, layer) * weight_range)


def _write(rule: UpdateRule, chip: Chip, layer: LayerState, wish: Wish, beside: Beside, key: Array) -> LayerState:
    """Write weights [..], those of them that are due, and let the policy settle."""
    write_key, settle_key, aim_key = jax.random.split(key, 3)
    device, weight_range, traits = device_of(chip.cell), beside.weight_range, beside.traits
    aim = rule.policy.aim(rule.options, chip, layer, wish, weight_range, aim_key)
    if aim.goal is None:
        assert aim.pulses is not None
        pulses = jnp.where(aim.selected, aim.pulses, 0)
        held, seen, trials = layer.conductance, layer.seen, jnp.abs(pulses).astype(jnp.int32)
        if aim.reset is not None:
            held = jnp.where(aim.reset, jnp.float32(chip.cell.conductance_min_uS), held)
            seen = None if seen is None else jnp.where(aim.reset, 0, seen)
            trials += aim.reset
        if seen is not None:
            traits = {**traits, "seen": seen}
            layer = layer._replace(seen=device.seen(seen, pulses, write_key))
        conductance = device.pulse(held, pulses, write_key, traits)
    else:
        written = once(device.write(aim.goal, write_key, traits, layer.conductance))
        conductance = jnp.where(aim.selected, written.conductance, layer.conductance)
        trials = jnp.where(aim.selected, written.trials, 0)
        if layer.seen is not None:
            layer = layer._replace(seen=jnp.where(aim.selected, 0, layer.seen))
    layer = layer._replace(
        conductance=device.wear(layer.conductance, conductance, layer.trials, trials, traits),
        updates=layer.updates + (wish.due & jnp.any(aim.selected, axis=0)),
        writes=layer.writes + aim.selected,
        trials=layer.trials + trials,
    )
    return rule.policy.settle(rule.options, chip, layer, wish, aim, weight_range, settle_key)
