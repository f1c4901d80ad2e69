"""The files of `program/` in a package: what a tester writes into the arrays, in the arrays' own order."""

import csv
import io
import json
import math
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cimc.addresses import cell_owners, largest_array, lay_on_arrays, reference_column
from cimc.chip import Chip
from cimc.mapping import Block, MappedLayer, Mapping
from cimc.program import Floats, Program
from cimc.units import level_targets, reference_target
from cimc.wiring import Wiring

Cells = npt.NDArray[np.bool_]

MOST_DECIMALS = 149  # of a float32
MOST_LISTED = 64  # levels of a chip that are written out

ORDER = (
    "recommended: row by row from word line 0; in each row first RESET (lower conductance) of all devices above their "
    "target, then SET (higher conductance) of all devices below; SET and RESET apart, because they need opposite "
    "polarity; read every device after each pulse"
)
UNUSED = "an empty cell is not used: bring it to G_min, the lowest state; its tolerance does not matter"


def array_targets(mapping: Mapping, chip: Chip, program: Program, wiring: Wiring | None = None) -> Floats:
    """Target conductances as the physical arrays hold them: [arrays, rows, columns] in uS; NaN: a cell is not used, or
    not there in an array smaller than others (`cimc.addresses`).

    A reference column holds its conductance in every word line of the weights that it serves.
    """
    targets = {name: layer.targets for name, layer in program.layers.items()}
    arrays = lay_on_arrays(mapping, targets, chip=chip, fill=np.nan)
    if chip.scheme.reference is not None:
        chips = [chip.of_kind(kind) for kind in mapping.kind_of_arrays for _ in range(mapping.physical_per_array)]
        cells = _reference_cells(map(np.isfinite, arrays), mapping, chip)
        for array, of_array, reference in zip(arrays, chips, cells, strict=True):
            array[reference] = reference_target(of_array)
    return arrays if wiring is None else wiring.to_die(arrays, fill=np.nan)


def _reference_cells(used: Iterable[Cells], mapping: Mapping, chip: Chip) -> Iterator[Cells]:
    """The cells of reference columns [rows, columns] of one array after the other, in the word lines of weights.

    Of bit slices in arrays of their own, the array of the most significant has the one that is read.

    Args:
        used: cells of weights, likewise.
        mapping: of the network.
        chip: the chip.
    """
    kinds = mapping.kind_of_arrays
    for index, of_weights in enumerate(used):
        cells = np.zeros_like(of_weights)
        array, bit_slice = divmod(index, mapping.physical_per_array)
        if chip.scheme.reference is not None and bit_slice == 0:
            column = reference_column(chip.of_kind(kinds[array]))
            cells[:, column] = of_weights.any(axis=1)
        yield cells


def address_map(
    mapping: Mapping, chip: Chip, wiring: Wiring | None = None
) -> Iterator[tuple[str, type, Iterator[npt.NDArray[Any]]]]:
    """For every cell: layer index, copy, weight row and column, what it counts in the weight, and the sign of that, +1
    (G+) or -1 (G-); each as its name, its type and the physical arrays in turn, [rows, columns].

    Cells of reference columns are in `reference`: they count in every weight of their word line, and are none's.
    """

    def on_die(arrays: Iterator[npt.NDArray[Any]], fill: int) -> Iterator[npt.NDArray[Any]]:
        return arrays if wiring is None else iter(wiring.to_die(np.stack(list(arrays)), fill=fill))

    def of_cells(part: str) -> Iterator[npt.NDArray[Any]]:
        return on_die(cell_owners(mapping, chip, part), -1)

    def references() -> Iterator[Cells]:
        used = (layer >= 0 for layer in cell_owners(mapping, chip, "layer"))
        return on_die(_reference_cells(used, mapping, chip), False)

    def counted() -> Iterator[Floats]:
        counts = np.array([*chip.scheme.counts, 0.0], np.float32)  # the last one: not used
        of_reference = 0.0 if chip.scheme.reference is None else -chip.scheme.reference.times
        for device, reference in zip(of_cells("device"), references(), strict=True):
            yield np.where(reference, np.float32(of_reference), counts[device])

    yield "layer", np.int32, of_cells("layer")
    yield "copy", np.int32, of_cells("copy")
    yield "weight_row", np.int32, of_cells("row")
    yield "weight_column", np.int32, of_cells("column")
    yield "sign", np.int8, (np.sign(counts).astype(np.int8) for counts in counted())
    yield "counts", np.float32, counted()
    yield "reference", np.bool_, references()


