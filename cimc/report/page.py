"""`cimc report`: one self-contained HTML page about a `.cim` file - training, network, arrays, cost, conductances."""

from html import escape

from cimc.artifact import Artifact
from cimc.chip import Chip
from cimc.layer_settings import settings_text
from cimc.mapping import Mapping
from cimc.report.charts import bars
from cimc.report.conductances import conductance_section
from cimc.report.figure import figures
from cimc.report.floor_plan import floor_plan
from cimc.report.graph import network_figure
from cimc.report.html import key, legend, meter, page_of, section, short_name, table, tiles
from cimc.report.svg import BLUE, ORANGE, duration, energy
from cimc.report.timeline import timeline
from cimc.report.tradeoff import tradeoff_section
from cimc.report.training import training_section
from cimc.schedule import Schedule

MOST_BARS = 16  # layers
SHORT = 0.005  # of the latency: shorter steps of the critical path are left out


def report(artifact: Artifact) -> str:
    """The page: HTML without scripts and without any reference to another file."""
    mapping, chip = artifact.mapping, artifact.chip
    sections = [
        _summary(artifact),
        tradeoff_section(artifact),
        training_section(artifact),
        section(
            "Network",
            "Crossbar layers have a coloured number, which marks them throughout this page; beside it the size of the "
            "output of one input and the digital operators that follow. Grey boxes are digital.",
            network_figure(artifact.network, [layer.name for layer in mapping.layers]).html,
        ),
        arrays_section(mapping, chip),
        _placement(mapping, chip),
        section("Pipeline", _pipeline_note(mapping), timeline(mapping).html, _limits(mapping.schedule)),
        _critical_path(mapping.schedule),
        cost_sections(mapping),
        conductance_section(artifact),
    ]
    return page_of(f"{artifact.model} on {chip.name}", chip.description, sections)


def arrays_section(mapping: Mapping, chip: Chip) -> str:
    """The floor plan of the arrays, as HTML."""
    return section("Arrays", _arrays_note(mapping, chip), floor_plan(mapping, chip).html, _legend(mapping))


def cost_sections(mapping: Mapping) -> str:
    """Energy and area by component, and all costs by layer, as HTML."""
    return section("Cost by component", _component_note(mapping), _components(mapping)) + section(
        "Cost by layer", _layers_note(mapping), _layer_bars(mapping), _layers(mapping)
    )


def _summary(artifact: Artifact) -> str:
    mapping, cost, chip = artifact.mapping, artifact.mapping.cost, artifact.chip
    schedule = mapping.schedule
    area = sum(component.area_mm2 or 0.0 for component in cost.components)
    shown = [
        (f"{cost.crossbars:,}", f"arrays of {chip.sizes_text(mapping.kinds_in_use)}"),
        (f"{mapping.chips}", "chips" if mapping.chips > 1 else "chip"),
        (f"{cost.utilization:.0%}", "of their devices in use"),
        (f"{cost.weights:,}", "weights"),
        (f"{cost.devices:,}", "devices"),
        (duration(mapping.latency_ms * 1e6), "latency of one input"),
        (duration(schedule.interval_ns if schedule else cost.pipelined_latency_ms * 1e6), "interval between images"),
        (_or_silent(cost.spent_mj or None, energy), "energy of one input"),
    ]
    if area:
        shown.append((f"{area:.3g} mm²", "area"))
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
    return tiles(shown) + (f"<p>{escape(' '.join(lines))}</p>" if lines else "")


def _arrays_note(mapping: Mapping, chip: Chip) -> str:
    physical = f", each {mapping.physical_per_array} physical ones," if mapping.physical_per_array > 1 else ""
    used = len(set(mapping.placement.cores)) if mapping.placement else 0
    of = "1 core" if chip.cores.count == 1 else f"{used} of {chip.cores.count} cores"
    cores = f" on {of}" if used else ""
    turns = f" in {len(mapping.segments)} segments, one after the other on the chip" if mapping.segments else ""
    sizes = " or ".join(
        f"{array.rows} rows down and {array.columns} columns across"
        for array in (chip.sizes[kind] for kind in mapping.kinds_in_use)
    )
    return (
        f"{_arrays(mapping.arrays)}{physical}{cores}{turns}; a frame is one array, {sizes}. "
        "Colour and number tell the layer; what is pale or white is not used. Point at an array for its share."
    )


