"""The weight that a fully programmed pair stands for, chosen for what the devices can hold."""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import erfc

from cimc.chip import Cell, Chip
from cimc.units import device_targets
from runtime.devices.write_law import error_left

CANDIDATES = np.linspace(1.0, 0.05, 96)  # of the largest weight; few levels want far less than it
BINS = 4096
WEIGHTS_AT_ONCE = 1 << 19  # of those that are counted
STATES = 33  # where the law of a device with limits is computed; between them it is interpolated

# Training weighs what a device errs so many times against what a range clips: gains and other weights make up for a
# clipped weight as they learn, for errors less. LeNet-1 on brram-soc, whose writes and steps are coarse, begun from
# normal weights, loses a point and more with 1.6 and 2 sd; on brram-256x64 1.4 sd costs a quarter more updates than 2.
ERROR_WEIGHT = 2.2
TRIED_SDS = np.linspace(0.5, 3.0, 251)
LEAST_COLUMN = 1e-3
LEAST_SD = 0.01  # of He's; with less a layer counts as zero

Doubles = npt.NDArray[np.float64]


def best_weight_range(weight: npt.NDArray[np.floating], chip: Chip) -> np.float32:
    """The weight of a fully programmed pair that gives the least expected squared weight error on `chip`.

    A small range clips the largest weights; a large one makes every device's error and the distance between levels
    worth more weight. With r the range, g+ and g- the targets of a weight w (levels and all), e and s the mean and sd
    of a write's error there, n that of the read noise there and d the window, the error of a weight is

        (r / d (g+ + e+ - g- - e-) - w)^2 + (r / d)^2 (s+^2 + s-^2 + n+^2 + n-^2)

    averaged over a histogram of the layer's weights. Without errors and levels it is the largest weight.

    Args:
        weight: any shape, in the network's own unit.
        chip: the chip.
    """
    return _least_error(*_histogram(weight), chip)


def _least_error(magnitude: Doubles, share: Doubles, largest: float, chip: Chip) -> np.float32:
    """The best range of weights of these magnitudes and shares."""
    scheme = chip.scheme
    if not scheme.has_pair:  # weights of either sign have errors of their own
        magnitude, share = np.concatenate([magnitude, -magnitude]), np.concatenate([share, share]) / 2
    ranges = (largest * CANDIDATES).astype(np.float32)[:, None]
    targets = np.asarray(device_targets(magnitude.astype(np.float32)[None], ranges, chip), np.float64)
    mean, sd = write_errors(targets, chip.cell)
    per_uS = ranges.astype(np.float64) / scheme.full_uS
    bias = per_uS * scheme.value(targets + mean) - magnitude
    counts = np.square(np.array(scheme.counts))
    variance = np.square(per_uS) * np.tensordot(counts, np.square(sd) + chip.cell.read_noise_variance(targets), 1)
    errors = (np.square(bias) + variance) @ share
    return ranges[int(np.argmin(errors)), 0]


def best_column_ranges(weight: npt.NDArray[np.floating], chip: Chip) -> npt.NDArray[np.float32]:
    """The weight range of each column [columns]: one part of each column's largest weight, as `best_weight_range`.

    A column of zeros, or nearly, counts as one of `LEAST_COLUMN` of the layer's largest weight.
    """
    largest = np.maximum(np.max(weight, axis=0, initial=0), -np.min(weight, axis=0, initial=0))
    largest = np.maximum(largest, LEAST_COLUMN * (largest.max(initial=0) or 1.0)).astype(np.float32)
    return largest * _least_error(*_histogram(weight, largest), chip)


def training_weight_range(weight: npt.NDArray[np.floating], chip: Chip) -> np.float32:
    """The weight of a fully programmed pair for training: `range_in_sds` times the layer's root mean square.

    The range decides how large the threshold is in the network's unit, so it must not hang on one outlier or on how the
    weights were drawn; those beyond it begin at the range. Chips with levels take the range that errs least instead:
    with few of them it decides which weights are 0. A layer of zeros, or nearly, counts as one of He's initial weights,
    variance 2 / rows: its weights are still to grow.

    Args:
        weight: [rows, columns], in the network's own unit.
        chip: the chip.
    """
    if chip.weight_step is not None:
        return best_weight_range(weight, chip)
    he = math.sqrt(2 / max(len(weight), 1))
    spread = float(np.sqrt(np.mean(np.square(weight, dtype=np.float64)))) if weight.size else 0.0
    return np.float32(range_in_sds(chip) * (spread if spread > LEAST_SD * he else he))


