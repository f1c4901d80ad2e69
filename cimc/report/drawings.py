"""The drawings of the report: array floor plan, pipeline timeline, bars, histograms, lines. All inline SVG."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.mapping import Block, Mapping
from cimc.report.svg import (
    BLUE,
    GREY,
    INK,
    LINE,
    MUTED,
    ORANGE,
    PAPER,
    UNUSED,
    dot,
    drawing,
    duration,
    layer_colour,
    line,
    pale,
    polyline,
    rectangle,
    shortened,
    text,
    ticks,
    ticks_between,
)
from cimc.schedule import Schedule

PAGE = 1120  # pixels
NAMES = 230  # of them for names on the left
MOST_POINTS = 200  # of a line; of more, every n-th and the last
MOST_BLOCKS = 40_000  # of more, an array shows how much each layer takes, not where


def floor_plan(mapping: Mapping, chip: Chip) -> str:
    """Every array with its blocks at their places, by core where the chip has cores; what is not used is pale."""
    held: defaultdict[int, list[tuple[int, Block]]] = defaultdict(list)
    for index, layer in enumerate(mapping.layers):
        for block in layer.blocks:
            held[block.array].append((index, block))
    cores: dict[int, list[int]] = defaultdict(list)
    placed = mapping.placement.cores if mapping.placement is not None else ()
    for array in range(mapping.arrays):
        cores[placed[array] if array < len(placed) else 0].append(array)
    exact = sum(len(blocks) for blocks in held.values()) <= MOST_BLOCKS
    if len(cores) < 2:
        return _plan_of_arrays(mapping, chip, held, exact)
    return _plan_of_cores(mapping, chip, held, cores, exact)


def _array_size(arrays: int, chip: Chip) -> tuple[float, float]:
    side = next(
        side for most, side in ((8, 130), (32, 84), (128, 50), (512, 30), (2048, 20), (10**9, 11)) if arrays <= most
    )
    aspect = math.sqrt(min(2.5, max(0.4, chip.array.columns / chip.array.rows)))
    return side * aspect, side / aspect


def _plan_of_arrays(mapping: Mapping, chip: Chip, held: Dictionary[int, list[tuple[int, Block]]], exact: bool) -> str:
    width, height = _array_size(mapping.arrays, chip)
    gap = 3 if width < 40 else 10
    label = 12 if width >= 40 else 0
    in_row = max(1, int((PAGE + gap) // (width + gap)))
    parts = []
    for array in range(mapping.arrays):
        x, y = array % in_row * (width + gap), array // in_row * (height + gap + label)
        parts += _array(x, y + label, width, height, array, held.get(array, []), mapping, chip, exact)
        if label:
            parts.append(text(x, y + label - 3, str(array), 9, "start", MUTED))
    rows = -(-mapping.arrays // in_row)
    return drawing(PAGE, rows * (height + gap + label), parts, "floor plan of the arrays")


def _plan_of_cores(
    mapping: Mapping,
    chip: Chip,
    held: Dictionary[int, list[tuple[int, Block]]],
    cores: Dictionary[int, list[int]],
    exact: bool,
) -> str:
    placement = mapping.placement
    wide = placement.mesh_columns if placement is not None else 1
    shown = range(max(cores) + 1) if max(cores) < 4 * len(cores) + 16 else sorted(cores)
    in_row = wide if 2 <= wide <= 16 else min(16, len(shown))
    most = max(len(arrays) for arrays in cores.values())
    across = math.ceil(math.sqrt(most * chip.array.rows / chip.array.columns)) if most > 1 else 1
    panel = PAGE / in_row
    width = (panel - 10) / across
    height = width * min(2.5, max(0.4, chip.array.rows / chip.array.columns))
    tall = -(-most // across) * height + 22
    parts = []
    for place, core in enumerate(shown):
        x, y = place % in_row * panel, place // in_row * tall
        arrays = cores.get(core, [])
        parts.append(rectangle(x, y, panel - 5, tall - 5, PAPER, LINE, f"core {core}: {len(arrays)} arrays in use", 3))
        parts.append(text(x + 4, y + 11, f"{core}" if panel < 60 else f"core {core}", 9, "start", MUTED))
        for index, array in enumerate(arrays):
            column, row = index % across, index // across
            left, top = x + 3 + column * width, y + 15 + row * height
            parts += _array(left, top, width - 1, height - 1, array, held.get(array, []), mapping, chip, exact)
    rows = -(-len(shown) // in_row)
    return drawing(PAGE, rows * tall, parts, "floor plan of the arrays by core")


def _array(
    x: float,
    y: float,
    width: float,
    height: float,
    array: int,
    blocks: Sequence[tuple[int, Block]],
    mapping: Mapping,
    chip: Chip,
    exact: bool,
) -> list[str]:
    """One array: its blocks coloured by layer, the rest pale; the layer's number in it where there is room."""
    cells = chip.array.rows * chip.array.columns
    taken: defaultdict[int, int] = defaultdict(int)
    for index, b in blocks:
        rows, columns = mapping.lines_of(b)
        taken[index] += len(rows) * len(columns)
    names = "; ".join(f"{mapping.layers[index].name} {count / cells:.0%}" for index, count in taken.items())
    ground = UNUSED if not taken else PAPER if len(taken) > 1 else pale(layer_colour(next(iter(taken))))
    parts = [rectangle(x, y, width, height, ground, GREY, f"array {array}: {names or 'free'}")]
    if exact:
        for index, b in blocks:
            rows, columns = mapping.lines_of(b)
            left, top = columns.start / chip.array.columns, rows.start / chip.array.rows
            wide, tall = len(columns) / chip.array.columns, len(rows) / chip.array.rows
            colour = layer_colour(index)
            parts.append(_inside(x + left * width, y + top * height, wide * width, tall * height, colour))
    else:
        top = 0.0
        for index, count in taken.items():
            parts.append(_inside(x, y + top * height, width, count / cells * height, layer_colour(index)))
            top += count / cells
    if len(taken) == 1 and min(width, height) >= 10:
        number = str(next(iter(taken)) + 1)
        size = min(12.0, 0.9 * width / max(2, len(number)) * 1.3, height * 0.7)
        parts.append(text(x + width / 2, y + height / 2 + size * 0.35, number, round(size, 1), "middle"))
    return parts


