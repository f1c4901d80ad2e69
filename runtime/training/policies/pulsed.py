"""What rules by blind pulses share: pulses of pairs, the fast devices that take the gradient, and their reads.

A pulse of a pair is a SET of one device and a RESET of the other. Of two equal soft-bounds devices the pair is one
again, with weights of both signs: its step is `pair_step` where both devices stand in the middle, and shrinks to 0 at
the ends of the weight range; a symmetric point lies where SET and RESET move it alike. Weights here are fractions of
the weight range, w = (G+ - G-) / window.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from cimc.errors import CimcError
from runtime.crossbar.xla import once
from runtime.devices.device import device_of
from runtime.devices.targets import weight_of
from runtime.training.policies.policy import Aim, Change, LayerState, Place, Tile, Wish
from runtime.training.policies.rounding import round_randomly

MOST_PULSES = 31  # of a device and step, the length of a usual pulse train
FORGET = 0.99  # of the running mean of the largest gradient (aihwkit's auto_scale)
PENDING = "pending"  # pulses that wait for the write scheduler, signed
SCALE = "scale"  # running mean of the largest gradient in a weight's layer
FAST = "fast"  # the tile of fast devices, of rules with one

# Fields of options.
Positive = Annotated[float, Field(gt=0)]
Pulses = Annotated[float, Field(gt=0, le=MOST_PULSES)]
Steps = Annotated[int, Field(ge=1)]


def check_pulsed(name: str, chip: Chip) -> None:
    """Raises CimcError for a chip without pairs of devices that take pulses both ways in steps."""
    pulse = chip.cell.pulse
    if not chip.scheme.has_pair:
        raise CimcError(
            f"the update policy {name} pulses pairs of devices, and {chip.name} holds a weight otherwise ([weights] of "
            "its file); use --update mixed-precision"
        )
    if pulse is None or pulse.directions != "both" or pulse.law_name == "binary":
        what = (
            "has no pulse response"
            if pulse is None
            else "has devices that pulses only raise"
            if pulse.directions != "both"
            else "has binary devices"
        )
        raise CimcError(
            f"the update policy {name} moves weights by pulses both ways in steps, and {chip.name} {what}; use "
            "--update mixed-precision, or a device with pulses such as soft-bounds-10"
        )


def pair_step(chip: Chip) -> float:
    """The mean step of a pulse of a pair in the middle, as a fraction of the weight range."""
    pulse = chip.cell.pulse
    assert pulse is not None
    return (pulse.step_uS + pulse.down_uS) / chip.cell.window_uS


def draw_pulses(mean: Array, key: Array) -> Array:
    """Whole pulses [..] whose mean is that [..], at most `MOST_PULSES` either way."""
    return round_randomly(jnp.clip(mean, -MOST_PULSES, MOST_PULSES), 1.0, key)


def pair_pulses(pulses: Array) -> Array:
    """Pulses of both devices [2, ..] for pulses of pairs [..]."""
    return jnp.stack([pulses, -pulses])


def held_weight(conductance: Array, chip: Chip) -> Array:
    """What pairs [2, ..] stand for [..]."""
    return weight_of(conductance, jnp.float32(1), chip)


def with_fast(gamma: float, chip: Chip, layer: LayerState) -> Array:
    """gamma A + W, of the fast devices A and those of the layer, as fractions of the weight range."""
    held = held_weight(layer.conductance, chip)
    return held + gamma * held_weight(layer.tiles[FAST].conductance, chip) if gamma else held


def pulse_tile(chip: Chip, tile: Tile, pulses: Array, key: Array) -> Tile:
    """The tile after that many pulses of its pairs [..]."""
    device, traits, both = device_of(chip.cell), tile.traits, pair_pulses(pulses)
    if tile.seen is not None:
        traits = {**traits, "seen": tile.seen}
        tile = tile._replace(seen=device.seen(tile.seen, both, key))
    moved, acts = device.pulse(tile.conductance, both, key, traits), jnp.abs(both).astype(jnp.int32)
    held = device.wear(tile.conductance, moved, tile.trials, acts, tile.traits)
    return tile._replace(conductance=held, trials=tile.trials + acts)


def read_weight(chip: Chip, conductance: Array, key: Array) -> Array:
    """What pairs [2, ..] are read to stand for [..], a word line at a time: by the read noise and steps of the ADC."""
    held = once(device_of(chip.cell).read(conductance, key))
    if chip.adc.bits is not None and chip.adc.range_uA is not None:
        code = chip.adc.range_uA / chip.top_code(False) / chip.cell.read_voltage_V
        held = jnp.round(held / code) * code
    return held_weight(held, chip)


def take_turn(change: Change, sweep: int, slower: int = 1) -> Array:
    """The weights [..] whose row is read in this step: each row once in `sweep` x `slower` steps, evenly spread."""
    place, period = place_of(change), sweep * slower
    # row * period // rows, digit by digit: the product itself does not fit in 32 bits for long periods.
    turn = rest = jnp.zeros_like(place.row)
    for digit in period.to_bytes((period.bit_length() + 7) // 8):
        rest = rest * 256 + place.row * digit
        turn, rest = turn * 256 + rest // place.rows, rest % place.rows
    return (change.number - turn) % period == 0


def draw_for_lines(change: Change, key: Array) -> Array:
    """A number from 0 to 1 for each weight [..], by chance, the same along a word line."""
    mixed = place_of(change).word_line.astype(jnp.uint32) * jnp.uint32(0x9E3779B1) ^ jax.random.bits(
        key, (), jnp.uint32
    )
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of MurmurHash3
        mixed = (mixed ^ mixed >> shift) * jnp.uint32(factor)
    return (mixed ^ mixed >> 16).astype(jnp.float32) / jnp.float32(2**32)


def place_of(change: Change) -> Place:
    """Where the weights lie."""
    if change.place is None:
        raise ValueError("the policy reads rows in turn; give the places of the weights")
    return change.place


def pulse_gradient(
    chip: Chip, layer: LayerState, tile: Tile, change: Change, *, most: float, key: Array, chopper: Array | float = 1.0
) -> tuple[Tile, Array]:
    """The tile after pulses against the gradient, and the running mean of the layer's largest gradient [..].

    The mean number of pulses is `most` x gradient / that mean (aihwkit's auto_scale), times the chopper.
    """
    before = layer.memory[SCALE]
    scale = jnp.where(before > 0, FORGET * before + (1 - FORGET) * change.largest_gradient, change.largest_gradient)
    mean = -most * change.gradient / jnp.maximum(scale, jnp.finfo(jnp.float32).tiny) * chopper
    draw_key, pulse_key = jax.random.split(key)
    return pulse_tile(chip, tile, draw_pulses(mean, draw_key), pulse_key), jnp.broadcast_to(scale, before.shape)


def aim_pending(options: object, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """The pulses that wait, of pairs."""
    pulses = pair_pulses(jnp.where(wish.due, wish.memory[PENDING], 0))
    return Aim(None, pulses, pulses != 0, wish.base, wish.base)


def settle_pending(
    options: object, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """The pulses that were given wait no longer."""
    return layer._replace(memory={**wish.memory, PENDING: jnp.where(wish.due, 0, wish.memory[PENDING])})
