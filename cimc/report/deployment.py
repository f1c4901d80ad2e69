"""The report's section on deployments: chips by accuracy, accuracy over time; which of them are worst."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from cimc.durations import time_text
from cimc.report.charts import Distribution, histogram
from cimc.report.figure import Figure, figures
from cimc.report.html import section, table
from cimc.report.read_deployments import Deployed
from cimc.report.svg import (
    INK,
    MUTED,
    SERIES,
    dot,
    drawing,
    fitted,
    line,
    polyline,
    text,
    text_width,
    ticks_between,
)
from cimc.shares import is_share, mark_text, measure_text, percent

BINS = 20
WIDTH, HEIGHT, LEFT, NAMES = 700, 260, 60, 200  # pixels, NAMES: of the legend on the right
TOP, BASE = 12, HEIGHT - 30


def deployment_section(deployments: Mapping[str, Deployed]) -> str:
    """The section as HTML; nothing without deployments."""
    if not deployments:
        return ""
    first = next(iter(deployments.values()))
    measure = first["measure"].replace("_", " ")
    chips = sorted({len(one["accuracies"]) for one in deployments.values()})
    note = f"{' and '.join(map(str, chips))} virtual chips; {measure} on the test set, as cimc deploy --json found it."
    parts = [_histograms(deployments, measure)]
    if any(one.get("aged") for one in deployments.values()):
        parts += [over_time(deployments, measure).html, _table(deployments, measure)]
    return section("Virtual chips", note, *parts)


def as_programmed(deployments: Mapping[str, Deployed]) -> dict[str, Deployed]:
    """Deployments that differ as programmed, before any time and compensation, by what they are called."""
    differing: dict[tuple[float, ...], str] = {}
    for name, one in deployments.items():
        differing.setdefault(tuple(one["accuracies"]), name)
    if len(differing) == 1:
        return {"as programmed": next(iter(deployments.values()))}
    return {f"as programmed, {name}": deployments[name] for name in differing.values()}


def _histograms(deployments: Mapping[str, Deployed], measure: str) -> str:
    """A histogram a deployment and time, all over the same range."""
    moments = [
        (title, one["accuracies"], index) for index, (title, one) in enumerate(as_programmed(deployments).items())
    ]
    for index, (name, one) in enumerate(deployments.items()):
        moments += [(f"{time_text(at['seconds'])}, {name}", at["accuracies"], index) for at in one.get("aged", ())]
    marks = ticks_between(*(pick(pick(values) for _, values, _ in moments) for pick in (min, max)))
    low, high = marks[0], marks[-1]
    scale, unit = (100, "%") if is_share(measure) else (1, "")
    shown = []
    for title, values, index in moments:
        counts, _ = np.histogram(values, BINS, (low, high))
        found = Distribution(counts, scale * low, scale * high, unit)
        shown.append(
            histogram(f"chips by {measure}: {title}", found, SERIES[index % len(SERIES)], caption=title, cut=False)
        )
    return f"<h3>Chips by {escape(measure)}</h3>{figures(shown, 'cells')}"


def over_time(deployments: Mapping[str, Deployed], measure: str) -> Figure:
    """A line a deployment over the logarithm of time: the mean, with a bar from the worst to the best chip."""
    courses = {
        name: [(math.log10(at["seconds"]), at["accuracies"], at["seconds"]) for at in one.get("aged", ())]
        for name, one in deployments.items()
    }
    times = {x: seconds for course in courses.values() for x, _, seconds in course}
    values = [value for course in courses.values() for _, found, _ in course for value in found]
    marks = ticks_between(min(values), max(values), 5)
    first, last, low, high = min(times), max(times), marks[0], marks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return LEFT + 20 + across * (WIDTH - LEFT - NAMES - 60), BASE - (y - low) / ((high - low) or 1.0) * (BASE - TOP)

    parts = []
    for mark in marks:
        y = place(first, mark)[1]
        parts += [
            line(LEFT, y, WIDTH - NAMES - 10, y),
            text(LEFT - 6, y + 4, mark_text(measure, mark), 10, "end", MUTED),
        ]
    edge = -math.inf
    for x, seconds in sorted(times.items()):
        reach = text_width(time_text(seconds), 10) / 2
        if place(x, low)[0] - reach < edge + 4:
            continue  # its name would lie over that before it
        edge = place(x, low)[0] + reach
        parts.append(text(place(x, low)[0], BASE + 18, time_text(seconds), 10, "middle", MUTED))
    for index, (name, course) in enumerate(courses.items()):
        colour, shift = SERIES[index % len(SERIES)], 4.0 * (index - (len(courses) - 1) / 2)
        points = [place(x, float(np.mean(found))) for x, found, _ in course]
        points = [(x + shift, y) for x, y in points]
        if len(points) > 1:
            parts.append(polyline(points, colour))
        for (x, y), (at, found, seconds) in zip(points, course, strict=True):
            ends = [place(at, end)[1] for end in (min(found), max(found))]
            parts += [line(x, ends[0], x, ends[1], colour, 2)]
            parts.append(
                dot(x, y, 3.5, colour, f"{name}, {time_text(seconds)}: {measure_text(measure, float(np.mean(found)))}")
            )
        y = TOP + 8 + 20 * index
        parts += [dot(WIDTH - NAMES, y, 4, colour, name)]
        parts.append(text(WIDTH - NAMES + 10, y + 4, fitted(name, NAMES - 12), 11, "start", INK))
    title = f"{measure} over time: mean, and from the worst to the best chip"
    rows = [
        (name, seconds, chip, value)
        for name, course in courses.items()
        for _, found, seconds in course
        for chip, value in enumerate(found)
    ]
    return Figure(title, drawing(WIDTH, HEIGHT, parts, title), ["deployment", "seconds", "chip", measure], rows)


def _spread(at: Deployed) -> tuple[float, float, float, float]:
    """Mean, sd, worst and median; of files from before `worst` was told the least."""
    found = at["accuracy"]
    return found["mean"], found["std"], found.get("worst", found["min"]), found["median"]


def _table(deployments: Mapping[str, Deployed], measure: str) -> str:
    rows = [
        (
            f"{escape(name)}, {time_text(at['seconds'])}",
            *(measure_text(measure, value) for value in _spread(at)),
            measure_text("accuracy", at["a_star"]["mean"]) if "a_star" in at else "-",
            percent(at["yield"]),
        )
        for name, one in deployments.items()
        for at in one.get("aged", ())
    ]
    return table([f"{escape(measure)}", "mean", "sd", "worst", "median", "A*", "yield"], rows)


def worst_chips(deployments: Mapping[str, Deployed]) -> dict[str, Mapping[str, Any]]:
    """What each layer loses on the worst chip of every deployment, where it was looked for, by a title."""
    found = {}
    for name, one in deployments.items():
        if layers := (one.get("worst") or {}).get("layers"):
            worst = one["worst"]
            value, stuck = measure_text(one["measure"], worst["value"]), percent(worst["stuck_share"])
            found[f"worst chip, {name}: chip {worst['chip']}, {value}, {stuck} stuck"] = layers
    return found