@lru_cache(maxsize=64)
def range_in_sds(chip: Chip) -> float:
    """The weight range, in sd of the weights, in which a chip without levels trains.

    It is the r that makes e r^2 + E[max(|z| - r, 0)^2] least for normal weights z: what is clipped, and `ERROR_WEIGHT`
    times what a pair errs, e = 2 (s^2 + n^2) + t^2 / 3 with the sd s of a write, that n of a read and the granularity
    t, up to which an update waits, all of the window. Where s or n follow the state, their squares are the means over
    the devices of normal weights at that r.
    """
    error = _error_variance(chip) / chip.scheme.full_uS**2 + chip.weight_granularity**2 / 3
    r = TRIED_SDS
    density, beyond = np.exp(-(r**2) / 2) / math.sqrt(2 * math.pi), erfc(r / math.sqrt(2)) / 2
    clipped = 2 * ((1 + r**2) * beyond - r * density)
    return float(r[np.argmin(ERROR_WEIGHT * error * r**2 + clipped)])


def _error_variance(chip: Chip) -> float | Doubles:
    """Variance, uS^2, of what writes and reads err in a weight, one number or for each of `TRIED_SDS`."""
    if chip.scheme.has_pair:
        return _pair_variance(chip.cell)
    z = np.linspace(-4, 4, 2 * STATES - 1)
    share = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    targets = np.asarray(device_targets((z / TRIED_SDS[:, None]).astype(np.float32), np.float32(1), chip), np.float64)
    variance = np.square(write_errors(targets, chip.cell)[1]) + chip.cell.read_noise_variance(targets)
    return np.asarray(np.tensordot(np.square(chip.scheme.counts), variance, 1) @ share)


def _pair_variance(cell: Cell) -> float | Doubles:
    """`_error_variance` of a pair."""
    if not (cell.programming.follows_state or cell.reads_follow_state):
        return 2 * (cell.largest_error_sd_uS**2 + cell.read_noise_uS**2)
    z = np.linspace(0, 4, STATES)
    share = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    active = cell.conductance_min_uS + cell.window_uS * np.minimum(z / TRIED_SDS[:, None], 1.0)
    idle = np.full(1, cell.conductance_min_uS)
    variance = [np.square(write_errors(g, cell)[1]) + cell.read_noise_variance(g) for g in (active, idle)]
    return np.asarray(variance[0] @ share + variance[1])


def _histogram(
    weight: npt.NDArray[np.floating], divisor: npt.NDArray[np.floating] | None = None
) -> tuple[Doubles, Doubles, float]:
    """Mean magnitude and share of the weights in each bin up to the largest, and the largest (1 where all are 0).

    divisor: [columns], of the weights first; None: 1. Some weights at a time: the steps take many times their memory.
    """
    rows = weight.reshape(-1, 1) if divisor is None else weight
    step = max(WEIGHTS_AT_ONCE // max(rows.shape[1], 1), 1)

    def parts() -> Iterator[npt.NDArray[np.floating]]:
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            yield np.abs(some if divisor is None else some / divisor).ravel()

    largest = max((float(np.max(part, initial=0.0)) for part in parts()), default=0.0) or 1.0
    count, total = np.zeros(BINS, np.int64), np.zeros(BINS)
    for magnitude in parts():
        bins = np.minimum(magnitude * np.float32(BINS / largest), BINS - 1).astype(np.int32)
        count += np.bincount(bins, minlength=BINS)
        total += np.bincount(bins, weights=magnitude, minlength=BINS)
    filled = count > 0
    return total[filled] / count[filled], count[filled] / max(weight.size, 1), largest


def write_errors(targets: Doubles, cell: Cell) -> tuple[Doubles, Doubles]:
    """Mean and sd, in uS, of the error left at the targets, like these in shape."""
    if cell.limits_uS is None:
        mean, sd = cell.error_mean_uS(targets), cell.error_sd_uS(targets)
    else:
        states, means, sds = _clipped_errors(cell)
        mean, sd = np.interp(targets, states, means), np.interp(targets, states, sds)
    return np.broadcast_to(mean, targets.shape), np.broadcast_to(sd, targets.shape)


@lru_cache
def _clipped_errors(cell: Cell) -> tuple[Doubles, Doubles, Doubles]:
    """States across the window, and mean and sd of the error left at each, of a cell with limits.

    Kept: it takes about a second, and fitting scales asks dozens of times for the same cell.
    """
    states = np.linspace(cell.conductance_min_uS, cell.conductance_max_uS, STATES)
    laws = [error_left(cell, state) for state in states.tolist()]
    return states, np.array([law.mean_uS for law in laws]), np.array([law.sd_uS for law in laws])