def _legend(mapping: Mapping) -> str:
    return legend(
        key(
            index,
            f"{index + 1} {short_name(layer.name, 24)}: {_arrays(cost.arrays // mapping.physical_per_array)}, "
            f"{cost.utilization:.0%} full",
        )
        for index, (layer, cost) in enumerate(zip(mapping.layers, mapping.cost.layers, strict=True))
    )


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
        (escape(limit.kind), f"<span class=left>{short_name(limit.where)}</span>", duration(limit.busy_ns),
         meter(limit.busy_ns / schedule.interval_ns if schedule.interval_ns else 0.0))
        for limit in schedule.limits
    ]  # fmt: skip
    note = f"What sets the interval of {duration(schedule.interval_ns)}: the busiest resource of each kind."
    return f"<p>{escape(note)}</p>" + table(["resource", "busiest", "busy for one input", "of the interval"], rows)


def _critical_path(schedule: Schedule | None) -> str:
    if schedule is None or not schedule.critical_path or not schedule.latency_ns:
        return ""
    steps = [s for s in schedule.critical_path if s.stop_ns - s.start_ns >= SHORT * schedule.latency_ns]
    rows = [
        (short_name(step.stage, 36), short_name(step.layer, 36),
         f"{step.first_row} to {step.last_row}" if step.last_row > step.first_row else f"{step.first_row}",
         duration(step.start_ns), duration(step.stop_ns - step.start_ns),
         meter((step.stop_ns - step.start_ns) / schedule.latency_ns))
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
    shown = [bars("energy by component", spent or [("arrays", cost.energy_mj, energy(cost.energy_mj))], "mJ")]
    if any(value for _, value, _ in area):
        shown.append(bars("area by component", area, "mm²", ORANGE))
    return figures(shown)


def _layer_bars(mapping: Mapping) -> str:
    """Time and energy of the layers as bars; of many layers, those that take most."""
    numbered = [(f"{index + 1} {layer.name}", layer) for index, layer in enumerate(mapping.cost.layers)]
    few = len(numbered) <= MOST_BARS
    shown = []
    for title, unit, show, colour in (
        ("time", "latency_ms", lambda ms: duration(ms * 1e6), BLUE),
        ("energy", "energy_mj", energy, ORANGE),
    ):
        rows = [(name, getattr(layer, unit), show(getattr(layer, unit))) for name, layer in numbered]
        most = rows if few else sorted(rows, key=lambda row: -row[1])[:MOST_BARS]
        of = "layer" if few else f"layer, the {MOST_BARS} largest of {len(rows)}"
        shown.append(bars(f"{title} by {of}", most, unit.rpartition("_")[2].replace("mj", "mJ"), colour))
    return figures(shown)


def _or_silent(value: float | None, shown: object) -> str:
    return "not stated" if value is None else str(shown(value))  # type: ignore[operator]


def _square(mm2: float) -> str:
    return f"{mm2:.3g} mm²"


def _layers_note(mapping: Mapping) -> str:
    own = [
        f"{', '.join(short_name(name, 36) for name in names[:MOST_BARS])}{', ...' * (len(names) > MOST_BARS)}: "
        f"{settings_text(settings)}"
        for settings, names in mapping.by_settings.items()
    ]
    note = "One image; arrays with their converters."
    return f"{note} Of single layers: {'; '.join(own)}." if own else note


def _layers(mapping: Mapping) -> str:
    cost = mapping.cost
    time = sum(layer.latency_ms for layer in cost.layers) or 1.0
    spent = sum(layer.energy_mj for layer in cost.layers) or 1.0
    rows = [
        (key(index, f"{index + 1} {short_name(layer.name, 36)}"), f"{layer.rows} x {layer.columns}",
         layer.grid_text,
         layer.at_once, str(layer.copies), f"{figures.arrays:,}",
         meter(figures.utilization), f"{figures.positions:,}", f"{figures.tile_ops:,}",
         duration(figures.latency_ms * 1e6), meter(figures.latency_ms / time),
         energy(figures.energy_mj), meter(figures.energy_mj / spent))
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
    # Without reprogramming, which is of no layer.
    own_ms, own_mj = cost.latency_ms - cost.reprogramming_ms, cost.energy_mj - cost.reprogramming_mj
    total = ["total", f"{cost.weights:,}", "", "", "", f"{cost.crossbars:,}", f"{cost.utilization:.0%}",
             f"{cost.mvm_positions:,}", f"{cost.tile_ops:,}", duration(own_ms * 1e6), "",
             energy(own_mj), ""]  # fmt: skip
    return table(head, rows, total)
