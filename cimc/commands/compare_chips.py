"""`cimc chips NAME ... --compare --model FILE`: one network on several chips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cimc.chip import load_chip
from cimc.errors import CimcError

Row = dict[str, Any]


def compare_chips(model: Path, chips: Sequence[str], device: str | None = None) -> dict[str, Any]:
    """JSON of the comparison: `model`, `operations` of one input, and under `chips` by name the figures.

    A network is mapped plainly: one copy of each layer, on as many chips as that takes. Of a chip that refuses it the
    figures are `refused`, the reason, alone. off_chip_bytes: `passes.mapper.off_chip`. energy_not_stated: components
    that are not in energy_mj. None: not stated.

    Raises:
        CimcError: no chip takes it, with the first one's reason; a chip that is not there or no valid file; no network.
    """
    for chip in chips:  # before any is mapped: a name that is none refuses nothing
        load_chip(chip)
    found = {chip: _figures(model, chip, device) for chip in chips}
    if all("refused" in row for row in found.values()):
        raise CimcError(next(iter(found.values()))["refused"])
    operations = next((row.pop("operations") for row in found.values() if "operations" in row), None)
    for row in found.values():
        row.pop("operations", None)
    return {"model": str(model), "operations": operations, "chips": found}


def _figures(model: Path, chip: str, device: str | None) -> Row:
    import cimc
    from cimc.commands import totals
    from passes.mapper.off_chip import off_chip_bytes

    try:
        artifact = cimc.compile(model, chip, device=device, verify=False).artifact
    except cimc.CimcError as error:
        return {"refused": str(error)}
    mapping, found = artifact.mapping, totals.figures(artifact.mapping)
    return {
        "arrays": mapping.cost.crossbars,
        "chips": mapping.chips,
        "utilization": mapping.cost.utilization,
        "area_mm2": found["area_mm2"],
        "latency_ms": mapping.latency_ms,
        "interval_ms": totals.interval_ms(mapping),
        "energy_mj": found["energy_mj"],
        "energy_not_stated": totals.energy_not_stated(mapping),
        "tops": found["tops"],
        "tops_per_w": found["tops_per_w"],
        "off_chip_bytes": off_chip_bytes(mapping, artifact.chip),
        "operations": found["operations"],
    }


def show(compared: dict[str, Any]) -> None:
    """A row a chip; below the table the reasons of those that refuse."""
    from cimc.commands.console import print_table, say

    names = ("area_mm2", "latency_ms", "interval_ms", "energy_mj", "tops", "tops_per_w")
    rows = []
    for chip, row in compared["chips"].items():
        if "refused" in row:
            rows.append([chip, "refused", *["-"] * 8])
            continue
        moved = row["off_chip_bytes"]
        figures = ["-" if row[name] is None else f"{row[name]:.3g}" for name in names]
        rows.append(
            [chip, str(row["arrays"]), str(row["chips"]), *figures, "-" if moved is None else f"{moved / 1e3:.4g}"]
        )
    head = ["chip", "arrays", "chips", "mm2", "latency ms", "interval ms", "mJ", "TOPS", "TOPS/W", "off-chip kB"]
    operations = compared["operations"]
    print_table(
        f"{compared['model']} on {len(rows)} chips",
        head,
        rows,
        None
        if operations is None
        else f"of one input, {operations:,} operations, two for every weight and MVM; one copy of each layer; mJ: all "
        "components whose energy is stated; off-chip: inputs, outputs, values between chips; -: not stated",
    )
    without: dict[str, list[str]] = {}
    for chip, row in compared["chips"].items():
        if row.get("energy_mj") is not None and row["energy_not_stated"]:
            without.setdefault(", ".join(row["energy_not_stated"]), []).append(chip)
    for parts, chips in without.items():
        say(f"mJ and TOPS/W of {', '.join(chips)}: without {parts}, which are not stated")
    for chip, row in compared["chips"].items():
        if "refused" in row:
            say(f"{chip}: {row['refused']}")