def write_address_map(path: Path, mapping: Mapping, chip: Chip, wiring: Wiring | None = None) -> None:
    """`addresses.npz`, array by array: all at once would take several times the memory of the weights."""
    layers = np.array([layer.name for layer in mapping.layers])
    arrays = mapping.arrays * mapping.physical_per_array if wiring is None else wiring.arrays
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("layers.npy", "w") as member:
            np.lib.format.write_array(member, layers, allow_pickle=False)
        for name, kind, parts in address_map(mapping, chip, wiring):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                shape = (arrays, *largest_array(mapping, chip))
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for part in parts:
                    member.write(part.tobytes())


def block_table(mapping: Mapping) -> str:
    """CSV with a line a block and physical array: its place on chip, array, word line and bit line, its layer, copy and
    part of it, and the bit slice, where these have arrays of their own.
    """
    text, slices = io.StringIO(), mapping.physical_per_array
    writer = csv.writer(text, lineterminator="\n")
    header = (
        "chip,array_on_chip,array,array_row,array_column,layer,copy,row_start,row_stop,column_start,column_stop,slice"
    )
    writer.writerow(header.split(","))
    for layer in mapping.layers:
        for block in layer.blocks:
            chip, array = mapping.place_of(block.array)
            for bit_slice in range(slices):
                numbers = [chip, array * slices + bit_slice, block.array * slices + bit_slice]
                place = [*numbers, block.array_row, block.array_column]
                writer.writerow([*place, layer.name, block.copy, *block[:4], bit_slice])
    return text.getvalue()


def blocks_by_array(mapping: Mapping, wiring: Wiring | None = None) -> list[list[tuple[MappedLayer, Block]]]:
    """The blocks in every physical array, in the order of the layers."""
    slices = mapping.physical_per_array
    count = mapping.arrays * slices if wiring is None else wiring.arrays
    place = range(count) if wiring is None else wiring.array.tolist()
    held: list[list[tuple[MappedLayer, Block]]] = [[] for _ in range(count)]
    for layer in mapping.layers:
        for block in layer.blocks:
            for array in range(block.array * slices, (block.array + 1) * slices):
                held[place[array]].append((layer, block))
    return held


def decimals_for(targets: Floats, chip: Chip) -> int:
    """Decimals that write every target exactly: those of the chip's grid of targets, more where some lie off it."""
    decimals = min(MOST_DECIMALS, max(0, -math.floor(math.log2(chip.target_step_uS))))
    for array in targets:  # all of them in double precision would take several times the memory of the package
        used = array[np.isfinite(array)].astype(np.float64)
        # A binary fraction of n places has n decimals.
        while decimals < MOST_DECIMALS and np.any(np.ldexp(used, decimals) % 1.0):
            decimals += 1
    return decimals


def level_text(chip: Chip, decimals: int) -> str | None:
    """What the levels of a chip make of its targets, on one line; None: it has none."""
    targets = level_targets(chip)
    if targets is None:
        return None
    listed = chip.cell.level_uS is not None and chip.scheme.steps is None
    spread = "as chip.toml lists them" if listed else "evenly from G_min to G_max"
    text = f"every target is one of {len(targets)} levels, {spread}"
    if len(targets) > MOST_LISTED:
        return text
    return f"{text}: {', '.join(f'{target:.{decimals}f}' for target in targets.tolist())} uS"


def most_trials(chip: Chip) -> str:
    """Trials that a device takes at most. An error that follows the state is that after the last, whichever it was."""
    programming = chip.cell.programming
    return "not stated" if programming.follows_state else str(programming.trials)


def array_table(
    index: int,
    array: Floats,
    *,
    mapping: Mapping,
    chip: Chip,
    blocks: list[tuple[MappedLayer, Block]],
    decimals: int,
    moved: bool = False,
    stuck: int = 0,
    programmed: Collection[str] = (),
) -> str:
    """The CSV of one array: comment lines (`#`), a head line, and a line a word line with its index first.

    Args:
        index: of the array.
        array: targets [rows, columns] in uS of its own size; NaN: not used, left empty.
        mapping: of the whole network.
        chip: as its kind of arrays has it.
        blocks: what the array holds.
        decimals: of every number.
        moved: whether its lines are not where the mapping has them (`cimc.wiring`).
        stuck: how many of the cells in use are stuck.
        programmed: layers that the die holds already.
    """
    comments = _comments(index, array, mapping, chip, blocks, decimals, moved)
    if stuck:
        comments.append(
            f"stuck: {stuck} of these cells hold what stands here and take nothing else: leave out those in stuck.npz"
        )
    for name in dict.fromkeys(layer.name for layer, _ in blocks if layer.name in programmed):
        comments.append(f"programmed: layer {_quoted(name)} holds what stands here: leave its cells as they are")
    lines = [f"# {line}" for line in comments]
    lines.append("row," + ",".join(f"bl{column}" for column in range(array.shape[1])))
    values, places = np.unique(array, return_inverse=True)  # most stand in many cells: each is written out once
    texts = np.array(["" if math.isnan(g) else f"{g:.{decimals}f}" for g in values.tolist()], object)
    lines += [f"{row}," + ",".join(cells) for row, cells in enumerate(texts[places.reshape(array.shape)].tolist())]
    return "\n".join(lines) + "\n"


