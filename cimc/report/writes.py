"""The report's section on row writes: a training step with its writes, energy, writes of devices, by layer."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cimc.report.charts import bars
from cimc.report.figure import Figure, figures
from cimc.report.floor_plan import PAGE
from cimc.report.html import section, short_name, table
from cimc.report.svg import BLUE, GREY, MUTED, ORANGE, drawing, duration, energy, fitted, line, rectangle, text
from cimc.report.timeline import NAMES

LANE, TOP = 20, 26


def writes_section(closing: Mapping[str, Any]) -> str:
    """The section as HTML; nothing for a run of which no row writes are recorded."""
    step = closing.get("step")
    if not step:
        return ""
    assumed = closing.get("write_assumed") or []
    note = (
        "A training step, its batch one image after the other, and its row writes, mean over the steps. Blue: forward; "
        "grey: gradients go back; orange: writes, which begin when a layer's gradient is complete. Another layer's "
        "products and the next batch hide them, up to where the layer itself is needed."
    )
    if assumed:
        note += f" The chip file does not state {', '.join(assumed)}: usual values stand for them (docs/writes.md)."
    return section(
        "Row writes",
        note,
        step_figure(step).html,
        f"<p>{escape(_stalls(step))}</p>",
        figures(
            [
                bars("energy of the run", _energies(closing), "mJ", ORANGE),
                bars("devices by pulses", _devices(closing["pulses_per_device"]), "devices"),
            ]
        ),
        table(["layer", "row writes", "phases", "pulses in turn", "time a step"], _layers(closing["write_layers"])),
    )


def step_figure(step: Mapping[str, Any]) -> Figure:
    """When each layer computes and is written in a step. Written parts that take no time to speak of are a line."""
    layers, products = step["layers"], step["forward_us"] + step["backward_us"]
    end = max([products, *(layer["write_us"][1] for layer in layers)]) or 1.0
    scale, height = (PAGE - NAMES - 30) / end, TOP + LANE * len(layers) + 24
    parts = [text(NAMES, height - 6, "0", 10, "middle", MUTED)]
    marks = {step["forward_us"]: "end of forward", products: "end of products"}  # one where backward takes no time
    for mark, label in marks.items():
        x = NAMES + mark * scale
        parts += [line(x, TOP - 6, x, height - 18), text(x, TOP - 10, label, 10, "end", MUTED)]
        parts.append(text(x, height - 6, duration(mark * 1e3), 10, "end", MUTED))
    rows: list[tuple[str, str, float, float]] = []
    for index, layer in enumerate(layers):
        y = TOP + index * LANE
        parts.append(text(NAMES - 8, y + 13, fitted(layer["name"], NAMES - 12), 11, "end"))
        spans = (
            ("forward", *layer["forward_us"], BLUE, 3),
            ("backward", step["forward_us"], layer["write_us"][0], GREY, 3),
            ("written", *layer["write_us"], ORANGE, 8),
        )
        for name, start, stop, colour, offset in spans:
            if stop > start:
                rows.append((layer["name"], name, start, stop))
                label = f"{layer['name']}, {name}: {duration((stop - start) * 1e3)}"
                width = max(1.0, (stop - start) * scale)
                parts.append(rectangle(NAMES + start * scale, y + offset, width, 9, colour, "", label, 1))
    title = "a training step and its row writes"
    return Figure(title, drawing(PAGE, height, parts, title), ["layer", "what", "start (µs)", "stop (µs)"], rows)


def _stalls(step: Mapping[str, Any]) -> str:
    stalls = {name: duration(us * 1e3) if us else "nothing" for name, us in step["stall_us"].items()}
    return (
        f"A step computes for {duration((step['forward_us'] + step['backward_us']) * 1e3)}. Writes add "
        f"{stalls['apart']} when nothing else goes on meanwhile, {stalls['overlapped']} when layers are written while "
        f"others compute, {stalls['double_buffered']} with every array twice."
    )


def _energies(figures: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Energy of the whole run by what it was spent on, where it is stated."""
    named = {
        "forward": "forward_energy_mj",
        "transposed reads": "backward_energy_mj",
        "digital operators": "digital_energy_mj",
        "input ranges": "calibration_energy_mj",
        "row writes": "write_energy_mj",
        "first programming": "first_write_energy_mj",
    }
    spent = ((name, figures.get(key)) for name, key in named.items())
    return [(name, float(mj), energy(float(mj))) for name, mj in spent if mj]


def _devices(histogram: Sequence[Sequence[int]]) -> list[tuple[str, float, str]]:
    """Devices by the pulses (or trials) that they took."""
    total = sum(count for _, count in histogram) or 1
    last = max((place for place, (_, count) in enumerate(histogram) if count), default=0)
    rows = []
    for place, (least, count) in enumerate(histogram[: last + 1]):
        below = histogram[place + 1][0] if place + 1 < len(histogram) else None
        span = f"{least}" if below == least + 1 else f"{least} to {below - 1}" if below else f"{least} and more"
        rows.append((f"{span} pulses", float(count), f"{count / total:.2%} of devices"))
    return rows


def _layers(layers: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    return [
        [
            short_name(name),
            f"{layer['rows']:,}",
            f"{layer['phases']:,}",
            f"{layer['pulses']:,}",
            duration(layer["us_per_step"] * 1e3),
        ]
        for name, layer in layers.items()
    ]
