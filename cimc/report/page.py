"""`cimc report`: one self-contained HTML page about a `.cim` file - training, network, arrays, cost, conductances."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cimc.artifact import Artifact
from cimc.chip import Chip
from cimc.files import replacing
from cimc.mapping import Mapping
from cimc.report.drawings import bars, floor_plan, histogram, timeline
from cimc.report.graph import network_drawing
from cimc.report.html import section, table
from cimc.report.svg import BLUE, INK, LINE, MUTED, ORANGE, duration, energy, layer_colour
from cimc.report.tradeoff import tradeoff_section
from cimc.report.training import training_section
from cimc.schedule import Schedule
from cimc.units import device_targets
from runtime.system.weight_range import best_column_ranges

BINS = 64
MOST_WEIGHTS = 1_000_000  # of a larger layer every n-th is counted
SHORT = 0.005  # of the latency: shorter steps of the critical path are left out
STYLE = f"""
body {{ font: 14px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; color: {INK}; background: #fff;
  margin: 0 auto; max-width: 1180px; padding: 24px; }}
h1 {{ font-size: 24px; margin: 0; }} h2 {{ font-size: 18px; margin: 40px 0 4px; }} p {{ margin: 4px 0 12px; }}
.note {{ color: {MUTED}; }} svg {{ display: block; font-family: inherit; max-width: 100%; height: auto; }}
svg .b {{ pointer-events: none; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0; }}
.tile {{ border: 1px solid {LINE}; border-radius: 6px; padding: 8px 14px; min-width: 104px; }}
.tile b {{ display: block; font-size: 18px; font-weight: 600; }} .tile span {{ color: {MUTED}; font-size: 12px; }}
table {{ border-collapse: collapse; font-size: 13px; }} th, td {{ padding: 3px 10px; text-align: right; }}
th {{ color: {MUTED}; font-weight: 500; border-bottom: 1px solid {LINE}; vertical-align: bottom; }}
th:first-child, td:first-child, .left {{ text-align: left; }} tbody tr:nth-child(even) {{ background: #f7f9fa; }}
tr.total td {{ border-top: 1px solid {LINE}; font-weight: 600; background: #fff; }}
.scroll {{ max-height: 860px; overflow: auto; border: 1px solid {LINE}; border-radius: 6px; padding: 14px; }}
.scroll svg {{ max-width: none; margin: 0 auto; }}
.key {{ display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }}
.legend {{ columns: 4; font-size: 12px; margin: 10px 0; }}
.legend div {{ break-inside: avoid; overflow-wrap: anywhere; }}
.meter {{ display: inline-block; width: 70px; height: 8px; background: #eef1f4; margin-left: 8px; border-radius: 2px; }}
.meter i {{ display: block; height: 8px; background: {BLUE}; border-radius: 2px; }}
.side {{ display: flex; flex-wrap: wrap; gap: 28px; }} .cells {{ display: flex; flex-wrap: wrap; gap: 12px; }}
.side > div {{ margin-bottom: 16px; }}
@media print {{ .scroll {{ max-height: none; }} }}
"""


def write_page(page: str, output: str | Path) -> None:
    """Write a page. Raises CimcError when `output` cannot be written."""
    with replacing(Path(output)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def report(artifact: Artifact) -> str:
    """The page: HTML without scripts and without any reference to another file."""
    mapping, chip = artifact.mapping, artifact.chip
    title = f"{artifact.model} on {chip.name}"
    sections = [
        f"<h1>{escape(title)}</h1><p class=note>{escape(chip.description)}</p>",
        _summary(artifact),
        tradeoff_section(artifact),
        training_section(artifact),
        section(
            "Network",
            "Crossbar layers have a coloured number, which marks them throughout this page; beside it the size of the "
            "output of one input and the digital operators that follow. Grey boxes are digital.",
            f"<div class=scroll>{network_drawing(artifact.network, [layer.name for layer in mapping.layers])}</div>",
        ),
        section("Arrays", _arrays_note(artifact), floor_plan(mapping, chip), _legend(mapping)),
        _placement(mapping, chip),
        section("Pipeline", _pipeline_note(mapping), timeline(mapping), _limits(mapping.schedule)),
        _critical_path(mapping.schedule),
        section("Cost by component", _component_note(mapping), _components(mapping)),
        section("Cost by layer", "One image; arrays with their converters.", _layers(mapping)),
        _conductances(artifact),
    ]
    return page_of(title, sections)


def page_of(title: str, sections: Sequence[str]) -> str:
    """The whole page, of sections in HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{''.join(sections)}\n</body></html>\n"
    )


def _meter(share: float) -> str:
    return f'{share:.0%}<span class=meter><i style="width:{100 * min(1.0, share):.1f}%"></i></span>'


def _key(index: int) -> str:
    return f'<span class=key style="background:{layer_colour(index)}"></span>{index + 1}'


def _summary(artifact: Artifact) -> str:
    mapping, cost, chip = artifact.mapping, artifact.mapping.cost, artifact.chip
    schedule = mapping.schedule
    area = sum(component.area_mm2 or 0.0 for component in cost.components)
    tiles = [
        (f"{cost.crossbars:,}", f"arrays of {chip.array.rows} x {chip.array.columns}"),
        (f"{mapping.chips}", "chips" if mapping.chips > 1 else "chip"),
        (f"{cost.utilization:.0%}", "of their devices in use"),
        (f"{cost.weights:,}", "weights"),
        (f"{cost.devices:,}", "devices"),
        (duration(mapping.latency_ms * 1e6), "latency of one input"),
        (duration(schedule.interval_ns if schedule else cost.pipelined_latency_ms * 1e6), "interval between images"),
        (energy(cost.spent_mj), "energy of one input"),
    ]
    if area:
        tiles.append((f"{area:.3g} mm²", "area"))
    shown = "".join(f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in tiles)
    lines = []
    if mapping.result is not None:
        result = mapping.result
        proof = "proven to be the least" if result.exact else f"{result.gap:.1%} above the lower bound"
        lines.append(
            f"Mapped for the least {result.objective} with {result.budget:,} arrays (seed {result.seed}): "
            f"{result.value:.6g} {result.unit}, {proof} ({result.bound:.6g} {result.unit})."
        )
    if mapping.segments:
        programming = sum(segment.program_ms for segment in mapping.segments)
        lines.append(
            f"Larger than the chip: {len(mapping.segments)} segments, programmed one after the other in "
            f"{duration(programming * 1e6)}."
        )
    if schedule is None:
        lines.append("Time and energy are those of the arrays: digital operators and data movement are not counted.")
    return f"<div class=tiles>{shown}</div><p>{escape(' '.join(lines))}</p>"


def _arrays_note(artifact: Artifact) -> str:
    mapping, chip = artifact.mapping, artifact.chip
    physical = f", each {mapping.physical_per_array} physical ones," if mapping.physical_per_array > 1 else ""
    cores = f" on {len(set(mapping.placement.cores))} of {chip.cores.count} cores" if mapping.placement else ""
    turns = f" in {len(mapping.segments)} segments, one after the other on the chip" if mapping.segments else ""
    return (
        f"{_arrays(mapping.arrays)}{physical}{cores}{turns}; a frame is one array, {chip.array.rows} rows down and "
        f"{chip.array.columns} columns across. Colour and number tell the layer; what is pale or white is not used. "
        "Point at an array for its share."
    )


def _legend(mapping: Mapping) -> str:
    entries = "".join(
        f"<div>{_key(index)} {escape(layer.name)}: {_arrays(cost.arrays // mapping.physical_per_array)}, "
        f"{cost.utilization:.0%} full</div>"
        for index, (layer, cost) in enumerate(zip(mapping.layers, mapping.cost.layers, strict=True))
    )
    return f"<div class=legend>{entries}</div>"


def _arrays(count: int) -> str:
    return "1 array" if count == 1 else f"{count:,} arrays"


def _placement(mapping: Mapping, chip: Chip) -> str:
    placement = mapping.placement
    if placement is None or not placement.links or chip.cores.bus_bytes_per_ns is not None:
        return ""
    links = sorted(placement.links, key=lambda link: -link.bytes)[:8]
    rows = [(f"core {link.source} to {link.target}", f"{link.bytes:,}") for link in links]
    note = (
        f"Bytes times links passed, one input: {placement.byte_hops:,}; no placement of these arrays can have less "
        f"than {placement.byte_hops_bound:,}, arrays in network order have {placement.byte_hops_unplaced:,}."
    )
    return section("Traffic between cores", note, table(["busiest links", "bytes per image"], rows))


def _pipeline_note(mapping: Mapping) -> str:
    if mapping.schedule is None:
        return "One image, layer after layer; arrays only, because the file holds no schedule."
    schedule = mapping.schedule
    return (
        f"One image, row by row: {duration(schedule.latency_ns)} (stage after stage "
        f"{duration(schedule.sequential_ns)}). Thick bars are arrays at work, thin grey ones the digital work after "
        f"them, thin orange ones the critical path. Buffers hold {schedule.buffer_bytes:,} bytes at most."
    )


def _limits(schedule: Schedule | None) -> str:
    if schedule is None:
        return ""
    rows = [
        (escape(limit.kind), f"<span class=left>{escape(limit.where)}</span>", duration(limit.busy_ns),
         _meter(limit.busy_ns / schedule.interval_ns if schedule.interval_ns else 0.0))
        for limit in schedule.limits
    ]  # fmt: skip
    note = f"What sets the interval of {duration(schedule.interval_ns)}: the busiest resource of each kind."
    return f"<p>{escape(note)}</p>" + table(["resource", "busiest", "busy for one input", "of the interval"], rows)


def _critical_path(schedule: Schedule | None) -> str:
    if schedule is None or not schedule.critical_path or not schedule.latency_ns:
        return ""
    steps = [s for s in schedule.critical_path if s.stop_ns - s.start_ns >= SHORT * schedule.latency_ns]
    rows = [
        (escape(step.stage), escape(step.layer),
         f"{step.first_row} to {step.last_row}" if step.last_row > step.first_row else f"{step.first_row}",
         duration(step.start_ns), duration(step.stop_ns - step.start_ns),
         _meter((step.stop_ns - step.start_ns) / schedule.latency_ns))
        for step in steps
    ]  # fmt: skip
    short = len(schedule.critical_path) - len(steps)
    more = f" {short} steps of less than {SHORT:.1%} of the latency are left out." if short else ""
    steps_table = table(["stage", "layer", "output rows", "start", "time", "of the latency"], rows)
    return section("Critical path", f"What everything waited for, from input to output.{more}", steps_table)


def _component_note(mapping: Mapping) -> str:
    if mapping.cost.components:
        return "One image; digital work and data movement stand apart from the arrays."
    return "The chip file states the energy of a whole MVM only: all of it is the arrays with their converters."


def _components(mapping: Mapping) -> str:
    cost = mapping.cost
    spent = [(c.name, c.energy_mj or 0.0, _or_silent(c.energy_mj, energy)) for c in cost.components]
    area = [(c.name, c.area_mm2 or 0.0, _or_silent(c.area_mm2, _square)) for c in cost.components]
    parts = [f"<div><b>Energy</b>{bars(spent or [('arrays', cost.energy_mj, energy(cost.energy_mj))])}</div>"]
    if any(value for _, value, _ in area):
        parts.append(f"<div><b>Area</b>{bars(area, ORANGE)}</div>")
    return f"<div class=side>{''.join(parts)}</div>"


def _or_silent(value: float | None, shown: object) -> str:
    return "not stated" if value is None else str(shown(value))  # type: ignore[operator]


def _square(mm2: float) -> str:
    return f"{mm2:.3g} mm²"


def _layers(mapping: Mapping) -> str:
    cost = mapping.cost
    time = sum(layer.latency_ms for layer in cost.layers) or 1.0
    spent = sum(layer.energy_mj for layer in cost.layers) or 1.0
    rows = [
        (f"{_key(index)} {escape(layer.name)}", f"{layer.rows} x {layer.columns}",
         f"{len(layer.row_bounds)} x {len(layer.column_bounds)}",
         layer.at_once, str(layer.copies), f"{figures.arrays:,}",
         _meter(figures.utilization), f"{figures.positions:,}", f"{figures.tile_ops:,}",
         duration(figures.latency_ms * 1e6), _meter(figures.latency_ms / time),
         energy(figures.energy_mj), _meter(figures.energy_mj / spent))
        for index, (layer, figures) in enumerate(zip(mapping.layers, cost.layers, strict=True))
    ]  # fmt: skip
    head = [
        "layer",
        "weights",
        "blocks",
        "rows at once",
        "copies",
        "arrays",
        "full",
        "MVMs",
        "tile ops",
        "time",
        "share",
        "energy",
        "share",
    ]
    total = ["total", f"{cost.weights:,}", "", "", "", f"{cost.crossbars:,}", f"{cost.utilization:.0%}",
             f"{cost.mvm_positions:,}", f"{cost.tile_ops:,}", duration(cost.latency_ms * 1e6), "",
             energy(cost.energy_mj), ""]  # fmt: skip
    return table(head, rows, total)


@dataclass(frozen=True)
class Distribution:
    """Counts of one layer's devices in BINS bins from low to high."""

    counts: npt.NDArray[np.int64]
    low: float
    high: float
    unit: str


def _conductances(artifact: Artifact) -> str:
    chip = artifact.chip
    trained = any(name.startswith("conductance/") for name in artifact.state)
    if trained:
        title, note = "Conductances", "The trained devices"
    elif chip.not_simulated is None:
        title, note = "Conductances", "The targets of the devices; the file holds no trained ones"
    else:
        title, note = (
            "Weights",
            f"How this chip holds a weight ({chip.not_simulated}) is not simulated: weights instead",
        )
    shown = [
        (f"{index + 1} {layer.name}", found, index)
        for index, layer in enumerate(artifact.mapping.layers)
        if (found := distribution(artifact, layer.name)) is not None
    ]
    drawings = "".join(
        f"<div>{histogram(name, found.counts, found.low, found.high, found.unit, index)}</div>"
        for name, found, index in shown
    )
    return section(
        title,
        f"{note}. A bar that would hide all others, such as the idle devices, is cut; its share stands beside it.",
        f"<div class=cells>{drawings}</div>",
    )


def distribution(artifact: Artifact, layer: str) -> Distribution | None:
    """Conductances of a layer's devices over the chip's range; None when the file holds none of them.

    Trained ones, else targets as `eval` and `export` begin with, before they fit scales to data, else (for a chip whose
    weights the runtime does not simulate) the weights themselves.
    """
    chip = artifact.chip
    values = artifact.state.get(f"conductance/{layer}")
    if values is None:
        initializer = artifact.network.graph.initializers.get(f"{layer}.weight")
        if initializer is None or initializer.const_value is None:
            return None
        weight = initializer.const_value.numpy()
        step = -(-weight.size // MOST_WEIGHTS)
        part = np.asarray(weight[:: min(step, len(weight))], np.float32)
        if chip.not_simulated is not None:
            largest = float(np.max(np.abs(part), initial=0.0)) or 1.0
            counts, _ = np.histogram(part, BINS, (-largest, largest))
            return Distribution(counts, -largest, largest, "")
        values = device_targets(part, best_column_ranges(part, chip), chip)
    low, high = chip.cell.conductance_min_uS, chip.cell.conductance_max_uS
    low, high = min(low, float(values.min())), max(high, float(values.max()))
    counts, _ = np.histogram(values, BINS, (low, high))
    return Distribution(counts, low, high, "µS")
