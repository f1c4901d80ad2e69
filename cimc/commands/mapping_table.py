"""A mapping as JSON figures and as tables: totals, layers, components, the critical path, the simulation."""

from collections.abc import Iterable, Sequence
from typing import Any

from cimc import training_record
from cimc.artifact import Artifact
from cimc.commands import digital_table, per_unit, totals, training_table
from cimc.commands.console import print_table, say
from cimc.layer_settings import settings_text
from cimc.mapping import MappedLayer, Mapping
from cimc.mapping_cost import LayerCost
from cimc.schedule import Step

Figures = dict[str, Any]
LONGEST_WAITS = 8
NAMES_SHOWN = 8
AT_ONCE = "at once"
ROUNDS_TO_NOTHING = 0.005  # a share that is shown as 0 %


def figures(
    artifact: Artifact, simulated: Figures | None = None, inputs_per_second: float | None = None
) -> dict[str, Any]:
    """JSON of `inspect`: the cost with its layers, the totals, the result, the schedule without its stages, the
    segments, and the training (`training_record.figures`; None for a file that was never trained); `simulated` where it
    was asked for; inputs_per_second: as of `per_unit.shares`.
    """
    mapping = artifact.mapping
    result = mapping.cost.model_dump()
    result["layers"] = [
        {
            **record,
            "grid": list(layer.grid),
            "rows_per_read": layer.read_rows if layer.read_in_parts else None,
            "groups_per_read": layer.groups_per_read,
            "settings": {f"{one.section}.{one.key}": one.value for one in layer.settings},
            "share_of_time": time,
            "share_of_energy": energy,
        }
        for record, layer, (time, energy) in zip(result["layers"], mapping.layers, _shares(mapping), strict=True)
    ]
    result["components"] = [part._asdict() for part in mapping.cost.components]
    result["arrays"] = mapping.arrays
    result |= totals.figures(mapping)
    result |= per_unit.figures(per_unit.shares(artifact, totals.interval_ms(mapping), inputs_per_second))
    result["result"] = mapping.result and {**mapping.result.model_dump(), "gap": mapping.result.gap}
    result["segments"] = [segment.model_dump() for segment in mapping.segments]
    if mapping.schedule is not None:
        schedule = mapping.schedule
        result["row_pipelined_latency_ms"] = schedule.latency_ns * 1e-6
        result["interval_ms"] = schedule.interval_ns * 1e-6
        result["buffer_bytes"] = schedule.buffer_bytes
        result["limits"] = [limit._asdict() for limit in schedule.limits]
        result["critical_path"] = [step._asdict() for step in schedule.critical_path]
    if mapping.placement is not None:
        placement = mapping.placement
        result["placement"] = {
            **{name: getattr(placement, name) for name in ("byte_hops", "byte_hops_bound", "byte_hops_unplaced")},
            "links": [link._asdict() for link in placement.links],
        }
    result |= digital_table.figures(artifact)
    result["training"] = training_record.figures(artifact)
    if simulated is not None:
        result["simulated"] = simulated
    return result


def show(artifact: Artifact, simulated: Figures | None = None, inputs_per_second: float | None = None) -> None:
    """Everything that `inspect` prints."""
    totals.show(artifact, inputs_per_second)
    show_layers(artifact)
    digital_table.show(artifact)
    _show_components(artifact.mapping)
    if artifact.mapping.schedule is not None:
        _show_path(artifact.mapping.schedule.critical_path, artifact.mapping.schedule.latency_ns)
    if simulated is not None:
        _show_simulation(simulated)
    training_table.show(artifact)


def show_layers(artifact: Artifact) -> None:
    """The layers of a `.cim` file and the cost of one input; those of 0 % of time and energy in one line."""
    mapping, chip, cost = artifact.mapping, artifact.chip, artifact.mapping.cost
    layers = list(zip(mapping.layers, cost.layers, _shares(mapping), strict=True))
    small = [record for _, record, shares in layers if max(shares) < ROUNDS_TO_NOTHING]
    folded = len(small) > 1
    rows = [
        _layer_row(layer, record, *shares)
        for layer, record, shares in layers
        if not folded or max(shares) >= ROUNDS_TO_NOTHING
    ]
    if folded:
        rows.append(_folded_row(small, mapping))
    counts = [str(cost.crossbars), f"{cost.utilization:.0%}", str(cost.mvm_positions), str(cost.tile_ops)]
    spent = cost.energy_mj - cost.reprogramming_mj
    rows.append(["total", str(cost.weights), *[""] * 3, *counts, *[""] * 2, f"{spent:.2g}", ""])
    columns = ["layer", "weights", "grid", AT_ONCE, "copies", "arrays", "used", "MVMs", "tile ops", "ms"]
    in_parts = any(layer.at_once != "all" for layer in mapping.layers)
    if not in_parts:
        place = columns.index(AT_ONCE)
        for row in (columns, *rows):
            del row[place]
    splits = " and ".join(sorted({layer.row_split for layer in mapping.layers}))
    print_table(
        f"{artifact.model} on {chip.name} ({chip.sizes_text(mapping.kinds_in_use)} arrays)",
        [*columns, "time", "mJ", "energy"],
        rows,
        "one input, arrays with their converters; digital operators and data movement are not counted here; ms: of all "
        f"MVMs of a layer, which work side by side; rows are split by {splits}"
        + (f"; {AT_ONCE}: rows of a block (groups x rows) that are driven at once" if in_parts else "")
        + ("; --json lists every layer" if folded else ""),
    )
    for settings, names in mapping.by_settings.items():
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        say(f"{', '.join(names[:NAMES_SHOWN])}{more} alone: {settings_text(settings)}")


