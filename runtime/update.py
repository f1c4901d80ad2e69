"""The update policy: what an optimiser step does to the devices.

mixed-precision   acc += step; where |acc| > threshold the device is programmed (arXiv 2305.14547, section 3)
naive             threshold 0 and nothing kept: every step is programmed (the ablation)
float             the weights themselves are changed, no device is touched (the baseline)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.units import pair_targets, pair_weight
from runtime.cells import blind_pulses, read_cells, write_verify
from runtime.packing import STRIP

SMALL = 4096  # weights: below, programming all of them is as quick as finding those that are due
STRIPS_A_ROUND = 64  # the part of all strips that a round programs; with a few due weights in a thousand one is enough


@dataclass(frozen=True)
class Policy:
    """Options of the update.

    method: as above. threshold: fraction of the weight range; None: the device's granularity, 1 / (levels - 1).
    reset: what stays in the accumulator after a write, nothing or what the write missed: the part of a pulse, and with
    `readback` the error of the device as it was read, which then counts towards its next write.
    write: closed-loop write-verify to the target, or blind pulses. sync: the digital copy becomes the target, or is
    read back from the device, or is left alone (`none`: targets then start from a read of the device).
    backward: input gradients from the digital copy or from a transposed read of the arrays.
    """

    method: Literal["mixed-precision", "naive", "float"] = "mixed-precision"
    threshold: float | None = None
    reset: Literal["zero", "residual"] = "residual"
    write: Literal["verify", "pulse"] = "verify"
    backward: Literal["digital", "analog"] = "digital"
    sync: Literal["target", "readback", "none"] = "readback"

    def check(self, chip: Chip) -> None:
        """Raises CimcError for options that do not fit together or the chip."""
        if self.write == "pulse" and chip.cell.pulse is None:
            raise CimcError(f"chip {chip.name} has no pulse response; add [cell.pulse] or use --write verify")
        if self.write == "pulse" and self.method == "naive":
            raise CimcError("--method naive programs every step, which blind pulses cannot; use --write verify")
        if self.sync == "none" and self.backward == "digital":
            raise CimcError("--sync none leaves no digital copy for the backward pass; add --backward analog")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise CimcError(f"--threshold {self.threshold} is not a fraction of the weight range; give 0 to 1")

    def threshold_for(self, chip: Chip) -> float:
        """Threshold as a fraction of the weight range."""
        if self.method == "naive":
            return 0.0
        return chip.cell.granularity if self.threshold is None else self.threshold


class LayerState(NamedTuple):
    """One layer's part of the state (`runtime.state`), or that of several layers in one vector (`runtime.packing`)."""

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
    base = layer.weight
    if policy.sync == "none":
        base = pair_weight(read_cells(layer.conductance, chip.cell, read_key), weight_range, chip)
    # What lies beyond the range can never be programmed and must not keep a device due for ever.
    base = jnp.clip(base, -weight_range, weight_range)
    total = jnp.clip(layer.accumulator + step, -weight_range - base, weight_range - base)
    due = jnp.abs(total) > policy.threshold_for(chip) * weight_range
    layer = layer._replace(accumulator=total)
    if total.size < SMALL or total.size % STRIP:
        return _program(policy, chip, layer, base, due, weight_range, program_key)
    return _program_in_strips(policy, chip, layer, base, due, weight_range, program_key)


def _program_in_strips(
    policy: Policy, chip: Chip, layer: LayerState, base: Array, due: Array, weight_range: Array, key: Array
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
    layer, base, due = jax.tree.map(in_strips, (layer, base, due))
    ranges = in_strips(weight_range) if weight_range.ndim else weight_range
    count = jnp.cumsum(jnp.any(due, axis=1).astype(jnp.int32))

    def program(n: Array, layer: LayerState) -> LayerState:
        # The places of the next due strips; past the last one, a place that is none.
        nth = n * a_round + jnp.arange(1, a_round + 1, dtype=jnp.int32)
        places = jnp.searchsorted(count, nth, method="scan_unrolled")
        some = LayerState(*(array.at[..., places, :].get(mode="clip") for array in layer))
        due_here = due.at[places].get(mode="fill", fill_value=False)
        base_here = base.at[places].get(mode="clip")
        range_here = ranges.at[places].get(mode="clip") if ranges.ndim else ranges
        done = _program(policy, chip, some, base_here, due_here, range_here, jax.random.fold_in(key, n))
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
    policy: Policy, chip: Chip, layer: LayerState, base: Array, due: Array, weight_range: Array, key: Array
) -> LayerState:
    """Program the devices of due weights towards base + accumulator.

    Args:
        policy: the options.
        chip: the chip.
        layer: weights and accumulators [..] with the step in them, devices [2, ..].
        base: what the digital side takes the weights to be [..].
        due: [..].
        weight_range: scalar or [..].
        key: for programming and read errors.
    """
    write_key, sync_key = jax.random.split(key)
    total = layer.accumulator
    if policy.write == "verify":
        target = base + total
        goal = pair_targets(target, weight_range, chip)
        # A device that is idle before and after, or whose target stays, is not touched: the weight accumulates on.
        selected = due & (goal != pair_targets(base, weight_range, chip))
        due &= jnp.any(selected, axis=0)
        # Barriers here and below: without them XLA draws the errors again for each of their users.
        written = jax.lax.optimization_barrier(write_verify(goal, chip.cell, write_key))
        conductance = jnp.where(selected, written.conductance, layer.conductance)
        trials = jnp.where(selected, written.trials, 0)
    else:
        pulses, target = _pulses(chip, base, total, weight_range)
        pulses = jnp.where(due, pulses, 0)
        selected = pulses != 0
        due &= jnp.any(selected, axis=0)
        conductance = blind_pulses(layer.conductance, pulses, chip.cell, write_key)
        trials = jnp.abs(pulses).astype(jnp.int32)
    weight = layer.weight
    if policy.sync == "target":
        weight = jnp.where(due, target, weight)
    elif policy.sync == "readback":
        held = jax.lax.optimization_barrier(read_cells(conductance, chip.cell, sync_key))
        weight = jnp.where(due, pair_weight(held, weight_range, chip), weight)
    if policy.reset == "zero" or policy.method == "naive":
        left = jnp.zeros_like(total)
    else:
        left = base + total - (weight if policy.sync == "readback" else target)
    return LayerState(
        weight=weight,
        accumulator=jnp.where(due, left, total),
        conductance=conductance,
        updates=layer.updates + due,
        writes=layer.writes + selected,
        trials=layer.trials + trials,
    )


def _pulses(chip: Chip, base: Array, total: Array, weight_range: Array) -> tuple[Array, Array]:
    """Whole pulses for G+ and G- [2, ..], and the weight [..] they aim at.

    trunc(acc / step) pulses (Nandakumar et al. 2020). An increase first takes G- down to its minimum, then G+ up; a
    decrease the reverse, so that the idle device of a pair stays at G_min.
    """
    assert chip.cell.pulse is not None
    step = chip.cell.pulse.step_uS / chip.cell.window_uS * weight_range
    count = jnp.trunc(total / step)
    held = jnp.round(jnp.stack([jnp.maximum(base, 0), jnp.maximum(-base, 0)]) / step)
    opposite_first = jnp.stack([jnp.maximum(count, 0), jnp.maximum(-count, 0)])
    down = jnp.minimum(opposite_first[::-1], held)
    up = opposite_first - down[::-1]
    return up - down, base + count * step
