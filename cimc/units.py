"""Between the network's units and the chip's: weights and conductances, inputs and DAC codes, ADC codes and outputs.

Plain float32 arithmetic on NumPy or JAX arrays alike (the array's own namespace is used), so that the compiler, the
runtime and the exported network compute the same numbers.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.scheme import AnyArray

TARGETS_AT_ONCE = 1 << 18  # weights; in NumPy


def idle_target(chip: Chip) -> AnyArray:
    """The conductances in uS of devices that hold a weight of 0 [devices, 1, 1]; of a pair G_min."""
    return device_targets(np.zeros((1, 1), np.float32), np.float32(1), chip)


def reference_target(chip: Chip) -> np.float32:
    """The conductance in uS that the cells of the reference column of a chip that has one are programmed to."""
    assert chip.scheme.reference is not None
    return np.float32(round(chip.scheme.reference.target_uS / chip.target_step_uS) * chip.target_step_uS)


class TargetGrid(NamedTuple):
    """The conductances that can be targets, in uS, float32.

    Multiples of `step`, a power of two, from the `first` to the `last`; least, width: of the window. Of a chip with
    levels these alone, levels [n] and, where they are listed, the middles between them [n - 1] as parts of the window.
    """

    least: AnyArray
    width: AnyArray
    steps: AnyArray  # in 1 uS
    first: AnyArray
    last: AnyArray
    step: AnyArray
    levels: AnyArray | None
    middles: AnyArray | None


@lru_cache(maxsize=64)
def target_grid(chip: Chip) -> TargetGrid:
    """The targets of a chip."""
    cell, step = chip.cell, chip.target_step_uS
    first, last = math.ceil(cell.conductance_min_uS / step), math.floor(cell.conductance_max_uS / step)
    levels, middles = None, None
    if chip.scheme.steps is None and cell.programmable_uS is not None:
        values = np.array(cell.programmable_uS)
        levels = (np.clip(np.round(values / step), first, last) * step).astype(np.float32)
        if cell.level_uS is not None:
            between = (values[1:] + values[:-1]) / 2
            middles = ((between - cell.conductance_min_uS) / cell.window_uS).astype(np.float32)
    least, width = np.float32(cell.conductance_min_uS), np.float32(cell.window_uS)
    ends, size = (np.float32(first), np.float32(last)), np.float32(step)
    return TargetGrid(least, width, np.float32(1.0 / step), *ends, size, levels, middles)


def device_targets(weight: AnyArray, weight_range: AnyArray, chip: Chip, grid: TargetGrid | None = None) -> AnyArray:
    """Target conductances of the devices of weights, on the grid of `Chip.target_step_uS`.

    Of differential pairs G+ = G_min + k max(w, 0), G- = G_min + k max(-w, 0), k = (G_max - G_min) / weight_range
    (arXiv 2305.14547); of a chip with levels, the level nearest to that, so at most as many different targets as it has
    levels. Other schemes: `cimc.scheme`.

    Args:
        weight: [rows, columns], within +-weight_range (clipped to it).
        weight_range: scalar or [columns].
        chip: the chip.
        grid: its targets, where they are values of a program; None: `target_grid`.

    Returns:
        [devices, rows, columns] float32 in uS.
    """
    if not isinstance(weight, np.ndarray) or weight.size <= TARGETS_AT_ONCE or np.ndim(weight_range) > 1:
        return _targets(weight, weight_range, chip, grid)
    # The steps between would take several times the memory of the result.
    targets = np.empty((chip.scheme.devices, *weight.shape), np.float32)
    step = max(TARGETS_AT_ONCE * len(weight) // weight.size, 1)
    for first in range(0, len(weight), step):
        some = slice(first, first + step)
        targets[:, some] = _targets(weight[some], weight_range, chip)
    return targets


def _targets(weight: AnyArray, weight_range: AnyArray, chip: Chip, grid: TargetGrid | None = None) -> AnyArray:
    xp = weight.__array_namespace__()
    fraction = xp.clip(weight / weight_range, -1.0, 1.0)
    return nearest_targets(chip.scheme.shares(fraction, True), grid or target_grid(chip))


def nearest_targets(shares: AnyArray, grid: TargetGrid) -> AnyArray:
    """The target conductances nearest to parts of the window, 0 to 1, in uS; the same shape."""
    xp = shares.__array_namespace__()
    if grid.levels is not None:
        return xp.asarray(grid.levels)[_nearest(shares, grid)]
    targets = grid.least + shares * grid.width
    return xp.clip(xp.round(targets * grid.steps), grid.first, grid.last) * grid.step


def level_targets(chip: Chip) -> npt.NDArray[np.float32] | None:
    """The target conductances that `device_targets` chooses from, ascending, in uS; None: all those on the grid."""
    grid = target_grid(chip)
    if chip.scheme.steps is not None:
        states = 2 ** (chip.weights.bits_per_cell or 1)
        return np.asarray(nearest_targets(np.linspace(0, 1, states, dtype=np.float32), grid))
    return grid.levels


def _nearest(shares: AnyArray, grid: TargetGrid) -> AnyArray:
    """Index of the level nearest to each part of the window, in [0, 1]."""
    xp = shares.__array_namespace__()
    if grid.middles is None:
        assert grid.levels is not None
        return xp.round(shares * np.float32(len(grid.levels) - 1)).astype(np.int32)
    return xp.searchsorted(xp.asarray(grid.middles), shares)


def weight_of(conductance: AnyArray, weight_range: AnyArray, chip: Chip, full_uS: AnyArray | None = None) -> AnyArray:
    """Weights [rows, columns] that devices of conductances [devices, rows, columns] in uS stand for.

    full_uS: that of the chip's scheme, where it is a value of a program.
    """
    full = np.float32(chip.scheme.full_uS) if full_uS is None else full_uS
    return chip.scheme.value(conductance) * (weight_range / full)


def dac_gain(input_range: AnyArray, chip: Chip, signed: bool) -> AnyArray:
    """DAC units that an input of 1 makes: largest code / range; 1 for an ideal converter. signed: inputs may be < 0."""
    if chip.input.bits is None:
        return input_range * np.float32(0) + np.float32(1)
    return np.float32(chip.top_input(signed)) / input_range


def dac_step(input_range: AnyArray, chip: Chip, signed: bool) -> AnyArray:
    """The input that one DAC unit stands for: range / largest code; 1 for an ideal converter."""
    if chip.input.bits is None:
        return input_range * np.float32(0) + np.float32(1)
    return input_range * np.float32(1.0 / chip.top_input(signed))


def levels_per_product(chip: Chip, signed: bool) -> float:
    """ADC levels (LSB) that one unit of u G makes, u of what drives a row (`Chip.lsb_uS`); 1 for an ideal ADC.

    Of voltages, after the product is divided by the column's total conductance.
    """
    if chip.adc.bits is None or chip.input.bits is None:
        return 1.0
    if chip.adc.range_uA is not None and chip.input.encoding != "bit-serial":
        return chip.cell.read_voltage_V / (2**chip.input.bits * (chip.adc.range_uA / chip.top_code(signed)))
    return 1.0 / chip.lsb_uS(signed)


def count_scale(weight_range: AnyArray, input_range: AnyArray, chip: Chip, signed: bool) -> AnyArray:
    """Value, in units of x W, of one unit of d: DAC step x weight range / (full scale x levels per product).

    One constant and one order of products: every compiler rounds it the same way.
    """
    ranges = weight_range if chip.input.bits is None else input_range * weight_range
    return ranges * count_unit(chip, signed)


def count_unit(chip: Chip, signed: bool) -> np.float32:
    """`count_scale` of ranges of 1."""
    per_unit = 1.0 / (chip.scheme.full_uS * levels_per_product(chip, signed))
    return np.float32(per_unit if chip.input.bits is None else per_unit / chip.top_input(signed))
