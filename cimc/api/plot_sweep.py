"""The pictures of a sweep by matplotlib, for notebooks and papers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cimc.errors import CimcError
from cimc.report.drawing import picture_format, save_picture
from cimc.report.figure import Figure as Numbers
from cimc.report.sweep import pictures
from cimc.sweep_result import SweepResult

COLUMNS = 3  # panels beside each other


def plot_sweep(result: SweepResult, output: str | Path | None = None) -> Figure:
    """Draw a sweep: a panel for each picture of its report (lines with spread, heat maps, Pareto front).

    Args:
        result: of `sweep`.
        output: PNG, PDF or SVG to write; None: none.

    Raises:
        CimcError: there is nothing to draw, or the file cannot be written.
    """
    if output is not None:
        picture_format(output)
    shown = pictures(result)
    if not shown:
        raise CimcError("no point of the sweep has figures and a field that varies; there is nothing to draw")
    across = min(COLUMNS, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(4.0 * across, 3.2 * down), layout="constrained")
    for index, picture in enumerate(shown):
        axes = figure.add_subplot(down, across, index + 1)
        axes.set_title(picture.figure.title, fontsize=9, parse_math=False)
        _DRAWN[picture.kind](axes, picture.figure)
    if output is not None:
        save_picture(figure, output)
    return figure


def _lines(axes: Axes, picture: Numbers) -> None:
    _, field, figure, _ = picture.head
    for name in dict.fromkeys(row[0] for row in picture.rows):
        points: list[Sequence[Any]] = [row for row in picture.rows if row[0] == name]
        x, y, sd = ([row[place] for row in points] for place in (1, 2, 3))
        axes.errorbar(x, y, yerr=sd if any(sd) else None, marker="o", markersize=3, capsize=2, label=name or None)
    axes.set(xlabel=field, ylabel=figure)
    if any(row[0] for row in picture.rows):
        axes.legend(fontsize=7)


def _cells(axes: Axes, picture: Numbers) -> None:
    across, up, _ = picture.head
    columns, rows = ([*dict.fromkeys(row[place] for row in picture.rows)] for place in (0, 1))
    found = {(row[1], row[0]): row[2] for row in picture.rows}
    grid = [[found.get((row, column), float("nan")) for column in columns] for row in rows]
    axes.imshow(grid, origin="lower", cmap="Blues", aspect="auto")
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            if value == value:  # no NaN
                axes.text(x, y, f"{value:.3g}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(columns)), map(str, columns))
    axes.set_yticks(range(len(rows)), map(str, rows))
    axes.set(xlabel=across, ylabel=up)


def _front(axes: Axes, picture: Numbers) -> None:
    _, up, along, _ = picture.head
    rows: Sequence[Sequence[Any]] = picture.rows
    others = [row for row in rows if not row[3]]
    best = sorted((row for row in rows if row[3]), key=lambda row: row[2])
    axes.plot([row[2] for row in others], [row[1] for row in others], "o", color="0.6", markersize=3)
    axes.plot([row[2] for row in best], [row[1] for row in best], "o-", color="C1", markersize=4, label="front")
    axes.set(xlabel=along, ylabel=up)
    axes.legend(fontsize=7)


_DRAWN: dict[str, Callable[[Axes, Numbers], None]] = {"lines": _lines, "cells": _cells, "front": _front}
