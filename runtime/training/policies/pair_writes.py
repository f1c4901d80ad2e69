"""Writes of devices towards a digital copy and an accumulator: what rules share that keep both (arXiv 2305.14547).

The active device of a pair takes what is missing given what the idle one was read to hold. After a write the digital
copy becomes the target, is read back, or is left alone, and what the write left undone may stay in the accumulator.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.chip_cell import MOST_STEP
from cimc.device_pulse import Binary
from cimc.errors import CimcError
from cimc.options import Residual, Sync, Write, sync_of
from runtime.crossbar.figures import figure
from runtime.crossbar.xla import once
from runtime.devices.device import device_of
from runtime.devices.pulse_laws import bounds_uS
from runtime.devices.pulse_plan import staircase
from runtime.devices.targets import device_targets, weight_of
from runtime.training.policies.policy import Aim, LayerState, Wish
from runtime.training.policies.rounding import round_randomly

ACCUMULATOR = "accumulator"
# Of what a write missed, at most this part of the threshold stays in the accumulator: a device that cannot reach its
# goal (stuck, or beside one that is) is not due again until the network asks for as much more.
KEPT_MISS = 0.5
HEADROOM = 2.0  # thresholds that an accumulator of few bits holds: a due weight may have to wait
NO_ROOM = 0.5  # of the window
SWITCHES = 0.5  # of the weight range: where a binary device stands for the nearer of its two states
# Origins of a granularity that the description of a device states (`Cell.granularity_origin`).
STATED = ("stated", "one level", "smallest level")


@dataclass(frozen=True)
class PairWrites:
    """How a rule writes.

    threshold: fraction of the weight range; None: the cell's granularity (`Cell.granularity`), or one blind pulse.
    residual: what stays in the accumulator after a write: nothing (drop), or what the write left undone (keep): the
    part of a pulse or of a level, and with `readback` the error of the device as it was read, up to half a threshold.
    write: closed-loop write-verify to the target, or blind pulses. sync: the digital copy becomes the target, or is
    read back from the device, or is left alone (`none`: targets then start from a read of the device); auto: `sync_of`.
    accumulator_bits: of a signed fixed-point accumulator from -2 to 2 thresholds, into which steps are rounded
    stochastically; None: float32.
    """

    threshold: float | None = None
    residual: Residual = Residual.keep
    write: Write = Write.verify
    sync: Sync = Sync.auto
    accumulator_bits: int | None = None


def check(writes: PairWrites, chip: Chip) -> None:
    """Raises CimcError for options that do not fit the chip."""
    if writes.write == "pulse" and not chip.scheme.has_pair:
        raise CimcError(
            f"blind pulses need a weight in one pair of devices, and {chip.name} holds it otherwise "
            f"([weights] of its file); use --write verify"
        )
    if writes.write == "pulse" and chip.cell.pulse is None:
        raise CimcError(f"chip {chip.name} has no pulse response; add [cell.pulse] or use --write verify")
    if writes.write == "pulse" and one_sided(chip) and writes.sync == "target":
        raise CimcError(
            f"pulses only raise the devices of {chip.name}, and only a read tells when a pair has no room left; "
            f"use --sync readback, or --write verify"
        )
    # A weight moves by at most its range, or half a level more; it is due beyond the threshold.
    if not 0 <= threshold(writes, chip) < reach(writes, chip):
        stated = writes.threshold is not None
        at = f"{threshold(writes, chip):g}"
        given = f"--threshold {at}" if stated else f"the granularity of the device, {at} of the weight range,"
        raise CimcError(
            f"{given} is not a fraction of the weight range that a weight can pass on {chip.name}; "
            f"give {'one' if stated else '--threshold'} from 0 to below {reach(writes, chip):.3g}"
        )
    if writes.accumulator_bits is not None and threshold(writes, chip) == 0:
        raise CimcError("an accumulator of some bits has its scale from the threshold; give --threshold above 0")


def synchronised(writes: PairWrites, chip: Chip) -> Sync:
    """What the digital copy becomes after a write on that chip."""
    return sync_of(writes.sync, writes.write, chip.cell)


def one_sided(chip: Chip) -> bool:
    """Whether blind pulses only raise the chip's devices, so that pairs are refreshed."""
    return chip.cell.pulse is not None and chip.cell.pulse.directions == "up"


