"""Charts of the report: bars, histograms, lines, and values of layers over epochs as shades. All inline SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cimc.report.figure import Cell, Figure
from cimc.report.svg import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    dot,
    drawing,
    fitted,
    line,
    polyline,
    rectangle,
    text,
    text_width,
    ticks_between,
)

MOST_POINTS = 200  # of a line; of more, every n-th and the last
LANE = 22  # pixels of a bar or row


def bars(title: str, rows: Sequence[tuple[str, float, str]], unit: str, colour: str = BLUE) -> Figure:
    """Horizontal bars: (name, value, value as text), the longest fills the width; unit: of the values, in the CSV."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    names = min(200.0, max((text_width(name, 11) for name, _, _ in rows), default=0.0)) + 8
    labels = max((text_width(label, 11) for _, _, label in rows), default=0.0) + 12
    room = max(90.0, 400 - names)
    parts = []
    for index, (name, value, label) in enumerate(rows):
        y, width = index * LANE, room * max(value, 0.0) / most
        parts.append(text(names - 8, y + 15, fitted(name, names - 8), 11, "end"))
        parts.append(rectangle(names, y + 4, max(0.5, width), LANE - 8, colour, "", f"{name}: {label}", 2))
        parts.append(text(names + width + 6, y + 15, label, 11, "start", MUTED))
    svg = drawing(names + room + labels, LANE * len(rows) + 4, parts, title)
    return Figure(title, svg, ["name", unit], [(name, value) for name, value, _ in rows])


@dataclass(frozen=True)
class Distribution:
    """Counts in bins of the same width from low to high, in a unit ("": none)."""

    counts: npt.NDArray[np.int64]
    low: float
    high: float
    unit: str

    @property
    def edges(self) -> list[float]:
        """Where the bins begin, and where the last ends."""
        return np.linspace(self.low, self.high, len(self.counts) + 1).tolist()


def histogram(
    title: str,
    found: Distribution,
    colour: str,
    *,
    caption: str = "",
    before: Distribution | None = None,
    cut: bool = True,
) -> Figure:
    """Counts as bars, those of `before` (in the same bins, from the same number of values) as a line over them.

    cut: whether a bin of more than twice the next largest, such as the idle devices, is cut and its share written
    beside it.
    """
    width, height, base, top = 210, 112, 92, 16
    second = max(sorted(shown.counts.tolist())[-2] for shown in (found, before) if shown is not None) or 1
    most = max(int(shown.counts.max()) for shown in (found, before) if shown is not None) or 1
    most = min(most, 2 * second) if cut else most
    step = (width - 12) / len(found.counts)
    total, edges = max(1, int(found.counts.sum())), found.edges
    parts = []
    for place, count in enumerate(found.counts.tolist()):
        if count:
            bar = (base - top) * min(1.0, count / most)
            note = f"{edges[place]:.3g} to {edges[place + 1]:.3g} {found.unit}: {count / total:.2%}"
            gap = 0.4 if step < 4 else 1.0
            parts.append(rectangle(6 + place * step, base - bar, step - gap, bar, colour, "", note))
            if count > most:
                side = "start" if place < len(found.counts) / 2 else "end"
                x = 6 + (place + (side == "end")) * step
                parts.append(line(x - 1, base - bar + 5, x + step + 1, base - bar + 2, PAPER, 2))
                parts.append(text(x, base - bar - 4, f"{count / total:.0%}", 10, side, MUTED))
    if before is not None:
        parts.append(polyline(_outline(before, step, base, base - top, most), INK, 1))
    parts.append(line(6, base, width - 6, base, INK))
    parts.append(text(6, height - 6, f"{found.low:.3g}", 10, "start", MUTED))
    parts.append(text(width - 6, height - 6, f"{found.high:.3g} {found.unit}".strip(), 10, "end", MUTED))
    unit = f" ({found.unit})" if found.unit else ""
    head = [f"from{unit}", f"to{unit}", "count", *(["count before"] if before is not None else [])]
    columns: list[Sequence[Cell]] = [edges[:-1], edges[1:], found.counts.tolist()]
    if before is not None:
        columns.append(before.counts.tolist())
    return Figure(title, drawing(width, height, parts, title), head, list(zip(*columns, strict=True)), caption)


