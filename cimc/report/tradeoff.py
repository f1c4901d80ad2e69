"""The report's section on a target: agreement with float32 against time, energy and arrays of every setting."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cimc.artifact import Artifact
from cimc.report.figure import Figure, figures
from cimc.report.html import section, table
from cimc.report.svg import BLUE, MUTED, ORANGE, PAPER, dot, drawing, line, text, ticks, ticks_between

WIDTH, HEIGHT, LEFT, TOP = 350, 186, 48, 16
COSTS = {"latency_ms": "ms", "energy_mj": "mJ", "arrays": "arrays"}


def tradeoff_section(artifact: Artifact) -> str:
    """The section as HTML; nothing for a file that was compiled without a target."""
    layout = artifact.history.get("layout")
    if layout is None:
        return ""
    settings = layout["settings"]
    measured = [setting for setting in settings if setting["noise_on"] is not None]
    agrees = all(setting["noise_on"]["agreement"] is not None for setting in measured)
    rows = [
        (
            escape(setting["setting"]) + (" (taken)" if setting["chosen"] else ""),
            f"{setting['arrays']:,}",
            f"{setting['latency_ms']:.4g}",
            f"{setting['energy_mj']:.3g}",
            *_texts(setting["noise_on"]),
            *_texts(setting["noise_off"]),
        )
        for setting in settings
    ]
    head = ["setting", "arrays", "ms", "mJ", "agreement", "SNR, dB", "without noise", "SNR, dB"]
    note = (
        f"Outputs against float32 on {layout['samples']} samples and one virtual chip: blue with its noise, orange "
        f"without; the ring is the setting that is taken, which {'reaches' if layout['reached'] else 'MISSES'} the "
        "target (line). Point at a dot for its setting."
    )
    shown = figures(scatter(measured, cost, layout["target"], agrees=agrees) for cost in COSTS)
    return section("Accuracy against cost", note, shown, table(head, rows))


def _texts(found: Mapping[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return "-" if found["agreement"] is None else f"{found['agreement']:.1%}", f"{found['snr_db']:.1f}"


def scatter(settings: Sequence[Mapping[str, Any]], cost: str, target: Mapping[str, Any], *, agrees: bool) -> Figure:
    """A dot a setting, with noise and without: across its cost, up its agreement (or SNR), a line at the target."""
    figure = "agreement" if agrees and target["agreement"] is not None else "snr_db"
    name = "agreement" if figure == "agreement" else "SNR, dB"
    found = [setting[noise][figure] for setting in settings for noise in ("noise_on", "noise_off")]
    aim = target[figure]
    ups = ticks_between(min([*found, *([] if aim is None else [aim])]), max([*found, *([] if aim is None else [aim])]))
    across = ticks(max(setting[cost] for setting in settings), 4)
    most = max(across[-1], *(setting[cost] for setting in settings)) or 1.0
    right, base = WIDTH - 14, HEIGHT - 30

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / most * (right - LEFT), base - (y - ups[0]) / (ups[-1] - ups[0]) * (base - TOP)

    title = f"{name} against {COSTS[cost]}"
    parts = []
    for mark in ups:
        y = place(0, mark)[1]
        shown = f"{mark:.0%}" if figure == "agreement" else f"{mark:g}"
        parts += [line(LEFT, y, right, y), text(LEFT - 4, y + 4, shown, 10, "end", MUTED)]
    for mark in across:
        parts.append(text(place(mark, ups[0])[0], base + 14, f"{mark:g}", 10, "middle", MUTED))
    if aim is not None:
        y = place(0, aim)[1]
        parts.append(line(LEFT, y, right, y, ORANGE, 1.5))
    for setting in settings:
        for noise, colour in (("noise_off", ORANGE), ("noise_on", BLUE)):
            x, y = place(setting[cost], setting[noise][figure])
            if setting["chosen"]:
                parts += [dot(x, y, 6, colour), dot(x, y, 4.5, PAPER)]
            parts.append(dot(x, y, 3, colour, f"{setting['setting']}: {setting[noise][figure]:.4g}"))
    rows = [
        (one["setting"], one[cost], one["noise_on"][figure], one["noise_off"][figure], bool(one["chosen"]))
        for one in settings
    ]
    head = ["setting", COSTS[cost], f"{name} with noise", f"{name} without noise", "taken"]
    return Figure(title, drawing(WIDTH, HEIGHT, parts, title), head, rows)