def threshold(writes: PairWrites, chip: Chip) -> float:
    """Threshold as a fraction of the weight range; of blind pulses one pulse, where no granularity is stated."""
    cell = chip.cell
    if writes.threshold is not None:
        return writes.threshold
    if writes.write == "pulse" and isinstance(cell.pulse, Binary):
        return SWITCHES
    if writes.write == "pulse" and cell.pulse is not None and cell.granularity_origin not in STATED:
        return min(max(cell.pulse.step_uS, cell.pulse.down_uS) / cell.window_uS, MOST_STEP)
    return chip.weight_granularity


def reach(writes: PairWrites, chip: Chip) -> float:
    """The largest weight that a pair can be asked to hold, as a fraction of the weight range.

    With levels that is half a level beyond the last one, which it still stands for: else the step to it would never be
    complete. Blind pulses that slow down towards the bound are asked for up to half a step before it.
    """
    cell, levels = chip.cell, chip.cell.programmable_uS
    if not chip.scheme.has_pair:
        return 1.0 + (chip.weight_step or 0.0) / 2
    if writes.write == "pulse" and isinstance(cell.pulse, Binary):
        return 1.0
    if writes.write == "pulse" and cell.pulse is not None and cell.pulse.law_name != "linear":
        low, _ = bounds_uS(cell)
        return min((staircase(cell, up=True).end - (cell.conductance_min_uS - low)) / cell.window_uS, 1.0)
    if levels is None:
        return 1.0
    return (levels[-1] - levels[0] + (levels[-1] - levels[-2]) / 2) / cell.window_uS


def accumulate(
    writes: PairWrites,
    chip: Chip,
    layer: LayerState,
    step: Array,
    weight_range: Array,
    threshold: float,
    key: Array,
) -> Wish:
    """Accumulate; due are the weights whose accumulated change is beyond that threshold, a fraction of the range."""
    base, held = layer.weight, None
    if synchronised(writes, chip) == "none":
        held = once(device_of(chip.cell).read(layer.conductance, key))
        base = weight_of(held, weight_range, chip)
    # What lies beyond the range can never be programmed and must not keep a device due for ever.
    edge, limit = weight_range * min(reach(writes, chip), 1.0), weight_range * reach(writes, chip)
    base = jnp.clip(base, -edge, edge)
    total = layer.memory[ACCUMULATOR] + step
    if writes.accumulator_bits is not None:
        most = figure(HEADROOM * threshold) * weight_range
        unit = most / 2 ** (writes.accumulator_bits - 1)
        total = jnp.clip(round_randomly(total, unit, jax.random.fold_in(key, 2)), -most, most)
    total = jnp.clip(total, -limit - base, limit - base)
    due = jnp.abs(total) > figure(threshold) * weight_range
    return Wish(due, base, held, {ACCUMULATOR: total})


def aim(
    writes: PairWrites,
    chip: Chip,
    layer: LayerState,
    wish: Wish,
    weight_range: Array,
    threshold: float,
    key: Array,
    chance: Array | None = None,
) -> Aim:
    """Goals, or whole pulses, towards base + accumulator.

    threshold: at which weights are due. chance: rounds pulses, as of `runtime.devices.pulse_plan.plan_pulses`.
    """
    total, held = wish.memory[ACCUMULATOR], wish.held
    wanted = wish.base + total
    if synchronised(writes, chip) == "readback":
        held = once(device_of(chip.cell).read(layer.conductance, key))
    if writes.write == "pulse":
        pulses, aimed = device_of(chip.cell).plan(total, wish.base, weight_range=weight_range, held=held, chance=chance)
        reset = None
        if one_sided(chip):
            assert held is not None  # see `check`
            reset = device_of(chip.cell).full_pairs(held) & wish.due
            # Both devices idle, the whole weight is written anew.
            idle = jnp.full_like(held, chip.cell.conductance_min_uS)
            anew, at = device_of(chip.cell).plan(wanted, jnp.zeros_like(wanted), weight_range=weight_range, held=idle)
            pulses, aimed = jnp.where(reset, anew, pulses), jnp.where(reset, at, aimed)
        pulses = jnp.where(wish.due, pulses, 0)
        selected = pulses != 0 if reset is None else (pulses != 0) | reset
        return Aim(None, pulses, selected, wanted, aimed, reset)
    goal, moves = _goals(chip, wish.base, wanted, weight_range, held, threshold)
    aimed = wanted
    if chip.weight_step is not None:  # a device that is left alone counts as it is
        aimed = weight_of(goal if held is None else jnp.where(moves, goal, held), weight_range, chip)
    return Aim(goal, None, wish.due & moves, wanted, aimed)


