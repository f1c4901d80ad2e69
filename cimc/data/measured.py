"""Measurements of devices from CSV files: pulse trains, and retention."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cimc.errors import CimcError
from runtime.fitting.drift import RetentionData
from runtime.fitting.pulse_trains import PulseTrains, steps_of

TO_MICRO = {"conductance_uS": 1.0, "conductance_S": 1e6, "current_uA": 1.0, "current_A": 1e6}
UNITLESS = {"conductance": "conductance_uS or conductance_S", "current": "current_uA or current_A"}
UNITLESS |= {"voltage": "voltage_V", "time": "time_s"}
UP, DOWN = ("up", "set", "potentiation", "ltp", "+"), ("down", "reset", "depression", "ltd", "-")
DIRECTIONS = dict.fromkeys(UP, 1) | dict.fromkeys(DOWN, -1) | {"none": 0, "read": 0}
COLUMNS = ("device", "pulse", "cycle", "direction", "voltage_V", "time_s", *TO_MICRO)
MOST_MICRO_SIEMENS, MOST_PULSE = 1e6, 1e9  # beyond them a unit or a column is wrong
FALSE = 3.0  # standard errors: that many more pulses that go the wrong way are no noise
LEAST_STEPS = 20  # of a direction: with fewer nothing can be said of a law


@dataclass(frozen=True)
class _Table:
    """A CSV file. lines: number of each row in the file."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def refuse(self, problem: str, row: int | None = None) -> CimcError:
        """The error of a problem, with its line."""
        return CimcError(f"{self.path}{'' if row is None else f', line {self.lines[row]}'}: {problem}")

    def numbers(self, column: str) -> np.ndarray:
        """A column as finite numbers."""
        found = []
        for row, text in enumerate(self.columns[column]):
            try:
                found.append(float(text))
            except ValueError:
                raise self.refuse(
                    f"{column} is {text!r:.40}, not a number; correct it or leave the row out", row
                ) from None
            if not math.isfinite(found[-1]):
                raise self.refuse(f"{column} is {text.strip()}; leave rows out that were not measured", row)
        return np.array(found)

    def devices(self) -> np.ndarray:
        """Index of the device of each row, in the order of their first rows."""
        names = {name: index for index, name in enumerate(dict.fromkeys(map(str.strip, self.columns["device"])))}
        if len(names) < 2:
            raise self.refuse(
                "there is one device only, so that no spread and no held-out device is there; measure several, "
                "or give each cycle a name of its own in the column device"
            )
        return np.array([names[name.strip()] for name in self.columns["device"]])


def read_measurements(
    path: str | Path, read_voltage_V: float | None = None, *, up_only: bool = False
) -> PulseTrains | RetentionData:
    """Pulse trains, or where there is a column time_s retention data.

    Columns of pulse trains: device, pulse (number), direction (up or down, set or reset, potentiation or depression, 1
    or -1; none, read or 0: not pulsed) or voltage_V (its sign), one of conductance_uS, conductance_S, current_uA,
    current_A (after the pulse), and optionally cycle. Of retention: device, time_s (after the write), and one of
    the last four.

    Args:
        path: CSV in UTF-8 with a head.
        read_voltage_V: of the currents.
        up_only: the device has no RESET pulses.

    Raises:
        CimcError: what of the file cannot be used, with the line.
    """
    table = _read(Path(path))
    micro = _conductances(table, read_voltage_V)
    if "time_s" in table.columns:
        return _retention(table, micro)
    return _pulse_trains(table, micro, up_only=up_only)


