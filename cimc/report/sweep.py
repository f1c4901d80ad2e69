"""The report of a sweep: lines with their spread over seeds, heat maps, the Pareto front, and a table of all points."""

import math
import statistics
from collections.abc import Sequence
from html import escape
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from cimc.report.charts import Line, legend_rows
from cimc.report.figure import Cell, Figure, figures
from cimc.report.html import page_of, section, table
from cimc.report.svg import (
    BLUE,
    GREY,
    INK,
    MUTED,
    ORANGE,
    SERIES,
    dot,
    drawing,
    fitted,
    line,
    polyline,
    rectangle,
    shortened,
    text,
    text_width,
    ticks_between,
)
from cimc.shares import is_share, mark_text, measure_text
from cimc.sweep_result import Group, SweepResult, figure_text, read_sweep
from cimc.sweep_spec import Objective, point_text
from cimc.sweep_values import canonical, value_text

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BASE = 350, 230, 56, 18, 338, 190
CELL, NAMES = 54, 78  # pixels of a heat map
MOST_LINES, MOST_MARKS, MOST_CELLS = 6, 8, 16


class Picture(NamedTuple):
    """A figure; kind: lines, cells or front."""

    kind: str
    figure: Figure


def sweep_report(folder: str | Path) -> str:
    """The page of a sweep's folder, also of one that is not complete. Raises CimcError where it holds none."""
    result = read_sweep(folder)
    title = f"Sweep of {result.name}"
    return page_of(title, f"{len(result.groups)} points, {len(result.rows)} rows.", sweep_sections(result))


def sweep_sections(result: SweepResult) -> list[str]:
    """The sections of the page, as HTML."""
    shown = pictures(result)
    drawn = figures(picture.figure for picture in shown)
    head, rows = result.table()
    aims = ", ".join(map(str, result.aims()))
    note = (
        f"Objectives: {aims or 'none'}. Lines and cells are means over seeds and over the fields that are not named "
        "with them, bars one standard deviation over seeds (none with one seed); the darker a cell, the larger. "
        + ("" if result.complete else "The sweep is not complete: the same command goes on. ")
    )
    sections = [section("Pictures", note, drawn)] if shown else []
    if result.failed:
        reasons = {row.error or "": point_text(row.fields) for row in reversed(result.failed)}
        listed = [[escape(reason), escape(fields)] for reason, fields in reasons.items()]
        sections.append(
            section("Failed", f"{len(result.failed)} rows have no figures.", table(["why", "such as"], listed))
        )
    seeds = any(group.count > 1 for group in result.groups)
    said = "Means ± standard deviation over seeds." if seeds else "One seed."
    cells = [[escape(cell) for cell in row] for row in rows]
    return [*sections, section("Points", said, table(head, cells))]


def pictures(result: SweepResult) -> list[Picture]:
    """What can be drawn of a sweep: lines by each field, heat maps of pairs, the front of two objectives."""
    groups, aims = [group for group in result.groups if group.count], result.aims()
    if not groups or not aims:
        return []
    drawn = [lines(groups, field, aim.figure, result.varied) for aim in aims for field in result.varied[:4]]
    for one, other in combinations(result.varied[:3], 2):
        if max(len(_values(groups, one)), len(_values(groups, other))) <= MOST_CELLS:
            drawn.append(heat_map(groups, one, other, aims[0].figure))
    drawn += [front(groups, result.pareto(pair), pair) for pair in combinations(aims[:3], 2)]
    return drawn