def _outline(found: Distribution, step: float, base: float, room: float, most: float) -> list[tuple[float, float]]:
    points = [(6.0, base)]
    for place, count in enumerate(found.counts.tolist()):
        y = base - room * min(1.0, count / most)
        points += [(6 + place * step, y), (6 + (place + 1) * step, y)]
    return points


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its colour, and its points (epoch, value)."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    show: Callable[[float], str],
    from_zero: bool = True,
    small: bool = False,
    across: str = "epoch",
    caption: str = "",
) -> Figure:
    """Values over the epochs, with a legend where there are several lines; what is not finite is left out.

    show: a value as text. from_zero: whether the axis begins at zero, or near the least value. small: one of many.
    across: what the first of a point is.
    """
    drawn = [Line(one.name, one.colour, _thinned(one.points)) for one in lines]
    points = [point for one in drawn for point in one.points]
    rows = [(one.name, x, y) for one in lines for x, y in one.points]
    width, height = (210, 124) if small else (350, 190)
    if not points:
        empty = drawing(width, 40, [text(4, 24, "not recorded", 11, "start", MUTED)], title)
        return Figure(title, empty, ["line", across, "value"], rows, caption)
    size = 10 if small else 11
    legend, top = legend_rows(drawn, width, size) if len(drawn) > 1 else ([], 10.0)
    values = [y for _, y in points]
    marks = ticks_between(min(0.0, *values) if from_zero else min(values), max(values), 3 if small else 4)
    first, last, low, high = min(x for x, _ in points), max(x for x, _ in points), marks[0], marks[-1]
    left = 6 + max(text_width(show(mark), size) for mark in marks)
    base, right = height - 22, width - 10

    def place(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / (last - first) if last > first else 0.5
        return left + 4 + share * (right - left - 4), base - (y - low) / (high - low) * (base - top)

    parts = legend
    for mark in marks:
        y = place(first, mark)[1]
        parts += [line(left, y, right, y), text(left - 4, y + size / 3, show(mark), size, "end", MUTED)]
    parts.append(text(left, height - 6, f"{across} {first:g}", size, "start", MUTED))
    if last > first:
        parts.append(text(right, height - 6, f"{last:g}", size, "end", MUTED))
    for one in drawn:
        placed = [place(*point) for point in one.points]
        if len(placed) > 1:
            parts.append(polyline(placed, one.colour, 1.8))
        for (x, y), (at, value) in zip(placed, one.points, strict=True):
            parts.append(dot(x, y, 2 if small else 2.5, one.colour, f"{one.name}, {across} {at:g}: {show(value)}"))
    return Figure(title, drawing(width, height, parts, title), ["line", across, "value"], rows, caption)


def legend_rows(lines: Sequence[Line], width: float, size: float) -> tuple[list[str], float]:
    """Names of lines with their colours, in as many rows as they take, and where the chart begins below them."""
    parts, x, y = [], 4.0, size
    for one in lines:
        name = fitted(one.name, width - 24, size)
        room = text_width(name, size) + 18
        if x > 4 and x + room > width:
            x, y = 4.0, y + size + 5
        parts += [rectangle(x, y - size / 2, 9, 3, one.colour), text(x + 13, y, name, size)]
        x += room + 6
    return parts, y + 12


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    finite = [point for point in points if math.isfinite(point[1])]
    step = -(-len(finite) // MOST_POINTS) or 1
    kept = finite[::step]
    return kept if not finite or kept[-1] == finite[-1] else [*kept, finite[-1]]


def shades(
    title: str,
    names: Sequence[str],
    columns: Sequence[str],
    values: npt.NDArray[np.floating],
    *,
    show: Callable[[float], str],
    across: str,
) -> Figure:
    """A table of shades [names, columns], darkest the largest value; with the values in them where there is room."""
    label = min(180.0, max((text_width(name, 11) for name in names), default=0.0)) + 10
    widest = max((text_width(show(float(value)), 10) for value in values.flat), default=0.0)
    cell = max(4.0, min(widest + 8, 640 / max(1, len(columns))))
    roomy, most = cell >= widest + 4, float(np.max(values, initial=0.0)) or 1.0
    every = max(1, math.ceil(max(map(len, columns), default=1) * 8 / cell))
    parts = [text(label - 10, 12, across, 10, "end", MUTED)]
    for place, column in enumerate(columns):
        if place % every == 0:
            parts.append(text(label + (place + 0.5) * cell, 12, column, 10, "middle", MUTED))
    for row, name in enumerate(names):
        y = 18 + row * LANE
        parts.append(text(label - 10, y + 15, fitted(name, label - 10), 11, "end"))
        for place, column in enumerate(columns):
            value = float(values[row, place])
            x, note = label + place * cell, f"{name}, {across} {column}: {show(value)}"
            shade = 0.06 + 0.5 * max(0.0, value) / most
            parts.append(rectangle(x, y, cell - 1, LANE - 2, BLUE, "", note, 2, shade))
            if roomy:
                parts.append(text(x + (cell - 1) / 2, y + 14, show(value), 10, "middle"))
    width = max(label + cell * len(columns), label + text_width(columns[-1] if columns else "", 10) + 20)
    rows = [
        (name, column, float(values[row, place]))
        for row, name in enumerate(names)
        for place, column in enumerate(columns)
    ]
    svg = drawing(width, 18 + LANE * len(names), parts, title)
    return Figure(title, svg, ["name", across, "value"], rows)
