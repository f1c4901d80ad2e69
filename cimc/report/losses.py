"""The report's sections on losses of a package: its agreement with float32, and for every layer SNR and causes."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cimc.report.figure import Figure
from cimc.report.floor_plan import PAGE
from cimc.report.html import key, legend, section, table
from cimc.report.svg import INK, MUTED, drawing, fitted, layer_colour, line, rectangle, text, ticks
from cimc.report.timeline import NAMES
from cimc.shares import percent

CONDITIONS = {"noise_off": "without noise", "noise_on": "one virtual chip, with noise"}
LANE = 20  # pixels a layer


def agreement_section(agreement: Mapping[str, Any] | None) -> str:
    """The section as HTML; nothing where it was not measured."""
    if agreement is None:
        return ""
    rows = [
        (
            f"{escape(output)}, {condition}",
            percent(found["argmax_agreement"]) if "argmax_agreement" in found else "-",
            f"{found['snr_db']:.1f} dB",
        )
        for name, condition in CONDITIONS.items()
        for output, found in agreement[name].items()
    ]
    note = f"Against the same weights in float32, on {agreement['samples']} samples that set the input ranges."
    return section("Agreement", note, table(["output", "same largest entry", "SNR"], rows))


def losses_section(layers: Mapping[str, Any] | None, worst: Mapping[str, Mapping[str, Any]]) -> str:
    """The section as HTML: a figure of one virtual chip, and one of each deployment's worst chip, all to one scale.

    layers: by name, what each loses on one virtual chip; None: not measured. worst: the same of worst chips by title.
    """
    shown = {**({"one virtual chip": layers} if layers else {}), **worst}
    if not shown:
        return section("Losses by layer", "What each layer loses is not known: export with --layers to find it.")
    measured = [found for of in shown.values() for found in of.values()]
    causes = list(dict.fromkeys(cause for found in measured for cause in found.get("causes", {})))
    most = max([1.0, *(snr for found in measured for snr in _snrs(found))])
    note = (
        "The longer a bar, the less a layer loses by itself: its SNR against float32 with exact inputs, on a virtual "
        "chip with noise. Colours share out the error by cause, found by switching each effect off; the dark mark "
        "is the SNR up to there. Point at a part for its share."
    ) + (" All bars of this section have the same scale." if len(shown) > 1 else "")
    named = legend(key(index, escape(cause)) for index, cause in enumerate(causes))
    drawn = (losses_figure(of, causes, title=f"SNR of every layer, {title}", most=most) for title, of in shown.items())
    return section("Losses by layer", note, named, *(figure.html for figure in drawn))


def losses_figure(layers: Mapping[str, Any], causes: Sequence[str], *, title: str, most: float) -> Figure:
    """A bar a layer, as long as its SNR alone, in parts by cause; a mark at the SNR up to there. most: dB of all."""
    steps = ticks(most)
    per_db = (PAGE - NAMES - 60) / max(steps[-1], most)
    parts = []
    for step in steps:
        x = NAMES + step * per_db
        parts += [
            line(x, 0, x, LANE * len(layers)),
            text(x, LANE * len(layers) + 14, f"{step:g} dB", 10, "middle", MUTED),
        ]
    for index, (name, found) in enumerate(layers.items()):
        y, own = index * LANE, found["own_snr_db"]
        parts.append(text(NAMES - 8, y + 14, fitted(name, NAMES - 12), 11, "end"))
        parts += _bar(y, max(own or 0.0, 0.0) * per_db, found, causes)
        if found["snr_db"] is not None:
            x = NAMES + max(found["snr_db"], 0.0) * per_db
            parts.append(
                rectangle(x - 1, y + 1, 2, LANE - 2, INK, title=f"{name}: {found['snr_db']:.1f} dB up to here")
            )
        if own is not None:
            parts.append(text(NAMES + max(own, 0.0) * per_db + 6, y + 14, f"{own:.1f} dB", 10, "start", MUTED))
    rows = [
        (name, found["own_snr_db"], found["snr_db"], *(_share(found, cause) for cause in causes))
        for name, found in layers.items()
    ]
    head = ["layer", "own SNR (dB)", "SNR up to here (dB)", *(f"share of {cause}" for cause in causes)]
    return Figure(title, drawing(PAGE, LANE * len(layers) + 20, parts, title), head, rows)


def _snrs(found: Mapping[str, Any]) -> list[float]:
    return [found[key] for key in ("own_snr_db", "snr_db") if found[key] is not None]


def _share(found: Mapping[str, Any], cause: str) -> float:
    return float(found.get("causes", {}).get(cause, {}).get("share", 0.0))


def _bar(y: float, width: float, found: Mapping[str, Any], causes: Sequence[str]) -> list[str]:
    """The parts of a bar; shares below 0 have none, and the others fill it."""
    shares = {cause: max(_share(found, cause), 0.0) for cause in causes}
    total, x, parts = sum(shares.values()) or 1.0, float(NAMES), []
    for index, (cause, share) in enumerate(shares.items()):
        if share:
            part = width * share / total
            parts.append(rectangle(x, y + 3, part, LANE - 6, layer_colour(index), title=f"{cause}: {share:.0%}"))
            x += part
    return parts