def _inside(x: float, y: float, width: float, height: float, colour: str) -> str:
    # No pointer events: the title of the array below shows.
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}" class="b"/>'


def timeline(mapping: Mapping) -> str:
    """When each layer works on one image: crossbars as bars, the digital work after them thinner, critical path below.

    Without a schedule the layers stand one after the other, each with the time of its arrays.
    """
    if mapping.schedule is None:
        start, bars = 0.0, {}
        for cost in mapping.cost.layers:
            bars[cost.name] = (start, start + cost.latency_ms * 1e6)
            start += cost.latency_ms * 1e6
        return _lanes(mapping, bars, {}, (), start)
    schedule = mapping.schedule
    return _lanes(
        mapping,
        _spans(schedule, "crossbar"),
        _spans(schedule, "digital"),
        [(step.layer, step.start_ns, step.stop_ns) for step in schedule.critical_path],
        schedule.latency_ns,
    )


def _spans(schedule: Schedule, kind: str) -> dict[str, tuple[float, float]]:
    """First start and last stop of the stages of each layer."""
    spans: dict[str, tuple[float, float]] = {}
    for stage in schedule.stages:
        if stage.kind == kind and stage.stop_ns > stage.start_ns:
            start, stop = spans.get(stage.layer, (math.inf, 0.0))
            spans[stage.layer] = (min(start, stage.start_ns), max(stop, stage.stop_ns))
    return spans


def _lanes(
    mapping: Mapping,
    crossbars: Dictionary[str, tuple[float, float]],
    digital: Dictionary[str, tuple[float, float]],
    path: Sequence[tuple[str, float, float]],
    end: float,
) -> str:
    names = ([""] if "" in digital else []) + [layer.name for layer in mapping.layers]
    numbers = {layer.name: index for index, layer in enumerate(mapping.layers)}
    lane, top = 20, 26
    height = top + lane * len(names) + 6
    scale = (PAGE - NAMES - 30) / end if end else 0.0
    parts = []
    for tick in ticks(end, 8):
        x = NAMES + tick * scale
        parts += [
            line(x, top - 6, x, height - 6),
            text(x, top - 10, duration(tick) if tick else "0", 10, "middle", MUTED),
        ]
    for index, name in enumerate(names):
        y = top + index * lane
        label = f"{numbers[name] + 1}  {shortened(name, 34)}" if name else "before the first layer"
        parts.append(text(NAMES - 8, y + 13, label, 11, "end"))
        if name in digital:
            start, stop = digital[name]
            note = f"{name} digital work: {duration(start)} to {duration(stop)}"
            parts.append(rectangle(NAMES + start * scale, y + 12, max(0.7, (stop - start) * scale), 3, GREY, "", note))
        if name in crossbars:
            start, stop = crossbars[name]
            note = f"{name}: {duration(start)} to {duration(stop)}"
            colour = layer_colour(numbers[name])
            parts.append(
                rectangle(NAMES + start * scale, y + 3, max(0.7, (stop - start) * scale), 9, colour, "", note, 1)
            )
    for name, start, stop in path:
        if name in names and stop > start:
            y, note = top + names.index(name) * lane + 15, f"critical: {name or 'input'}, {duration(stop - start)}"
            parts.append(rectangle(NAMES + start * scale, y, max(0.7, (stop - start) * scale), 3, ORANGE, "", note))
    return drawing(PAGE, height, parts, "timeline of one input")


