"""The update policy: what an optimiser step does to the devices.

mixed-precision   acc += step; where |acc| > threshold the device is programmed (arXiv 2305.14547, section 3)
naive             threshold 0 and nothing kept: every step is programmed (the ablation)
float             the weights themselves are changed, no device is touched (the baseline)
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.options import Backward, Method, Residual, Sync, Write, check_choice, check_number
from cimc.units import pair_targets, pair_weight
from runtime.devices.cells import blind_pulses, read_cells, write_verify
from runtime.training.vectors import STRIP

# Of what a write missed, at most this part of the threshold stays in the accumulator: a device that cannot reach its
# goal (stuck, or beside one that is) is not due again until the network asks for as much more.
KEPT_MISS = 0.5
NO_ROOM = 0.5  # of the window
SMALL = 4096  # weights: below, programming all of them is as quick as finding those that are due
STRIPS_A_ROUND = 64  # the part of all strips that a round programs; with a few due weights in a thousand one is enough


@dataclass(frozen=True)
class Policy:
    """Options of the update.

    method: as above. threshold: fraction of the weight range; None: the cell's granularity (`Cell.granularity`).
    residual: what stays in the accumulator after a write: nothing (drop), or what the write left undone (keep): the
    part of a pulse or of a level, and with `readback` the error of the device as it was read, up to half a threshold.
    write: closed-loop write-verify to the target, or blind pulses. sync: the digital copy becomes the target, or is
    read back from the device, or is left alone (`none`: targets then start from a read of the device).
    backward: input gradients from the digital copy or from a transposed read of the arrays.
    """

    method: Method = Method.mixed_precision
    threshold: float | None = None
    residual: Residual = Residual.keep
    write: Write = Write.verify
    backward: Backward = Backward.digital
    sync: Sync = Sync.readback

    def __post_init__(self) -> None:
        """Names of choices become the choices. Raises CimcError for a value that is none."""
        choices = {"method": Method, "residual": Residual, "write": Write, "backward": Backward, "sync": Sync}
        for field, kind in choices.items():
            object.__setattr__(self, field, check_choice(kind, field, getattr(self, field)))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", check_number("--threshold", self.threshold, least=0))

    def check(self, chip: Chip) -> None:
        """Raises CimcError for options that do not fit together or the chip."""
        if self.write == "pulse" and chip.cell.pulse is None:
            raise CimcError(f"chip {chip.name} has no pulse response; add [cell.pulse] or use --write verify")
        if self.write == "pulse" and self.method == "naive":
            raise CimcError("--method naive programs every step, which blind pulses cannot; use --write verify")
        if self.sync == "none" and self.backward == "digital":
            raise CimcError("--sync none leaves no digital copy for the backward pass; add --backward analog")
        # A weight moves by at most its range, or half a level more; it is due beyond the threshold.
        if self.threshold is not None and not 0 <= self.threshold < _reach(chip):
            raise CimcError(
                f"--threshold {self.threshold:g} is not a fraction of the weight range that a weight can pass on "
                f"{chip.name}; give one from 0 to below {_reach(chip):.3g}"
            )

    def threshold_for(self, chip: Chip) -> float:
        """Threshold as a fraction of the weight range."""
        if self.method == "naive":
            return 0.0
        return chip.cell.granularity if self.threshold is None else self.threshold


class LayerState(NamedTuple):
    """A layer's part of the state (`runtime.system.state`), or several layers' in one (`runtime.training.vectors`)."""

    weight: Array
    accumulator: Array
    conductance: Array
    updates: Array
    writes: Array
    trials: Array


def update_layer(
    policy: Policy, chip: Chip, layer: LayerState, step: Array, weight_range: Array, key: Array
) -> LayerState:
    """Accumulate an optimiser step and program the devices that are due.

    Args:
        policy: the options.
        chip: the chip.
        layer: weights [..], devices [2, ..].
        step: weight update of the optimiser [..].
        weight_range: scalar or [..]; targets stay within +-weight_range.
        key: for programming and read errors.
    """
    if policy.method == "float":
        weight = layer.weight + step
        return layer._replace(weight=weight)
    read_key, program_key = jax.random.split(key)
    base, held = layer.weight, None
    if policy.sync == "none":
        held = jax.lax.optimization_barrier(read_cells(layer.conductance, chip.cell, read_key))
        base = pair_weight(held, weight_range, chip)
    # What lies beyond the range can never be programmed and must not keep a device due for ever.
    base = jnp.clip(base, -weight_range, weight_range)
    limit = weight_range * _reach(chip)
    total = jnp.clip(layer.accumulator + step, -limit - base, limit - base)
    due = jnp.abs(total) > policy.threshold_for(chip) * weight_range
    layer = layer._replace(accumulator=total)
    if total.size < SMALL or total.size % STRIP:
        return _program(policy, chip, layer, base, held, due, weight_range, program_key)
    return _program_in_strips(policy, chip, layer, base, held, due, weight_range, program_key)


def _reach(chip: Chip) -> float:
    """The largest weight that a pair can be asked to hold, as a fraction of the weight range.

    With levels that is half a level beyond the last one, which it still stands for: else the step to it would never be
    complete.
    """
    levels = chip.cell.programmable_uS
    if levels is None:
        return 1.0
    return (levels[-1] - levels[0] + (levels[-1] - levels[-2]) / 2) / chip.cell.window_uS


def _program_in_strips(
    policy: Policy,
    chip: Chip,
    layer: LayerState,
    base: Array,
    held: Array | None,
    due: Array,
    weight_range: Array,
    key: Array,
) -> LayerState:
    """`_program` where weights are due only, usually a few in ten thousand: errors are drawn for their strips alone.

    A strip is `STRIP` consecutive weights. There are as many rounds as the due strips need.
    """
    strips = due.size // STRIP
    a_round = max(strips // STRIPS_A_ROUND, 16)

    axes = due.ndim

    def in_strips(array: Array) -> Array:
        return array.reshape(*array.shape[: array.ndim - axes], strips, STRIP)

    shapes = [array.shape for array in layer]
    layer, base, held, due = jax.tree.map(in_strips, (layer, base, held, due))
    ranges = in_strips(weight_range) if weight_range.ndim else weight_range
    count = jnp.cumsum(jnp.any(due, axis=1).astype(jnp.int32))

    def program(n: Array, layer: LayerState) -> LayerState:
        # The places of the next due strips; past the last one, a place that is none.
        nth = n * a_round + jnp.arange(1, a_round + 1, dtype=jnp.int32)
        places = jnp.searchsorted(count, nth, method="scan_unrolled")
        some = LayerState(*(array.at[..., places, :].get(mode="clip") for array in layer))
        due_here = due.at[places].get(mode="fill", fill_value=False)
        base_here = base.at[places].get(mode="clip")
        held_here = None if held is None else held.at[..., places, :].get(mode="clip")
        range_here = ranges.at[places].get(mode="clip") if ranges.ndim else ranges
        done = _program(policy, chip, some, base_here, held_here, due_here, range_here, jax.random.fold_in(key, n))
        return LayerState(
            *(
                array.at[..., places, :].set(new, mode="drop", unique_indices=True, indices_are_sorted=True)
                for array, new in zip(layer, done, strict=True)
            )
        )

    rounds = (count[-1] + a_round - 1) // a_round
    layer = jax.lax.fori_loop(0, rounds, program, layer)
    return LayerState(*(array.reshape(shape) for array, shape in zip(layer, shapes, strict=True)))


def _program(
    policy: Policy,
    chip: Chip,
    layer: LayerState,
    base: Array,
    held: Array | None,
    due: Array,
    weight_range: Array,
    key: Array,
) -> LayerState:
    """Program the devices of due weights towards base + accumulator.

    Args:
        policy: the options.
        chip: the chip.
        layer: weights and accumulators [..] with the step in them, devices [2, ..].
        base: what the digital side takes the weights to be [..].
        held: what the devices were read to hold [2, ..]; None: not read, or to be read here (`readback`).
        due: [..].
        weight_range: scalar or [..].
        key: for programming and read errors.
    """
    write_key, sync_key, read_key = jax.random.split(key, 3)
    total = layer.accumulator
    wanted = base + total
    # Barriers here and below: without them XLA draws the errors again for each of their users.
    if policy.sync == "readback":
        held = jax.lax.optimization_barrier(read_cells(layer.conductance, chip.cell, read_key))
    if policy.write == "verify":
        goal, moves = _goals(policy, chip, base, wanted, weight_range, held)
        selected = due & moves
        due &= jnp.any(selected, axis=0)
        written = jax.lax.optimization_barrier(write_verify(goal, chip.cell, write_key))
        conductance = jnp.where(selected, written.conductance, layer.conductance)
        trials = jnp.where(selected, written.trials, 0)
        aimed = wanted
        if chip.cell.programmable_uS is not None:  # a device that is left alone counts as it is
            aimed = pair_weight(goal if held is None else jnp.where(moves, goal, held), weight_range, chip)
    else:
        pulses, aimed = _pulses(chip, base, total, weight_range, held)
        pulses = jnp.where(due, pulses, 0)
        selected = pulses != 0
        due &= jnp.any(selected, axis=0)
        conductance = blind_pulses(layer.conductance, pulses, chip.cell, write_key)
        trials = jnp.abs(pulses).astype(jnp.int32)
    weight, missed = layer.weight, jnp.float32(0)
    if policy.sync == "target":
        weight = jnp.where(due, aimed, weight)
    elif policy.sync == "readback":
        read = jax.lax.optimization_barrier(read_cells(conductance, chip.cell, sync_key))
        weight = jnp.where(due, pair_weight(read, weight_range, chip), weight)
        missed = aimed - weight
    kept = _kept(policy, chip, wanted - aimed, missed, weight_range)
    accumulator = jnp.where(due, kept, total)
    return LayerState(
        weight=weight,
        accumulator=jnp.zeros_like(total) if policy.method == "naive" else accumulator,
        conductance=conductance,
        updates=layer.updates + due,
        writes=layer.writes + selected,
        trials=layer.trials + trials,
    )


def _kept(policy: Policy, chip: Chip, rest: Array, missed: Array, weight_range: Array) -> Array:
    """What stays in the accumulators of written pairs [..].

    Args:
        policy: the options.
        chip: the chip.
        rest: of what was wanted, what the write did not aim at: part of a pulse, or of a level [..].
        missed: of what it aimed at, what the pair does not hold as it was read [..] or 0.
        weight_range: scalar or [..].
    """
    if policy.residual == "drop":
        return jnp.zeros_like(rest)
    most = KEPT_MISS * policy.threshold_for(chip)
    if policy.write == "pulse":
        return rest + jnp.clip(missed, -most * weight_range, most * weight_range)
    # Both together stay below a threshold, or they would make the weight due again by themselves.
    limit = max(most, chip.cell.largest_spacing / 2) * weight_range
    return jnp.clip(rest + missed, -limit, limit)


def _goals(
    policy: Policy, chip: Chip, base: Array, target: Array, weight_range: Array, held: Array | None
) -> tuple[Array, Array]:
    """Target conductances of due pairs [2, ..] in uS, and which of their devices are written.

    The active device takes what is missing given what the other one was read to hold (`held`, None: taken to be idle):
    an idle device that is off is made up for, not fought with for ever. An idle device is touched only when the sign
    changes, or when it is off by more than a threshold (at most `NO_ROOM`) and leaves the active one no room.
    """
    goal = pair_targets(target, weight_range, chip)
    # A device that is idle before and after, or whose target stays, is not touched: the weight accumulates on.
    moves = goal != pair_targets(base, weight_range, chip)
    if held is None:
        return goal, moves
    active = jnp.stack([target >= 0, target < 0])
    # What the other device holds, of the window, less what a write of this one adds on average.
    off = (held[::-1] - chip.cell.conductance_min_uS - chip.cell.error_mean_uS(goal)) / chip.cell.window_uS
    fraction = jnp.abs(target) / weight_range + off
    no_room = active & (fraction > 1) & (off > min(policy.threshold_for(chip), NO_ROOM))
    moves |= no_room[::-1] & jnp.any(moves, axis=0)
    makes_up = active & ~moves[::-1]
    goal = jnp.where(makes_up, pair_targets(fraction, jnp.float32(1), chip)[0], goal)
    if (
        chip.cell.programmable_uS is not None
    ):  # a device that holds its level is left alone, or it would be for ever due
        holds = (held - chip.cell.conductance_min_uS) / chip.cell.window_uS
        moves &= goal != pair_targets(holds, jnp.float32(1), chip)[0]
    return goal, moves


def _pulses(chip: Chip, base: Array, total: Array, weight_range: Array, held: Array | None) -> tuple[Array, Array]:
    """Whole pulses for G+ and G- [2, ..], and the weight [..] they aim at.

    trunc(acc / step) pulses (Nandakumar et al. 2020). An increase first takes G- down to its minimum, then G+ up; a
    decrease the reverse, so that the idle device of a pair stays at G_min. A device takes no more pulses than lead to
    its bound, from where it was read to be (`held`) or, with None, from where the digital copy has it.
    """
    assert chip.cell.pulse is not None
    cell, step_uS = chip.cell, chip.cell.pulse.step_uS
    step = step_uS / cell.window_uS * weight_range
    count = jnp.trunc(total / step)
    if held is None:
        held = cell.conductance_min_uS + jnp.stack([jnp.maximum(base, 0), jnp.maximum(-base, 0)]) / step * step_uS
    high = cell.limits_uS[1] if cell.limits_uS else cell.conductance_max_uS
    to_low = jnp.maximum(jnp.round((held - cell.conductance_min_uS) / step_uS), 0)
    to_high = jnp.maximum(jnp.round((high - held) / step_uS), 0)
    wanted = jnp.stack([jnp.maximum(count, 0), jnp.maximum(-count, 0)])
    down = jnp.minimum(wanted[::-1], to_low)
    up = jnp.minimum(wanted - down[::-1], to_high)
    pulses = up - down
    return pulses, base + (pulses[0] - pulses[1]) * step
