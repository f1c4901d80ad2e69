"""The report of a package: its agreement with float32, and for every layer the SNR and the causes of its loss."""

from collections.abc import Mapping
from html import escape
from types import MappingProxyType
from typing import Any

from cimc.package import Package
from cimc.report.deployment import Deployed, deployment_section
from cimc.report.drawings import NAMES, PAGE
from cimc.report.html import section, table
from cimc.report.page import page_of
from cimc.report.svg import MUTED, drawing, layer_colour, line, rectangle, shortened, text, ticks

CONDITIONS = {"noise_off": "without noise", "noise_on": "one virtual chip, with noise"}
LANE = 20  # pixels a layer


def package_report(package: Package, deployments: Mapping[str, Deployed] = MappingProxyType({})) -> str:
    """The page: HTML without scripts and without any reference to another file.

    deployments: of the package, by name (`cimc.report.deployment.read_deployments`).
    """
    notes, title = package.notes, f"{package.model} for {package.chip.name}"
    return page_of(
        title,
        [
            f"<h1>{escape(title)}</h1><p class=note>{escape(package.chip.description)}</p>",
            _agreement(notes["agreement"]) if "agreement" in notes else "",
            _layers(notes.get("layers")),
            deployment_section(deployments),
        ],
    )


def _agreement(agreement: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{escape(output)}, {condition}",
            f"{found['argmax_agreement']:.1%}" if "argmax_agreement" in found else "-",
            f"{found['snr_db']:.1f} dB",
        )
        for name, condition in CONDITIONS.items()
        for output, found in agreement[name].items()
    ]
    note = f"Against the same weights in float32, on {agreement['samples']} samples that set the input ranges."
    return section("Agreement", note, table(["output", "same largest entry", "SNR"], rows))


def _layers(layers: Mapping[str, Any] | None) -> str:
    if not layers:
        return section("Layers", "What each layer loses is not known: export with --layers to find it.")
    causes = list(dict.fromkeys(cause for found in layers.values() for cause in found.get("causes", {})))
    legend = "".join(
        f'<div><span class=key style="background:{layer_colour(index)}"></span>{escape(cause)}</div>'
        for index, cause in enumerate(causes)
    )
    note = (
        "The longer a bar, the less a layer loses by itself: its SNR against float32 with exact inputs, on one virtual "
        "chip with noise. Colours share out the error by cause, found by switching each effect off; the black line "
        "is the SNR up to there. Point at a part for its share."
    )
    return section("Layers", note, f"<div class=legend>{legend}</div>", losses_drawing(layers, causes))


def losses_drawing(layers: Mapping[str, Any], causes: list[str]) -> str:
    """A bar a layer, as long as its SNR alone, in parts by cause; a mark at the SNR up to there."""
    known = [found[key] for found in layers.values() for key in ("own_snr_db", "snr_db") if found[key] is not None]
    steps = ticks(max([*known, 1.0]))
    per_db = (PAGE - NAMES - 60) / max(steps[-1], *known, 1.0)
    parts = []
    for step in steps:
        x = NAMES + step * per_db
        parts += [
            line(x, 0, x, LANE * len(layers)),
            text(x, LANE * len(layers) + 14, f"{step:g} dB", 10, "middle", MUTED),
        ]
    for index, (name, found) in enumerate(layers.items()):
        y, own = index * LANE, found["own_snr_db"]
        parts.append(text(NAMES - 8, y + 14, shortened(name, 34), 11, "end"))
        parts += _bar(y, max(own or 0.0, 0.0) * per_db, found, causes)
        if found["snr_db"] is not None:
            x = NAMES + max(found["snr_db"], 0.0) * per_db
            parts.append(
                rectangle(x - 1, y + 1, 2, LANE - 2, "#000000", title=f"{name}: {found['snr_db']:.1f} dB up to here")
            )
        if own is not None:
            parts.append(text(NAMES + max(own, 0.0) * per_db + 6, y + 14, f"{own:.1f} dB", 10, "start", MUTED))
    return drawing(PAGE, LANE * len(layers) + 20, parts, "SNR and causes of every layer")


def _bar(y: float, width: float, found: Mapping[str, Any], causes: list[str]) -> list[str]:
    """The parts of a bar; shares below 0 have none, and the others fill it."""
    shares = {cause: max(found.get("causes", {}).get(cause, {}).get("share", 0.0), 0.0) for cause in causes}
    total, x, parts = sum(shares.values()) or 1.0, float(NAMES), []
    for index, (cause, share) in enumerate(shares.items()):
        if share:
            part = width * share / total
            parts.append(rectangle(x, y + 3, part, LANE - 6, layer_colour(index), title=f"{cause}: {share:.0%}"))
            x += part
    return parts