def bars(rows: Sequence[tuple[str, float, str]], colour: str = BLUE) -> str:
    """Horizontal bars: (name, value, value as text), the longest fills the width."""
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    room, lane = 330.0, 22
    parts = []
    for index, (name, value, label) in enumerate(rows):
        y = index * lane
        parts.append(text(150, y + 15, shortened(name, 24), 11, "end"))
        parts.append(rectangle(158, y + 4, max(0.5, room * value / most), lane - 8, colour, "", f"{name}: {label}", 2))
        parts.append(text(164 + room * value / most, y + 15, label, 11, "start", MUTED))
    return drawing(620, lane * len(rows) + 4, parts, "bars")


def histogram(title: str, counts: npt.NDArray[np.int64], low: float, high: float, unit: str, index: int) -> str:
    """Devices by conductance (or weights) from `low` to `high`.

    A bin of more than twice the next largest, such as the idle devices, is cut and its share written beside it.
    """
    width, height, base = 208, 116, 96
    second = int(np.sort(counts)[-2]) or 1
    most = min(int(counts.max()), 2 * second)
    step, total = (width - 12) / len(counts), max(1, int(counts.sum()))
    parts = [text(6, 12, shortened(title, 34), 10)]
    for place, count in enumerate(counts.tolist()):
        if count:
            left, bar = low + (high - low) * place / len(counts), (base - 34) * min(1.0, count / most)
            note = f"{left:.3g} to {left + (high - low) / len(counts):.3g} {unit}: {count / total:.2%}"
            parts.append(rectangle(6 + place * step, base - bar, step - 0.4, bar, layer_colour(index), "", note))
            if count > most:
                side = "start" if place < len(counts) / 2 else "end"
                x = 6 + (place + (side == "end")) * step
                parts.append(line(x - 1, base - bar + 5, x + step + 1, base - bar + 2, PAPER, 2))
                parts.append(text(x, base - bar - 4, f"{count / total:.0%}", 9, side, MUTED))
    parts.append(line(6, base, width - 6, base, INK))
    parts.append(text(6, height - 7, f"{low:.3g}", 9, "start", MUTED))
    parts.append(text(width - 6, height - 7, f"{high:.3g} {unit}", 9, "end", MUTED))
    return drawing(width, height, parts, f"histogram of {title}")


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its colour, and its points (epoch, value)."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


def line_chart(
    title: str, lines: Sequence[Line], *, show: Callable[[float], str], from_zero: bool = True, small: bool = False
) -> str:
    """Values over the epochs, with a legend where there are several lines; what is not finite is left out.

    show: a value as text. from_zero: whether the axis begins at zero, or near the least value. small: one of many.
    """
    width, height, left = (208, 128, 40) if small else (360, 190, 48)
    size, top, base, right = (9, 32, height - 20, width - 8) if small else (11, 40, height - 26, width - 12)
    drawn = [Line(one.name, one.colour, _thinned(one.points)) for one in lines]
    points = [point for one in drawn for point in one.points]
    parts = [text(4, size + 3, shortened(title, 34 if small else 44), size + 1)]
    if not points:
        return drawing(width, height, [*parts, text(4, top + size, "not recorded", size, "start", MUTED)], title)
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    values = [y for _, y in points]
    marks = ticks_between(min(0.0, *values) if from_zero else min(values), max(values), 3 if small else 4)
    low, high = marks[0], marks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return left + across * (right - left), base - (y - low) / (high - low) * (base - top)

    for mark in marks:
        y = place(first, mark)[1]
        parts += [line(left, y, right, y), text(left - 4, y + size / 3, show(mark), size - 1, "end", MUTED)]
    parts.append(text(left, height - 6, f"epoch {first:g}", size - 1, "start", MUTED))
    if last > first:
        parts.append(text(right, height - 6, f"{last:g}", size - 1, "end", MUTED))
    for index, one in enumerate(drawn):
        placed = [place(*point) for point in one.points]
        if len(placed) > 1:
            parts.append(polyline(placed, one.colour))
        for (x, y), (epoch, value) in zip(placed, one.points, strict=True):
            parts.append(dot(x, y, 1.8 if small else 2.5, one.colour, f"{one.name}, epoch {epoch:g}: {show(value)}"))
        if len(drawn) > 1:
            x = 4 + index * (width / len(drawn))
            parts += [rectangle(x, size + 10, size - 1, 3, one.colour), text(x + size + 2, size + 15, one.name, size)]
    return drawing(width, height, parts, title)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    finite = [point for point in points if math.isfinite(point[1])]
    step = -(-len(finite) // MOST_POINTS) or 1
    kept = finite[::step]
    return kept if not finite or kept[-1] == finite[-1] else [*kept, finite[-1]]