def _read(path: Path) -> _Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows, lines = [], []
            for row in reader:
                if any(cell.strip() for cell in row) and not row[0].lstrip().startswith("#"):
                    rows.append(row)
                    lines.append(reader.line_num)
    except OSError as error:
        raise CimcError(f"cannot read {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise CimcError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise CimcError(f"{path} is not CSV: {error}; save it as CSV in UTF-8") from None
    if len(rows) < 2:
        what = "has a head and no rows" if rows else "is empty"
        raise CimcError(f"{path} {what}; give a head and a row for each pulse")
    head, *body = rows
    names = [name.strip() for name in head]
    if len(names) == 1 and (mark := next((mark for mark in (";", "\t") if mark in names[0]), None)):
        named = "semicolons" if mark == ";" else "tabs"
        raise CimcError(f"{path}: its columns are separated by {named}; save it with commas, and points in numbers")
    for number, row in zip(lines[1:], body, strict=True):
        if len(row) != len(names):
            raise CimcError(
                f"{path}, line {number}: {len(row)} values, but the head has {len(names)}; correct the line"
            )
    if len(set(names)) < len(names):
        raise CimcError(f"{path}: a column comes twice in the head: {', '.join(names)}; rename one")
    table = _Table(path, dict(zip(names, zip(*body, strict=True), strict=True)), lines[1:])
    for name in names:
        stem = name.partition("_")[0].lower()
        if name not in COLUMNS and stem in UNITLESS:
            raise table.refuse(f"column {name} needs a unit that is known; name it {UNITLESS[stem]}")
        if name not in COLUMNS:
            raise table.refuse(f"unknown column {name!r:.40}; known are {', '.join(COLUMNS)}")
    return table


def _require(table: _Table, *names: str) -> None:
    for name in names:
        if name not in table.columns:
            raise table.refuse(f"column {name} is missing; the head has {', '.join(table.columns)}")


def _conductances(table: _Table, read_voltage_V: float | None) -> np.ndarray:
    """In uS."""
    given = [name for name in TO_MICRO if name in table.columns]
    if len(given) != 1:
        found = "none of them is there" if not given else f"{' and '.join(given)} are there"
        raise table.refuse(f"one of {', '.join(TO_MICRO)} is needed, {found}")
    values = table.numbers(given[0]) * TO_MICRO[given[0]]
    if given[0].startswith("current"):
        if read_voltage_V is None:
            raise table.refuse(f"{given[0]} needs the voltage of the reads; give it with --read-voltage")
        values = values / read_voltage_V
    if (negative := np.flatnonzero(values < 0)).size:
        raise table.refuse(f"{given[0]} is negative; check the sign", int(negative[0]))
    if (large := np.flatnonzero(values > MOST_MICRO_SIEMENS)).size:
        row = int(large[0])
        raise table.refuse(f"the conductance is {values[row]:.3g} uS, which no device has; is the unit right?", row)
    return values


def _retention(table: _Table, micro: np.ndarray) -> RetentionData:
    _require(table, "device")
    time, device = table.numbers("time_s"), table.devices()
    for values, name in ((time, "time_s"), (micro, "the conductance")):
        if (wrong := np.flatnonzero(values <= 0)).size:
            raise table.refuse(f"{name} is not above 0, which a power law needs; leave the row out", int(wrong[0]))
    times = np.bincount(np.unique(np.stack([device, time]), axis=1)[0].astype(np.int64))  # different ones, by device
    if np.count_nonzero(times > 2) < 2:
        raise table.refuse("no two devices have readings at three times or more; a drift exponent needs them")
    if not _range_by_device(device, micro).any():
        raise table.refuse("no conductance changes with time, so there is no drift to fit; leave the file out")
    return RetentionData(device, time, micro)


def _range_by_device(device: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The largest less the smallest of the values [rows] of each device [devices]."""
    most, least = np.full((2, device.max() + 1), -np.inf)
    np.maximum.at(most, device, values)
    np.maximum.at(least, device, -values)
    return np.asarray(most + least)


def _pulse_trains(table: _Table, micro: np.ndarray, *, up_only: bool) -> PulseTrains:
    _require(table, "device", "pulse")
    pulse = table.numbers("pulse")
    if (wrong := np.flatnonzero(pulse != np.round(pulse))).size:
        raise table.refuse("pulse is no whole number", int(wrong[0]))
    if (large := np.flatnonzero(np.abs(pulse) > MOST_PULSE)).size:
        raise table.refuse(f"pulse is beyond {MOST_PULSE:g}; number the pulses of a device from 0", int(large[0]))
    direction, device = _directions(table), table.devices()
    cycle = table.numbers("cycle") if "cycle" in table.columns else np.zeros(len(pulse))
    # Pulses are numbered through, or anew in each direction: then the two are trains of their own.
    keys = np.stack([device, cycle, pulse])
    through = len(np.unique(keys, axis=1).T) == len(pulse)
    train = np.unique(np.stack([cycle, np.zeros(len(pulse)) if through else direction]), axis=1, return_inverse=True)[1]
    train = train.reshape(-1)
    order = np.lexsort([pulse, train, device])
    number = pulse.astype(np.int64)
    trains = PulseTrains(device[order], train[order], number[order], direction[order], micro[order])
    same = (np.diff(trains.pulse) == 0) & (np.diff(trains.train) == 0) & (np.diff(trains.device) == 0)
    if same.any():
        row = int(order[np.flatnonzero(same)[0] + 1])
        twice, of = (table.columns[key][row].strip() for key in ("pulse", "device"))
        hint = "number pulses through, or tell cycles apart by a column cycle"
        raise table.refuse(f"pulse {twice} of device {of} comes twice; {hint}", row)
    _require_steps(table, trains, up_only=up_only)
    return trains


def _require_steps(table: _Table, trains: PulseTrains, *, up_only: bool) -> None:
    """Enough steps in each direction, which move devices, and that way."""
    if np.count_nonzero(_range_by_device(trains.device, trains.conductance)) < 2:
        raise table.refuse("no two devices change with their pulses, so there is nothing to fit; check the column")
    for sign, name, verb in ((1, "up", "lower"), (-1, "down", "raise")):
        change = steps_of(trains, sign).change
        steps = len(change)
        if up_only and sign < 0 and steps:
            raise table.refuse(
                f"there are {steps} down pulses, which a device of --up-only has not; leave --up-only or their rows out"
            )
        if steps < LEAST_STEPS and not (up_only and sign < 0 and steps == 0):
            hint = "; give --up-only for a device that has none" if sign < 0 and steps == 0 else ""
            count = f"no {name} pulses" if steps == 0 else f"only {steps} {name} pulses with the one before measured"
            raise table.refuse(f"there are {count}; measure at least {LEAST_STEPS}{hint}")
        if change.sum() < 0 and np.sign(change).sum() < -FALSE * math.sqrt(np.count_nonzero(change)):
            raise table.refuse(f"{name} pulses {verb} the conductance; swap the directions")


def _directions(table: _Table) -> np.ndarray:
    """1 SET, -1 RESET, 0 a read."""
    if ("direction" in table.columns) == ("voltage_V" in table.columns):
        raise table.refuse("one of the columns direction and voltage_V is needed")
    if "voltage_V" in table.columns:
        return np.sign(table.numbers("voltage_V")).astype(np.int64)
    found = []
    for row, text in enumerate(table.columns["direction"]):
        word = text.strip().lower()
        try:
            found.append(DIRECTIONS[word] if word in DIRECTIONS else int(np.sign(float(word))))
        except ValueError:
            raise table.refuse(
                f"direction is {text!r:.40}; give up or down, set or reset, potentiation or depression, 1 or -1", row
            ) from None
    return np.array(found)