def settle(
    writes: PairWrites, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """After the write: the digital copy as `sync` says, and what the write left undone in the accumulator."""
    due = wish.due & jnp.any(aim.selected, axis=0)
    weight, missed = layer.weight, jnp.float32(0)
    sync = synchronised(writes, chip)
    if sync == "target":
        weight = jnp.where(due, aim.aimed, weight)
    elif sync == "readback":
        read = once(device_of(chip.cell).read(layer.conductance, key))
        weight = jnp.where(due, weight_of(read, weight_range, chip), weight)
        missed = aim.aimed - weight
    kept = _kept(writes, chip, aim.wanted - aim.aimed, missed, weight_range)
    accumulator = jnp.where(due, kept, wish.memory[ACCUMULATOR])
    return layer._replace(weight=weight, memory={ACCUMULATOR: accumulator})


def forgetting(layer: LayerState) -> LayerState:
    """The layer with nothing in its accumulator: what was not granted in its step is lost."""
    return layer._replace(memory={ACCUMULATOR: jnp.zeros_like(layer.memory[ACCUMULATOR])})


def _kept(writes: PairWrites, chip: Chip, rest: Array, missed: Array, weight_range: Array) -> Array:
    """What stays in the accumulators of written pairs [..].

    Args:
        writes: of the policy.
        chip: the chip.
        rest: of what was wanted, what the write did not aim at: part of a pulse, or of a level [..].
        missed: of what it aimed at, what the pair does not hold as it was read [..] or 0.
        weight_range: scalar or [..].
    """
    if writes.residual == "drop":
        return jnp.zeros_like(rest)
    most = KEPT_MISS * threshold(writes, chip)
    if writes.write == "pulse":
        return rest + _within(missed, figure(most) * weight_range)
    # What is missed makes no weight due again by itself; part of a level, which no write can take, is kept whole.
    half_level = (chip.weight_step or 0.0) / 2
    if most < half_level * (1 - 1e-6):
        missed = _within(missed, figure(most) * weight_range)
    return _within(rest + missed, figure(max(most, half_level)) * weight_range)


def _within(array: Array, limit: Array) -> Array:
    return jnp.clip(array, -limit, limit)


def _goals(
    chip: Chip, base: Array, target: Array, weight_range: Array, held: Array | None, threshold: float
) -> tuple[Array, Array]:
    """Target conductances of due pairs [2, ..] in uS, and which of their devices are written.

    The active device takes what is missing given what the other one was read to hold (`held`, None: taken to be idle):
    an idle device that is off is made up for, not fought with for ever. An idle device is touched only when the sign
    changes, or when it is off by more than a threshold (at most `NO_ROOM`) and leaves the active one no room.
    """
    goal = device_targets(target, weight_range, chip)
    # A device that is idle before and after, or whose target stays, is not touched: the weight accumulates on.
    moves = goal != device_targets(base, weight_range, chip)
    if held is None or not chip.scheme.has_pair:
        return goal, moves
    active = jnp.stack([target >= 0, target < 0])
    # What the other device holds, of the window, less what a write of this one adds on average.
    adds = chip.cell.error_mean_uS(goal)
    adds = adds if chip.cell.programming.follows_state else figure(adds)
    least, width = figure(chip.cell.conductance_min_uS), figure(chip.cell.window_uS)
    off = (held[::-1] - least - adds) / width
    fraction = jnp.abs(target) / weight_range + off
    no_room = active & (fraction > 1) & (off > figure(min(threshold, NO_ROOM)))
    moves |= no_room[::-1] & jnp.any(moves, axis=0)
    makes_up = active & ~moves[::-1]
    goal = jnp.where(makes_up, device_targets(fraction, jnp.float32(1), chip)[0], goal)
    if chip.cell.programmable_uS is not None:  # a device that holds its level is left alone, or it is due for ever
        holds = (held - least) / width
        moves &= goal != device_targets(holds, jnp.float32(1), chip)[0]
    return goal, moves