def _folded_row(records: Sequence[LayerCost], mapping: Mapping) -> list[str]:
    names = {record.name for record in records}
    weights = sum(layer.rows * layer.columns for layer in mapping.layers if layer.name in names)
    arrays, positions, operations = (
        sum(getattr(record, name) for record in records) for name in ("arrays", "positions", "tile_ops")
    )
    time, energy = sum(record.latency_ms for record in records), sum(record.energy_mj for record in records)
    counts = [str(arrays), "", str(positions), str(operations)]
    return [
        f"{len(records)} layers of 0 %",
        str(weights),
        *[""] * 3,
        *counts,
        f"{time:.4f}",
        "0%",
        f"{energy:.2g}",
        "0%",
    ]


def _layer_row(layer: MappedLayer, cost: LayerCost, time: float, energy: float) -> list[str]:
    return [
        layer.name + (" (two-phase)" if layer.signed_input else ""),
        f"{layer.rows} x {layer.columns}",
        layer.grid_text,
        layer.at_once,
        str(layer.copies),
        str(cost.arrays),
        f"{cost.utilization:.0%}",
        str(cost.positions),
        str(cost.tile_ops),
        f"{cost.latency_ms:.4f}",
        f"{time:.0%}",
        f"{cost.energy_mj:.2g}",
        f"{energy:.0%}",
    ]


def _shares(mapping: Mapping) -> list[tuple[float, float]]:
    """Each layer's share of the layers' time, one after the other, and of the arrays' energy."""
    layers = mapping.cost.layers
    time, energy = (sum(getattr(layer, name) for layer in layers) or 1.0 for name in ("latency_ms", "energy_mj"))
    return [(layer.latency_ms / time, layer.energy_mj / energy) for layer in layers]


def _show_components(mapping: Mapping) -> None:
    def text(value: float | None, digits: str) -> str:
        return "not stated" if value is None else format(value, digits)

    rows = [[part.name, text(part.energy_mj, ".3g"), text(part.area_mm2, ".4g")] for part in mapping.cost.components]
    print_table("components", ["component", "mJ / input", "mm2"], rows, "arrays first; digital work and data movement")


def _show_path(path: Iterable[Step], latency_ns: float) -> None:
    rows = [
        [
            step.stage,
            step.layer,
            f"{step.first_row} to {step.last_row}",
            f"{step.start_ns * 1e-3:.3f}",
            f"{step.stop_ns * 1e-3:.3f}",
            f"{(step.stop_ns - step.start_ns) / latency_ns:.0%}" if latency_ns else "",
        ]
        for step in path
    ]
    columns = ["stage", "on the cores of", "rows", "from us", "to us", "share"]
    print_table("critical path of one input", columns, rows)


def _show_simulation(simulated: Figures) -> None:
    """The schedule's figures beside the simulator's (`cimc.api.simulate`), and the longest waits of one input."""
    rows = []
    for what in ("latency", "interval"):
        figure = simulated[what]
        causes = ", ".join(figure["causes"]) + ("" if figure["agrees"] else " (not explained)")
        times = [f"{figure[key]:.5g}" for key in ("schedule_ms", "simulated_ms")]
        rows.append([f"{what}, ms", *times, f"{figure['difference']:+.1%}", causes.strip()])
    buffers = simulated["buffer_bytes"]
    difference = f"{buffers['simulated'] / buffers['schedule'] - 1:+.1%}" if buffers["schedule"] else ""
    rows.append(["buffers, bytes", f"{buffers['schedule']:,}", f"{buffers['simulated']:,}", difference, ""])
    print_table(
        "the schedule beside an event-driven simulation",
        ["", "schedule", "simulated", "difference", "because of"],
        rows,
        f"one input alone; interval of {simulated['images']} inputs in turn; causes are named from 5 % on",
    )
    waits = [
        [wait["kind"], wait["where"], ", ".join(wait["layers"]), f"{wait['wait_ns'] * 1e-3:.3f}"]
        for wait in simulated["waits"][:LONGEST_WAITS]
    ]
    if waits:
        print_table("longest waits, one input", ["resource", "which", "layers that share it", "waited us"], waits)