def lines(groups: Sequence[Group], field: str, figure: str, varied: Sequence[str]) -> Picture:
    """A figure over a field: one line for each combination of the values of the others, as far as these are few."""
    split = _split(groups, [name for name in varied if name != field])
    values = _values(groups, field)
    series: dict[str, list[tuple[Any, float, float]]] = {}
    for combination in product(*(_values(groups, name) for name in split)):
        stated = dict(zip(split, combination, strict=True))
        name = ", ".join(f"{name} {value_text(value)}" for name, value in stated.items())
        for value in values:
            fields = {**stated, field: value}
            found = [g for g in groups if figure in g.mean and all(_is(g, *one) for one in fields.items())]
            if found:
                series.setdefault(name, []).append((value, *_mean(found, figure)))
    ends = [mean + side * sd for points in series.values() for _, mean, sd in points for side in (-1, 1)]
    ups = ticks_between(min(ends, default=0.0), max(ends, default=1.0))
    across = _Across(values)
    parts = _axes(ups, across, figure, field)
    for index, (name, points) in enumerate(series.items()):
        colour = SERIES[index % len(SERIES)]
        placed = [
            (across.place(value), _up(mean, ups), _up(mean - sd, ups), _up(mean + sd, ups))
            for value, mean, sd in points
        ]
        parts += [line(x, low, x, high, colour, 1) for x, _, low, high in placed if low != high]
        parts.append(polyline([(x, y) for x, y, _, _ in placed], colour))
        parts += [
            dot(x, y, 3, colour, f"{name} {field} {value_text(value)}: {_spread(figure, mean, sd)}".strip())
            for (x, y, _, _), (value, mean, sd) in zip(placed, points, strict=True)
        ]
    named = [Line(name, SERIES[index % len(SERIES)], ()) for index, name in enumerate(series) if name]
    legend, room = legend_rows(named, WIDTH, 10) if named else ([], 0.0)
    body = [*legend, f'<g transform="translate(0 {room:g})">', *parts, "</g>"]
    title = f"{figure.replace('_', ' ')} by {field}"
    rows = [[name, _plain(value), mean, sd] for name, points in series.items() for value, mean, sd in points]
    return Picture(
        "lines", Figure(title, drawing(WIDTH, HEIGHT + room, body, title), ["line", field, figure, "sd"], rows)
    )


def heat_map(groups: Sequence[Group], across: str, up: str, figure: str) -> Picture:
    """A figure over two fields: the darker, the larger."""
    columns, rows = _values(groups, across), _values(groups, up)
    found = {}
    for row, y in enumerate(rows):
        for column, x in enumerate(columns):
            here = [g for g in groups if _is(g, across, x) and _is(g, up, y) and figure in g.mean]
            if here:
                found[row, column] = _mean(here, figure)[0]
    low, high = min(found.values(), default=0.0), max(found.values(), default=1.0)
    title = f"{figure.replace('_', ' ')} by {across} and {up}"
    parts, base = [], 26 * len(rows)
    for (row, column), value in found.items():
        x, y = NAMES + CELL * column, base - 26 * (row + 1)
        depth = 0.08 + 0.52 * (value - low) / ((high - low) or 1.0)
        label = f"{across} {value_text(columns[column])}, {up} {value_text(rows[row])}: {measure_text(figure, value)}"
        parts.append(rectangle(x, y, CELL - 2, 24, BLUE, "", label, opacity=depth))
        parts.append(text(x + CELL / 2 - 1, y + 16, measure_text(figure, value), 10, "middle", INK))
    for row, value in enumerate(rows):
        parts.append(text(NAMES - 6, base - 26 * row - 10, shortened(value_text(value), 12), 10, "end", MUTED))
    for column, value in enumerate(columns):
        label = shortened(value_text(value), 9)
        parts.append(text(NAMES + CELL * (column + 0.5), base + 12, label, 10, "middle", MUTED))
    width = float(NAMES + CELL * len(columns))
    for place, label in enumerate((f"across: {across}", f"up: {up}")):
        parts.append(text(4, base + 28 + 14 * place, label, 10, "start", MUTED))
        width = max(width, 8 + text_width(label, 10))
    svg = drawing(width, base + 50, parts, title)
    listed = [[_plain(columns[column]), _plain(rows[row]), value] for (row, column), value in found.items()]
    return Picture("cells", Figure(title, svg, [across, up, figure], listed))


