"""Draw the pictures of docs/devices.md into docs/pictures: `python -m docs.pictures`."""

from pathlib import Path
from typing import Any

import numpy as np

import cimc
from cimc.chip_cell import Cell
from cimc.report.pictures import BLUE, GREY, ORANGE, plt, save
from runtime.devices.pulse_laws import step_factor

PICTURES = Path(__file__).parent / "pictures"
PULSES = 50
WINDOW = {"conductance_min_uS": 0.0, "conductance_max_uS": 100.0}
# Of each law one that takes about as many pulses through the window.
LAWS: dict[str, dict[str, Any]] = {
    "linear": {"step_uS": 2.0},
    "soft-bounds": {"step_uS": 4.0},
    "exponential": {"step_uS": 2.0, "nonlinearity": 3.0},
    "exponential-step": {"step_uS": 2.5},
    "power": {"step_uS": 3.5, "exponent": 2.0},
    "piecewise": {"step_uS": 2.5, "factors": [0.3, 1.2, 1.0, 0.9, 0.3]},
    "tabulated": {"step_uS": 2.0, "curve_uS": [float(100 * (n / 50) ** 0.6) for n in range(51)]},
    "binary": {"step_uS": 100.0, "probability": 0.1},
}


def draw_laws(path: Path) -> None:
    """Mean conductance over SET and then RESET pulses, a panel a law."""
    figure, axes = plt.subplots(2, 4, figsize=(10, 4.4), layout="constrained", sharex=True, sharey=True)
    for axis, (law, keys) in zip(axes.flat, LAWS.items(), strict=True):
        cell = Cell.model_validate({"technology": law, "read_voltage_V": 0.2, "pulse": {"law": law, **keys}, **WINDOW})
        up = staircase(cell, 0.0, up=True)
        axis.plot(range(PULSES + 1), up, color=BLUE)
        axis.plot(range(PULSES, 2 * PULSES + 1), staircase(cell, up[-1], up=False), color=ORANGE)
        axis.axvline(PULSES, color=GREY, lw=0.8, ls=":")
        axis.set_title(law, fontsize=9)
    for axis in axes[1]:
        axis.set_xlabel("pulse number")
    for axis in axes[:, 0]:
        axis.set_ylabel("conductance (uS)")
    save(figure, path)


def staircase(cell: Cell, start: float, *, up: bool) -> list[float]:
    """Mean conductances from a start, uS, pulse by pulse."""
    assert cell.pulse is not None
    low, high = cell.conductance_min_uS, cell.conductance_max_uS
    held = [start]
    for _ in range(PULSES):
        step = cell.pulse.step_uS if up else -cell.pulse.down_uS
        factor = step_factor(np.array(held[-1]), up=up, low=low, high=high, cell=cell)
        held.append(float(np.clip(held[-1] + step * factor, low, high)))
    return held


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    draw_laws(PICTURES / "pulse-laws.png")
    cimc.plot_device("pcm-pair", PICTURES / "pcm-pair.png")
    print(f"wrote {PICTURES}")
