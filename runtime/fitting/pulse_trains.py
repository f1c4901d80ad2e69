"""Measured pulse trains, and the single steps in them: what a law of pulses is fitted to. Plain NumPy."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MAD_TO_SD = 1.4826
OUTLIER = 5.0  # in steps or robust sds, of what is measured from the median of its neighbours
STUCK = 0.05  # of the usual range of a device: one that moves less does not answer pulses
MOSTLY, RARELY = 0.5, 0.05  # of the pulses at a bound that do nothing, of the states beyond it
SAME = 1e-9  # of the range: conductances that are one


@dataclass(frozen=True)
class PulseTrains:
    """Conductances after pulses, a row a pulse [rows], ascending by device, train and pulse.

    device: index from 0. train: rows that belong together, each one pulse after the other. pulse: its number.
    direction: 1 SET, -1 RESET, 0: a read without a pulse. conductance: after it, uS.
    """

    device: Integers
    train: Integers
    pulse: Integers
    direction: Integers
    conductance: Doubles

    @property
    def devices(self) -> int:
        """How many there are."""
        return int(self.device.max()) + 1


@dataclass(frozen=True)
class Steps:
    """Single steps by one direction of pulses [steps], as if all were SET: RESET steps have states and steps mirrored.

    device: index, ascending. before, change: uS (negated for RESET). at_bound: starts so near to a hard bound of its
    device that the step may be cut. bound [devices]: where a device was seen to stop, uS (negated for RESET); NaN:
    nowhere.
    """

    device: Integers
    before: Doubles
    change: Doubles
    at_bound: Flags
    bound: Doubles


def robust_sd(values: Doubles) -> float:
    """Sd of a Gaussian with the same median deviation; 0 of nothing."""
    return float(MAD_TO_SD * np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def rows_by_device(device: Integers) -> Iterator[tuple[int, slice]]:
    """Each device that there is, with its rows, of indices [rows] that ascend.

    In slices: a comparison with all rows for each device takes devices times rows.
    """
    starts = np.flatnonzero(np.diff(device, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(device))[1:], strict=True):
        yield int(device[start]), slice(int(start), int(end))


def without_outliers(trains: PulseTrains) -> tuple[PulseTrains, int, int]:
    """The trains without single wrong readings and without devices that do not answer, and how many of each."""
    stuck = _stuck(trains)
    kept = _keep(trains, ~stuck[trains.device])
    g = kept.conductance
    wrong = np.zeros(len(g), bool)
    inner = (kept.train[2:] == kept.train[:-2]) & (kept.device[2:] == kept.device[:-2])
    off = np.zeros(len(g))
    off[1:-1] = np.where(inner, g[1:-1] - np.median(np.stack([g[:-2], g[1:-1], g[2:]]), axis=0), 0.0)
    usual = np.zeros(len(g))
    usual[1:] = np.where(kept.train[1:] == kept.train[:-1], np.abs(np.diff(g)), np.nan)
    for _, own in rows_by_device(kept.device):
        steps = usual[own][np.isfinite(usual[own])]
        typical = float(np.mean(np.minimum(steps, np.percentile(steps, 90)))) if steps.size else 0.0
        scale = max(robust_sd(off[own]), typical)
        wrong[own] = np.abs(off[own]) > OUTLIER * scale
    return _keep(kept, ~wrong), int(wrong.sum()), int(stuck.sum())


def _stuck(trains: PulseTrains) -> Flags:
    ranges = np.array(
        [np.ptp(np.percentile(trains.conductance[own], [5, 95])) for _, own in rows_by_device(trains.device)]
    )
    return ranges < STUCK * np.median(ranges[ranges > 0]) if ranges.any() else np.zeros(len(ranges), bool)


def _keep(trains: PulseTrains, kept: Flags) -> PulseTrains:
    return PulseTrains(*(getattr(trains, key)[kept] for key in trains.__dataclass_fields__))


def steps_of(trains: PulseTrains, direction: int) -> Steps:
    """The steps by pulses of one direction, between rows that follow each other; over a missing row there is none."""
    device, before, change = _single(trains, direction)
    bound = _bounds(trains.devices, device, before, change)
    other = _bounds(trains.devices, *_single(trains, -direction))
    at_bound = _near(device, before, change, bound) | _near(device, -before, change, other)
    return Steps(device, before, change, at_bound, bound)


def _single(trains: PulseTrains, direction: int) -> tuple[Integers, Doubles, Doubles]:
    """Device, state before and change of each step of a direction, mirrored for RESET."""
    joined = (trains.train[1:] == trains.train[:-1]) & (trains.device[1:] == trains.device[:-1])
    joined &= (trains.pulse[1:] - trains.pulse[:-1] == 1) & (trains.direction[1:] == direction)
    at = np.flatnonzero(joined)
    before = direction * trains.conductance[at]
    return trains.device[at], before, direction * trains.conductance[at + 1] - before


def _bounds(devices: int, device: Integers, before: Doubles, change: Doubles) -> Doubles:
    """Where pulses no longer moved each device: NaN where that was not seen at least twice.

    Of readings with few digits some are equal anywhere: a bound is where most pulses do nothing, and few states lie
    beyond it.
    """
    bound = np.full(devices, np.nan)
    if not before.size:
        return bound
    same = SAME * np.ptp(before)
    still = np.abs(change) <= same
    for one, own in rows_by_device(device):
        held = before[own][still[own]]
        if len(held) < 2:
            continue
        place = float(np.median(held))
        at, beyond = before[own] >= place - same, before[own] > place + same
        if still[own][at].mean() >= MOSTLY and beyond.mean() <= RARELY:
            bound[one] = place
    return bound


def _near(device: Integers, before: Doubles, change: Doubles, bound: Doubles) -> Flags:
    """Which steps start within a usual step of their device's bound."""
    near = np.zeros(len(before), bool)
    if not before.size:
        return near
    least = SAME * np.ptp(before)
    for one, own in rows_by_device(device):
        if not np.isfinite(bound[one]):
            continue
        moved = change[own][np.abs(change[own]) > least]
        reach = abs(float(np.median(moved))) + 3 * robust_sd(moved) if moved.size else 0.0
        near[own] = before[own] > bound[one] - reach - SAME
    return near
