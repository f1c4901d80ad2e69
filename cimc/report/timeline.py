"""The pipeline as a drawing: when each layer works on one input, and the critical path."""

import math
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence

from cimc.mapping import Mapping
from cimc.report.figure import Figure
from cimc.report.floor_plan import PAGE
from cimc.report.svg import (
    GREY,
    MUTED,
    ORANGE,
    drawing,
    duration,
    fitted,
    layer_colour,
    line,
    rectangle,
    text,
    text_width,
    ticks,
)
from cimc.schedule import Schedule

NAMES = 230  # pixels for names on the left


def timeline(mapping: Mapping) -> Figure:
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
) -> Figure:
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
        number = f"{numbers[name] + 1}  " if name else ""
        label = number + fitted(name, NAMES - 12 - text_width(number, 11)) if name else "before the first layer"
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
    kinds = (("arrays", crossbars), ("digital", digital))
    rows = [(name, kind, *spans[name]) for name in names for kind, spans in kinds if name in spans]
    rows += [(name, "critical path", start, stop) for name, start, stop in path]
    title = "timeline of one input"
    return Figure(title, drawing(PAGE, height, parts, title), ["layer", "what", "start (ns)", "stop (ns)"], rows)
