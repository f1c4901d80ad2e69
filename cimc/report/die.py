"""The report's section on the die of a package: where its stuck cells are, and what placement did about them."""

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

from cimc.addresses import size_of_array
from cimc.chip import Chip
from cimc.fault_map import Die
from cimc.package import Package
from cimc.program import Floats
from cimc.program_files import array_targets
from cimc.report.charts import bars
from cimc.report.figure import Figure, figures
from cimc.report.floor_plan import PAGE
from cimc.report.html import section, short_name, table
from cimc.report.svg import GREY, MUTED, drawing, rectangle, text

MODES = {
    "none": "targets as they are",
    "pairs": "with pairs",
    "full": "on chosen lines, with pairs",
    "bound": "bound of any order of lines",
}
MOST_MAPS = 24  # arrays drawn, those with the most stuck cells in use
SIDE, LABEL, GAP = 256, 16, 18  # pixels: the longer side of an array; its name over it; between arrays
# Of a cell, by what it is, red, green, blue and opacity: seen on light and on dark paper.
UNUSED, USED, IDLE, LOW, HIGH = range(5)
COLOURS = ((0, 0, 0, 0), (128, 140, 152, 60), (128, 140, 152, 255), (58, 130, 216, 255), (222, 106, 30, 255))

Kinds = npt.NDArray[np.uint8]


def die_section(package: Package) -> str:
    """The section as HTML; nothing for a package that is for any die."""
    if package.die is None:
        return ""
    figures_of = package.notes.get("die", {})
    note = (
        f"Cells of {package.die.name} that are stuck: blue near the lowest conductance, orange near the highest, where "
        "weights are; dark grey where none is, which harms nothing. Pale: cells in use. "
    )
    if package.wiring is not None:
        note += (
            "On the left the network as its mapping has it, on the right as it was placed; over them, how many stuck "
            "cells are in use. "
        )
    note += "With pairs: the good devices of a weight take up the error of its stuck ones."
    errors = figures_of.get("expected_error", {})
    shown = [(MODES.get(mode, mode), float(error), f"{error:.3g}") for mode, error in errors.items()]
    return section(
        "Stuck cells and placement",
        note,
        die_map(package).html,
        figures([bars("expected error of the layers' outputs, of the signal", shown, "error")] if shown else []),
        _by_layer(figures_of.get("layers", {})),
    )


def _by_layer(layers: dict[str, dict[str, float]]) -> str:
    modes = list(next(iter(layers.values()), {}))
    if not modes:
        return ""
    rows = [(short_name(name), *(f"{found[mode]:.3g}" for mode in modes)) for name, found in layers.items()]
    return f"<p>Expected error by layer, of the signal</p>{table(['layer', *(MODES[mode] for mode in modes)], rows)}"


def die_map(package: Package) -> Figure:
    """The arrays that hold weights, with their stuck cells; as mapped and as placed where lines were moved."""
    die, chip = package.die, package.chip
    assert die is not None
    placed = _kinds(array_targets(package.mapping, chip, package.program, package.wiring), die, chip)
    mapped = placed
    if package.wiring is not None:
        straight = array_targets(package.mapping, chip, package.program)
        filled = np.full(placed.shape, np.nan, np.float32)
        filled[: len(straight)] = straight
        mapped = _kinds(filled, die, chip)
    rows = [
        (array, *(int(np.count_nonzero(kinds[array] == kind)) for kinds in (mapped, placed) for kind in (LOW, HIGH)))
        for array in range(len(placed))
    ]
    most = sorted(range(len(rows)), key=lambda array: (-sum(rows[array][1:]), array))
    drawn = sorted(array for array in most[:MOST_MAPS] if (mapped[array] | placed[array]).any())
    title = "stuck cells by array"
    if len(drawn) == MOST_MAPS:
        title += f", the {MOST_MAPS} arrays with most"
    sizes = [size_of_array(package.mapping, chip, array) for array in range(len(placed))]
    stages = [mapped, placed] if package.wiring is not None else [placed]
    head = [
        "array",
        *(f"stuck {kind} in use, {when}" for when in ("as mapped", "as placed") for kind in ("low", "high")),
    ]
    return Figure(title, _draw(drawn, stages, sizes, title), head, rows)


def _draw(drawn: list[int], stages: list[Kinds], sizes: list[tuple[int, int]], title: str) -> str:
    """The arrays, each of its own size [rows, columns]."""
    largest = stages[0].shape[1:]
    scale = SIDE / max(largest)
    height, width = (lines * scale for lines in largest)
    panel = max(64.0, len(stages) * (width + 4) + GAP)
    in_row = max(1, int(PAGE // panel))
    parts = []
    for place, array in enumerate(drawn):
        x, y = place % in_row * panel, place // in_row * (height + LABEL + GAP)
        counts = [int(np.count_nonzero(stage[array] >= LOW)) for stage in stages]
        parts.append(text(x, y + 11, f"{array}: {' → '.join(map(str, counts))}", 10, "start", MUTED))
        for number, stage in enumerate(stages):
            left = x + number * (width + 4)
            rows, columns = sizes[array]
            wide, tall = columns * scale, rows * scale
            note = (
                f"array {array}, {('as mapped', 'as placed')[number - len(stages)]}: {counts[number]} in use are stuck"
            )
            parts.append(
                f'<image x="{left:.1f}" y="{y + LABEL}" width="{wide:.1f}" height="{tall:.1f}" '
                f'preserveAspectRatio="none" href="data:image/png;base64,{_png(stage[array, :rows, :columns])}"/>'
            )
            parts.append(rectangle(left, y + LABEL, wide, tall, "none", GREY, note))
    lines = -(-len(drawn) // in_row)
    return drawing(min(len(drawn), in_row) * panel, max(1, lines) * (height + LABEL + GAP), parts, title)


def _kinds(targets: Floats, die: Die, chip: Chip) -> Kinds:
    """What each cell [arrays, rows, columns] is: unused or used, and stuck low or high where it is used."""
    stuck = np.full(targets.shape, np.nan, np.float32)
    known = min(len(stuck), len(die.stuck))
    stuck[:known] = die.stuck[:known]
    middle = (chip.cell.conductance_min_uS + chip.cell.conductance_max_uS) / 2
    used, faulty = np.isfinite(targets), np.isfinite(stuck)
    kinds = np.where(used, USED, UNUSED)
    kinds = np.where(faulty, np.where(used, np.where(stuck > middle, HIGH, LOW), IDLE), kinds)
    return kinds.astype(np.uint8)


def _png(kinds: Kinds) -> str:
    """An image [rows, columns] of indexed colours as PNG, base64."""
    rows, columns = kinds.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), kinds], axis=1).tobytes()
    colours = np.array(COLOURS, np.uint8)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", colours[:, :3].tobytes()),
        (b"tRNS", colours[:, 3].tobytes()),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    written = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + written).decode()
