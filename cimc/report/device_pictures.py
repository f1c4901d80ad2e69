"""Pictures of a device: what it does by the runtime's model, and measured beside fitted pulse trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cimc.chip_cell import Cell
from cimc.report.drawing import BLUE, GREY, ORANGE, save_picture
from runtime.devices.pulse_laws import bounds_uS, step_factor
from runtime.fitting.pulse_trains import PulseTrains, without_outliers

GREEN = "#3d8c58"
COLOURS = (BLUE, ORANGE, GREEN)
UNITS = ((1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h"), (86400.0, "1 day"), (30 * 86400.0, "1 month"))
SHIFT = 0.1  # of the sd: a smaller mean is not drawn
STILL = 1e-9  # of the window: a smaller step is not seen in a picture
EXTENT = 1.5  # of the 98th percentile: where the axis of steps ends
YEAR = (365.25 * 86400.0, "1 year")


def device_picture(path: Path, figures: Mapping[str, Any]) -> None:
    """Pulse response, errors of writes and reads, and time, a panel each where the device has such a law.

    Args:
        path: the picture to write.
        figures: of `cimc.plot_device`.
    """
    drawn = [
        (draw, figures[key])
        for draw, key in ((_draw_pulses, "pulses"), (_draw_errors, "errors"), (_draw_time, "time"))
        if figures[key] is not None
    ]
    figure = Figure(figsize=(0.6 + 3.9 * len(drawn), 3.5), layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False)
    for axis, (draw, values) in zip(axes[0], drawn, strict=True):
        draw(axis, values)
    figure.suptitle(figures["device"], fontsize=11, parse_math=False)  # a name may hold $
    save_picture(figure, path)


def _draw_pulses(axis: Axes, pulses: Mapping[str, Any]) -> None:
    number = pulses["number"]
    axis.fill_between(number, pulses["p5_uS"], pulses["p95_uS"], color=BLUE, alpha=0.2, lw=0, label="5 to 95 %")
    for index, single in enumerate(pulses["single_uS"]):
        axis.plot(number, single, color=GREY, lw=0.7, label="single devices" if index == 0 else None)
    axis.plot(number, pulses["mean_uS"], color=BLUE, lw=1.8, label="mean")
    if number[-1] > pulses["up"]:
        axis.axvline(pulses["up"], color=GREY, lw=0.8, ls=":")
        title = f"{pulses['law']}: {pulses['up']} SET, {number[-1] - pulses['up']} RESET pulses"
    else:
        title = f"{pulses['law']}: {pulses['up']} SET pulses"
    axis.set(xlabel="pulse number", ylabel="conductance (uS)")
    axis.set_title(title, fontsize=9)
    axis.legend(frameon=False, fontsize=7)


def _draw_errors(axis: Axes, errors: Mapping[str, Any]) -> None:
    g = errors["conductance_uS"]
    axis.plot(g, errors["write_sd_uS"], color=BLUE, label="sd after a write")
    shifted = np.abs(np.mean(errors["write_mean_uS"])) > SHIFT * max(errors["write_sd_uS"])
    if shifted:
        axis.plot(g, errors["write_mean_uS"], color=BLUE, ls="--", lw=1.0, label="mean after a write")
    axis.plot(g, errors["read_sd_uS"], color=ORANGE, label="sd of one read")
    axis.set(xlabel="target conductance (uS)", ylabel="error (uS)")
    axis.set_ylim(bottom=min(0.0, *errors["write_mean_uS"]) if shifted else 0.0)
    axis.set_title("writes and reads", fontsize=9)
    axis.legend(frameon=False, fontsize=7)


def _draw_time(axis: Axes, time: Mapping[str, Any]) -> None:
    seconds = time["time_s"]
    for state, colour in zip(time["states"], COLOURS, strict=True):
        axis.fill_between(seconds, state["p5_uS"], state["p95_uS"], color=colour, alpha=0.2, lw=0)
        axis.plot(seconds, state["mean_uS"], color=colour, label=f"{state['target_uS']:.3g} uS")
    axis.set(xscale="log", xlabel="time after the write", ylabel="conductance (uS)")
    ticks = [(place, name) for place, name in (*UNITS, YEAR) if place <= 1.01 * seconds[-1]]
    axis.set_xticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=7, rotation=30)
    axis.minorticks_off()
    axis.set_title("mean and 5 to 95 % by target", fontsize=9)
    axis.legend(frameon=False, fontsize=7)


def fit_picture(path: Path, cell: Cell, trains: PulseTrains) -> None:
    """Measured pulse trains beside those of the fitted description: mean steps by state, and one staircase.

    Args:
        path: the picture to write.
        cell: the fitted device.
        trains: what was measured.
    """
    trains = without_outliers(trains)[0]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    low, high = bounds_uS(cell)
    states = np.linspace(low, high, 101)
    pulse = cell.pulse
    assert pulse is not None
    for direction, colour, name, step in ((1, BLUE, "SET", pulse.step_uS), (-1, ORANGE, "RESET", -pulse.down_uS)):
        before, change = _steps(trains, direction)
        if not before.size:
            continue
        left.plot(before, change, ".", ms=1.5, alpha=0.15, color=colour, rasterized=True)
        fitted = step * step_factor(states, up=direction > 0, low=low, high=high, cell=cell)
        left.plot(states, fitted * np.ones_like(states), color=colour, lw=2, label=f"{name}, fitted mean")
    extent = EXTENT * np.percentile(np.abs(np.concatenate([_steps(trains, way)[1] for way in (1, -1)])), 98)
    left.set_ylim(-extent, extent)
    left.axhline(0, color=GREY, lw=0.6)
    left.set(xlabel="conductance before the pulse (uS)", ylabel="step (uS)")
    left.set_title("single steps without outliers, and the fitted mean", fontsize=9)
    left.legend(frameon=False, fontsize=7)
    _draw_staircases(right, cell, trains)
    figure.suptitle(f"measured and fitted: {pulse.law_name}", fontsize=11)
    save_picture(figure, path)


def _steps(trains: PulseTrains, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """States before, and steps, of single pulses of a direction, uS."""
    joined = (np.diff(trains.device) == 0) & (np.diff(trains.train) == 0) & (np.diff(trains.pulse) == 1)
    at = np.flatnonzero(joined & (trains.direction[1:] == direction))
    return trains.conductance[at], trains.conductance[at + 1] - trains.conductance[at]


def _draw_staircases(axis: Axes, cell: Cell, trains: PulseTrains) -> None:
    """Median and 5 to 95 % of the devices by pulse number, and the fitted mean from the median start."""
    first = trains.train == trains.train.min()
    numbers = np.unique(trains.pulse[first])
    values = [trains.conductance[first & (trains.pulse == number)] for number in numbers]
    low, middle, high = np.array([np.percentile(value, (5, 50, 95)) for value in values]).T
    axis.fill_between(numbers, low, high, color=GREY, alpha=0.3, lw=0, label="measured, 5 to 95 %")
    axis.plot(numbers, middle, color=GREY, lw=1.5, label="measured, median")
    directions = [int(np.median(trains.direction[first & (trains.pulse == number)])) for number in numbers]
    bounds, pulse, held = bounds_uS(cell), cell.pulse, [float(middle[0])]
    assert pulse is not None
    for direction, count in zip(directions[1:], np.diff(numbers), strict=True):
        now = held[-1]
        for _ in range(int(count) if direction else 0):
            step = pulse.step_uS if direction > 0 else -pulse.down_uS
            factor = step_factor(np.array(now), up=direction > 0, low=bounds[0], high=bounds[1], cell=cell)
            before, now = now, float(np.clip(now + step * factor, min(now, bounds[0]), max(now, bounds[1])))
            if abs(now - before) < STILL * (bounds[1] - bounds[0]):  # the rest of a long gap in the numbers
                break
        held.append(now)
    axis.plot(numbers, held, color=BLUE, lw=1.8, label="fitted mean")
    axis.set(xlabel="pulse number", ylabel="conductance (uS)")
    axis.set_title("staircase", fontsize=9)
    axis.legend(frameon=False, fontsize=7)
