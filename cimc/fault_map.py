"""A fault map: the stuck devices of a die, from a CSV file of a tester.

    array,row,column,kind              or         array,row,column,conductance_uS
    0,17,4,stuck-low                              0,17,4,3.2

One line a cell; arrays, rows (word lines) and columns (bit lines) are counted from 0, as in a package's `program/`.
"""

import csv
import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Mapping

Floats = npt.NDArray[np.float32]
PLACE = ("array", "row", "column")
KINDS = ("stuck-low", "stuck-high")
LARGEST_uS = 1e6  # a siemens, a short


def read_fault_map(path: str | Path, mapping: Mapping, *, chip: Chip) -> Floats:
    """What each stuck cell holds, uS, [arrays, array rows, array columns]; NaN of all others.

    Stuck low and high are what `[cell.faults]` says, else G_min and G_max. A cell that holds no weight may be listed.

    Args:
        path: the CSV file.
        mapping: of the network on the chip.
        chip: the chip.

    Raises:
        CimcError: the file cannot be read, its head line is another, or a line names no cell of these arrays, a cell
            twice, or no state; file and line are named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CimcError(f"cannot read fault map {path}: {reason}; check the path") from None
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise CimcError(f"fault map {path} is no CSV file: {error}; correct it") from None
    head = [name.strip() for name in (lines or [[]])[0]]
    if tuple(head[:3]) != PLACE or head[3:] not in (["kind"], ["conductance_uS"]):
        raise CimcError(
            f"the head line of fault map {path} is {','.join(head)!r:.60}; make it array,row,column,kind or "
            f"array,row,column,conductance_uS"
        )
    shape = (mapping.arrays, chip.array.rows, chip.array.columns)
    stuck = np.full(shape, np.nan, np.float32)
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        where = f"fault map {path}, line {number}"
        if len(line) != len(head):
            raise CimcError(f"{where}: {len(line)} fields in place of {len(head)}; correct the line")
        cell = _cell(line[:3], shape, where)
        if not np.isnan(stuck[cell]):
            raise CimcError(f"{where}: array {cell[0]}, row {cell[1]}, column {cell[2]} comes twice; leave one out")
        stuck[cell] = _state(line[3].strip(), head[3], chip, where)
    return stuck


def _cell(fields: list[str], shape: tuple[int, int, int], where: str) -> tuple[int, int, int]:
    """The cell of a line, within the arrays."""
    place = []
    for name, field, size in zip(PLACE, fields, shape, strict=True):
        text = field.strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise CimcError(f"{where}: {name} is {text!r:.40}; give a whole number from 0 to {size - 1}")
        if int(text) >= size:
            raise CimcError(f"{where}: there is no {name} {int(text)}; it is from 0 to {size - 1}")
        place.append(int(text))
    return place[0], place[1], place[2]


def _state(text: str, column: str, chip: Chip, where: str) -> float:
    """What a stuck cell holds, uS."""
    if column == "kind":
        if text not in KINDS:
            raise CimcError(f"{where}: kind is {text!r:.40}; give {' or '.join(KINDS)}")
        faults, cell = chip.cell.faults, chip.cell
        if text == "stuck-low":
            return cell.conductance_min_uS if faults is None or faults.low_uS is None else faults.low_uS
        return cell.conductance_max_uS if faults is None or faults.high_uS is None else faults.high_uS
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LARGEST_uS:
        raise CimcError(f"{where}: conductance_uS is {text!r:.40}; give uS, a number from 0 to {LARGEST_uS:g}")
    return value
