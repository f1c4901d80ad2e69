"""`cimc compare`: `.cim` files, packages and sweeps side by side, by the figures that they hold."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import Json, emit
from cimc.dotted import dotted

if TYPE_CHECKING:
    from cimc.artifact import Artifact
    from cimc.package import Package
    from cimc.sweep_result import SweepResult

Figures = dict[str, dict[str, Any]]
# Sections of which only what differs is listed; of the others every figure.
BY_DIFFERENCE = ("chip", "training options")
# Closing figures of a training, in this order.
TRAINING = [
    "accuracy",
    "loss",
    "epochs",
    "steps",
    "updates",
    "updates_per_weight_mean",
    "update_reduction",
    "device_writes",
    "programming_trials",
    "row_writes",
    "programming_energy_mj",
    "programming_time_ms",
    "write_time_ms",
    "write_energy_mj",
    "array_time_ms",
    "endurance_used",
]
LONGEST_LIST = 4


def compare(
    files: Annotated[list[Path], typer.Argument(help="Two or more: .cim files, folders of packages and sweeps.")],
    as_json: Json = False,
) -> None:
    """Show side by side in what files differ: chip, mapping, time, energy, area, training, agreement.

    Of chips and of training options only what differs is listed; of sweeps every point. Nothing is computed anew.

    Example: cimc compare lenet1.cim trained.cim package/
    """
    if len(files) < 2:
        raise typer.BadParameter("give at least two files", param_hint="FILES")
    compared = compare_files(files)
    emit(compared, lambda: show(compared), as_json=as_json)


def compare_files(files: Sequence[Path]) -> dict[str, Any]:
    """JSON of `compare`: `files`, and under `sections` by section and figure the values in the order of the files.

    None: the file has no such figure, or its chip file does not state it.
    """
    from cimc.artifact import read_artifact
    from cimc.package import read_package
    from cimc.sweep_result import read_sweep
    from cimc.sweep_results import is_sweep

    found = [
        _sweep(read_sweep(file))
        if is_sweep(file)
        else _figures(read_package(file) if file.is_dir() else read_artifact(file))
        for file in files
    ]
    sections: dict[str, dict[str, list[Any]]] = {}
    for section in dict.fromkeys(name for figures in found for name in figures):
        keys = dict.fromkeys(key for figures in found for key in figures.get(section, {}))
        table = {key: [figures.get(section, {}).get(key) for figures in found] for key in keys}
        if section in BY_DIFFERENCE:
            there = [index for index, figures in enumerate(found) if section in figures]
            if len(there) < 2:  # nothing to compare with
                continue
            table = {key: values for key, values in table.items() if any(values[i] != values[there[0]] for i in there)}
        sections[section] = {key: values for key, values in table.items() if any(value is not None for value in values)}
    return {"files": [str(file) for file in files], "sections": sections}


def _figures(contents: "Artifact | Package") -> Figures:
    from cimc.package import Package

    sections: Figures = {
        "file": {
            "kind": "package" if isinstance(contents, Package) else "compiled",
            "model": contents.model,
            "chip": contents.chip.name,
        },
        "chip": {
            key: value
            for key, value in dotted(contents.chip.model_dump()).items()
            if key not in ("name", "description")
        }
        | {
            f"{section}.{key} of {layer.name}": value
            for layer in contents.mapping.layers
            for section, key, value in layer.settings
        },
        **_mapping(contents),
    }
    if isinstance(contents, Package):
        options = contents.notes["training"]
        sections["package"] = dict(_package(contents.notes))
    else:
        from cimc import training_record

        options = contents.history.get("options", {})
        training = training_record.figures(contents)
        if training is not None:
            sections["file"]["kind"] = "trained" if training["complete"] else "checkpoint"
            sections["training"] = {key: training["figures"].get(key) for key in TRAINING}
    if options:
        sections["training options"] = dotted({k: v for k, v in options.items() if not k.endswith("sha256")})
    return sections


def _sweep(result: "SweepResult") -> Figures:
    """Of a sweep the figures that it looks at, by point: means over its seeds."""
    from cimc.sweep_spec import point_text

    sections: Figures = {"file": {"kind": "sweep", "model": result.name, "points": len(result.groups)}}
    for aim in result.aims():
        found = {point_text(group.fields): group.mean.get(aim.figure) for group in result.groups}
        sections[f"{aim.figure}, mean over seeds"] = found
    return sections


def _mapping(contents: "Artifact | Package") -> Figures:
    from cimc.commands import totals

    mapping = contents.mapping
    cost, found = mapping.cost, totals.figures(mapping)
    return {
        "mapping": {
            "layers on arrays": len(mapping.layers),
            "arrays": cost.crossbars,
            "chips": mapping.chips,
            "segments": len(mapping.segments) or None,
            "devices": cost.devices,
            "used": cost.utilization,
            "most copies of a layer": max(layer.copies for layer in mapping.layers),
            "rows split by": " and ".join(sorted({layer.row_split for layer in mapping.layers})),
            "objective": mapping.result and mapping.result.objective,
        },
        "one input": {
            "latency, ms": mapping.latency_ms,
            "interval, ms": totals.interval_ms(mapping),
            "energy, mJ": found["energy_mj"],
            "area, mm2": found["area_mm2"],
            "power, W": found["power_w"],
            "TOPS": found["tops"],
            "TOPS/W": found["tops_per_w"],
        },
        "energy of one input, mJ": {part.name: part.energy_mj for part in cost.components},
    }


def _package(notes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "trained on", notes.get("trained_on")
    for condition, name in (("noise_off", "without noise"), ("noise_on", "with noise")):
        outputs = notes.get("agreement", {}).get(condition) or {}
        for figure, text in (("argmax_agreement", "same largest entry"), ("snr_db", "SNR, dB")):
            values = [found[figure] for found in outputs.values() if found.get(figure) is not None]
            yield f"{text}, {name}", min(values) if values else None
    yield "correction", (notes.get("correction") or {}).get("method")
    yield "for the die", (notes.get("die") or {}).get("name")


def show(compared: dict[str, Any]) -> None:
    """A table a section, a column a file."""
    from cimc.commands.console import print_table, say

    names = _short_names([Path(file) for file in compared["files"]])
    for section, table in compared["sections"].items():
        if not table:
            say(f"{section}: the same")
            continue
        rows = [[key, *(_text(key, value) for value in values)] for key, values in _folded(table).items()]
        title = f"{section} (what differs)" if section in BY_DIFFERENCE else section
        print_table(title, ["", *names], rows)
    say("-: not stated, or the file has none; one input: all components that the chip file states energy of")


def _folded(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Where a file has nothing of a table of the chip file that others have, one row in place of all its keys."""
    groups: dict[str, list[str]] = {}
    for key in table:
        parts = key.split(".")
        groups.setdefault(".".join(parts[:2]) if len(parts) > 2 else key, []).append(key)
    folded: dict[str, list[Any]] = {}
    for group, keys in groups.items():
        counts = [
            sum(value is not None for value in values) for values in zip(*(table[key] for key in keys), strict=True)
        ]
        if len(keys) > 1 and 0 in counts:
            folded[group] = [f"{count} values" if count else None for count in counts]
        else:
            folded |= {key: table[key] for key in keys}
    return folded


def _short_names(files: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    for count in range(1, max(len(file.parts) for file in files) + 1):
        names = [str(Path(*file.parts[-count:])) for file in files]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {file}" for number, file in enumerate(files, 1)]


def _text(key: str, value: Any) -> str:
    """A figure in a few characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        share = key in ("used", "accuracy") or key.startswith("same largest entry")
        return f"{value:.2%}" if share else f"{value:.4g}"
    if isinstance(value, list | tuple):
        if len(value) > LONGEST_LIST:
            return f"{len(value)} values, {_text(key, value[0])} to {_text(key, value[-1])}"
        return " ".join(_text(key, one) for one in value) or "none"
    return str(value)