def _comments(
    index: int,
    array: Floats,
    mapping: Mapping,
    chip: Chip,
    blocks: list[tuple[MappedLayer, Block]],
    decimals: int,
    moved: bool,
) -> list[str]:
    cell, programming = chip.cell, chip.cell.programming
    levels = level_text(chip, decimals)
    slices = mapping.physical_per_array
    on, place = mapping.place_of(index // slices)
    rows, columns = array.shape
    tolerance = "not stated" if programming.tolerance_uS is None else f"+-{programming.tolerance_uS:g} uS of the target"
    return [
        f"target conductances of array {index}: chip {on}, array {place * slices + index % slices} on that chip "
        f"(all counted from 0)",
        f"chip: {_quoted(chip.name)}; device: {_quoted(cell.technology)}",
        *(_holds(layer, block, mapping, chip, moved) for layer, block in blocks),
        *_slice_of(index, chip),
        "unit: uS",
        f"G_min: {cell.conductance_min_uS:g} uS; G_max: {cell.conductance_max_uS:g} uS",
        *([] if levels is None else [f"levels: {levels}"]),
        f"order: a line is a word line (input), wl 0 to {rows - 1}, its index in the first field; "
        f"fields bl0 to bl{columns - 1} are the bit lines (outputs); row 0, bl0 is the cell at word line 0, bit line 0",
        f"sign: {weight_text(chip, moved)}; README.md has the weight ranges",
        f"unused: {UNUSED}",
        f"tolerance: {tolerance}",
        f"most trials: {most_trials(chip)}",
        f"verify voltage: {cell.read_voltage_V:g} V",
        f"writing order: {ORDER}",
        f"numbers: decimal point, {decimals} decimals, exact (each text is the float32 in targets.npy)",
    ]


def weight_text(chip: Chip, moved: bool = False) -> str:
    """How the devices of a weight lie and what they stand for, on one line; moved: they are placed around faults."""
    if chip.scheme.has_pair and not chip.scheme.in_rows:
        return (
            "a weight is a pair of neighbouring bit lines of one word line, "
            + ("addresses.npz says which of them is G+; " if moved else "G+ first, then G-; ")
            + "weight = (G+ - G-) x weight range / (G_max - G_min)"
        )
    counts = ", ".join(f"{count:g}" for count in chip.scheme.counts)
    rows, columns, arrays = chip.rows_per_weight, chip.columns_per_weight, chip.physical_per_array
    offset = f" less {chip.scheme.offset_uS:.9g}" if chip.scheme.offset_uS else ""
    return (
        f"a weight is {chip.devices_per_weight} devices, in {rows} word lines x {columns} bit lines of {arrays} "
        f"arrays, column by column; weight = (sum of counts x G{offset}) x weight range / "
        f"{chip.scheme.full_uS:.9g}, with the counts {counts}"
    )


def _slice_of(index: int, chip: Chip) -> list[str]:
    """Lines on the bit slice and the reference column of an array."""
    lines = []
    if chip.physical_per_array > 1:
        lines.append(f"slice: bit slice {index % chip.physical_per_array} of every weight, 0 is the most significant")
    if chip.scheme.reference is not None and index % chip.physical_per_array == 0:
        lines.append(f"reference: bit line {reference_column(chip)}, in every word line that is used")
    return lines


def _holds(layer: MappedLayer, block: Block, mapping: Mapping, chip: Chip, moved: bool) -> str:
    """Where a block lies: word lines, bit lines, which of them are G+, and its part of the layer's weights."""
    rows, columns = mapping.lines_of(block)
    first, last = columns[0], columns[-1]
    part = (
        f"weight rows {block.row_start} to {block.row_stop - 1}, "
        f"weight columns {block.column_start} to {block.column_stop - 1}"
    )
    whole = f"holds: layer {_quoted(layer.name)}, copy {block.copy} (of {layer.copies}), {part}"
    if moved:
        return f"{whole}, on lines that addresses.npz and wiring.npz name"
    pairs = (
        f"; G+ in bl {_every_second(first, last - 1)}; G- in bl {_every_second(first + 1, last)}"
        if chip.scheme.has_pair and not chip.scheme.in_rows
        else ""
    )
    return f"{whole} in wl {rows[0]} to {rows[-1]}, bl {first} to {last}{pairs}"


def _every_second(first: int, last: int) -> str:
    columns = [str(column) for column in range(first, last + 1, 2)]
    return ", ".join(columns if len(columns) < 4 else [*columns[:2], "...", columns[-1]])


def _quoted(name: str) -> str:
    """A name in ASCII on one line, whatever it holds."""
    return json.dumps(name)