def front(groups: Sequence[Group], best: Sequence[Group], aims: Sequence[Objective]) -> Picture:
    """All points over two objectives; those that no other one beats are joined."""
    up, along = aims
    shown = [group for group in groups if up.figure in group.mean and along.figure in group.mean]
    ups = ticks_between(*_ends([group.mean[up.figure] for group in shown]))
    across = _Across(ticks_between(*_ends([group.mean[along.figure] for group in shown])))
    title = f"{up.figure.replace('_', ' ')} against {along.figure.replace('_', ' ')}"
    parts = _axes(ups, across, up.figure, along.figure)
    on = {canonical(group.fields) for group in best}
    ordered = sorted(best, key=lambda group: group.mean[along.figure])
    parts.append(polyline([(across.place(g.mean[along.figure]), _up(g.mean[up.figure], ups)) for g in ordered], ORANGE))
    for group in sorted(shown, key=lambda group: canonical(group.fields) in on):
        x, y = across.place(group.mean[along.figure]), _up(group.mean[up.figure], ups)
        best_one = canonical(group.fields) in on
        label = f"{point_text(group.fields)}: {figure_text(up.figure, group)}, {figure_text(along.figure, group)}"
        parts.append(dot(x, y, 4 if best_one else 3, ORANGE if best_one else GREY, label))
    rows: list[list[Cell]] = [
        [point_text(g.fields), g.mean[up.figure], g.mean[along.figure], canonical(g.fields) in on] for g in shown
    ]
    return Picture(
        "front", Figure(title, drawing(WIDTH, HEIGHT, parts, title), ["point", up.figure, along.figure, "front"], rows)
    )


class _Across:
    """The horizontal axis: numbers to scale, by their logarithm where they span more than 50 times; else in order."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        self.log = self.numbers and min(values) > 0 and max(values) / min(values) > 50

    def place(self, value: Any) -> float:
        """Pixels from the left."""
        if not self.numbers:
            return self._between((self.values.index(value) + 0.5) / len(self.values))
        scaled = [math.log(number) if self.log else float(number) for number in (*self._ends(), value)]
        low, high, at = scaled
        return self._between(0.5 if high == low else (at - low) / (high - low))

    def marks(self) -> Sequence[Any]:
        """The values that are written below the axis."""
        return self.values if len(self.values) <= MOST_MARKS else self.values[:: -(-len(self.values) // MOST_MARKS)]

    def _ends(self) -> tuple[Any, Any]:
        return min(self.values), max(self.values)

    @staticmethod
    def _between(part: float) -> float:
        return LEFT + 10 + part * (RIGHT - LEFT - 20)


def _axes(ups: Sequence[float], across: _Across, figure: str, along: str) -> list[str]:
    """Marks of a figure upwards, and of a field or another figure across, with its name below them."""
    parts = []
    for mark in ups:
        y = _up(mark, ups)
        parts += [line(LEFT, y, RIGHT, y), text(LEFT - 5, y + 4, mark_text(figure, mark), 10, "end", MUTED)]
    for value in across.marks():
        label = mark_text(along, value) if is_share(along) else shortened(value_text(value), 9)
        parts.append(text(across.place(value), BASE + 16, label, 10, "middle", MUTED))
    return [*parts, text(LEFT, BASE + 34, fitted(along, RIGHT - LEFT, 10), 10, "start", MUTED)]


def _up(value: float, ups: Sequence[float]) -> float:
    return BASE - (value - ups[0]) / ((ups[-1] - ups[0]) or 1.0) * (BASE - TOP)


def _ends(numbers: Sequence[float]) -> tuple[float, float]:
    return min(numbers, default=0.0), max(numbers, default=1.0)


def _values(groups: Sequence[Group], field: str) -> list[Any]:
    """The values of a field: numbers in their order, others as they come."""
    found = list({canonical(group.fields.get(field)): group.fields.get(field) for group in groups}.values())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    return sorted(found) if numbers else found


def _plain(value: Any) -> Any:
    """Numbers as they are, all else as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else value_text(value)


def _is(group: Group, field: str, value: Any) -> bool:
    return bool(group.fields.get(field) == value)


def _mean(groups: Sequence[Group], figure: str) -> tuple[float, float]:
    """Mean over the points and their seeds, and sd over seeds: of several points the root mean square of theirs."""
    variance = statistics.fmean(group.sd[figure] ** 2 for group in groups)
    return statistics.fmean(group.mean[figure] for group in groups), math.sqrt(variance)


def _split(groups: Sequence[Group], others: Sequence[str]) -> list[str]:
    """The fields of which every combination of values gets a line of its own: those that give few lines."""
    split, count = [], 1
    for name in others:
        if count * len(_values(groups, name)) <= MOST_LINES:
            split.append(name)
            count *= len(_values(groups, name))
    return split


def _spread(figure: str, mean: float, sd: float) -> str:
    return f"{measure_text(figure, mean)}, sd {measure_text(figure, sd)}"
