"""What the devices of a weight can hold where some are stuck, and the targets of the others that come nearest.

A weight is the sum of its devices, each times its coefficient, plus a constant: of a differential pair G+ and -G-. With
some devices stuck it can be anything between two bounds, so that its least error is its distance from them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.program import Floats
from cimc.units import device_targets, level_targets

Doubles = npt.NDArray[np.float64]


class Programmable(NamedTuple):
    """Conductances that a device can be programmed to, uS: from `low` to `high`, in steps, or `levels` alone."""

    low: float
    high: float
    step: float
    levels: Floats | None


def programmable(chip: Chip) -> Programmable:
    """What the devices of a chip can be programmed to."""
    step, levels = chip.target_step_uS, level_targets(chip)
    if levels is not None:
        return Programmable(float(levels[0]), float(levels[-1]), step, levels)
    extremes = device_targets(np.array([[-1.0, 1.0]], np.float32), np.float32(1), chip)
    return Programmable(float(extremes.min()), float(extremes.max()), step, None)


def coefficients(chip: Chip) -> Doubles:
    """What 1 uS of each device of a weight counts, [devices], in weights of a range of 1."""
    return np.array(chip.scheme.counts, np.float64) / chip.scheme.full_uS


def bounds(stuck: Floats, counts: Doubles, cell: Programmable) -> tuple[Doubles, Doubles]:
    """The least and the largest sum of devices [devices, ..] times their coefficients, where some are stuck.

    Args:
        stuck: uS, NaN of the good ones.
        counts: coefficients [devices].
        cell: what the good ones can be programmed to.
    """
    count = counts.reshape(-1, *[1] * (stuck.ndim - 1))
    ends = [np.where(np.isnan(stuck), end, stuck) * count for end in (cell.low, cell.high)]
    return np.minimum(*ends).sum(axis=0), np.maximum(*ends).sum(axis=0)


def held(targets: Floats, stuck: Floats, cell: Programmable) -> Floats:
    """What devices hold once programmed to targets, both [devices, ..]: the stuck ones what they hold, in steps."""
    in_steps = np.round(stuck / cell.step) * np.float32(cell.step)
    return np.where(np.isnan(stuck), targets, in_steps).astype(np.float32)


def compensate(targets: Floats, stuck: Floats, counts: Doubles, cell: Programmable) -> Floats:
    """Targets [devices, ..] with which the good devices of each weight take up the error of its stuck ones.

    The device that counts most goes as far as it can, then the next, so that a pair with one stuck device ends as near
    as it can be. Stuck devices get what they hold as a target. Weights without any keep theirs.
    """
    new = held(targets, stuck, cell)
    count = counts.reshape(-1, *[1] * (stuck.ndim - 1))
    missing = ((targets.astype(np.float64) - new) * count).sum(axis=0)
    for device in np.argsort(-np.abs(counts), kind="stable").tolist():
        wanted = _nearest(new[device] + missing / counts[device], cell)
        moved = np.where(np.isnan(stuck[device]) & (missing != 0), wanted, new[device])
        missing = missing - (moved - new[device].astype(np.float64)) * counts[device]
        new[device] = moved
    return new


def _nearest(wanted: Doubles, cell: Programmable) -> Floats:
    """The programmable conductance nearest to each."""
    if cell.levels is not None:
        middles = (cell.levels[1:] + cell.levels[:-1]) / 2
        return cell.levels[np.searchsorted(middles, wanted)]
    return (np.round(np.clip(wanted, cell.low, cell.high) / cell.step) * cell.step).astype(np.float32)
