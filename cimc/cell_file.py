"""Values of cells by their place, from a tester's file: CSV with a line a cell, or NPZ with the same columns as arrays.

    array,row,column,kind              or         array,row,column,conductance_uS
    0,17,4,stuck-low                              0,17,4,3.2

Arrays, rows (word lines) and columns (bit lines) are counted from 0, as in a package's `program/`. An NPZ may hold one
array of all cells instead, [arrays, rows, columns] in uS with NaN where nothing is said; an NPY is such an array, as
a package's `program/targets.npy` is.
"""

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from cimc.errors import CimcError

Floats = npt.NDArray[np.float32]
PLACE = ("array", "row", "column")
LARGEST_uS = 1e6  # a siemens, a short
# What reading a damaged, pickled or impossibly large archive raises.
_ERRORS = (ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, TokenError)


@dataclass(frozen=True)
class CellFile:
    """What a kind of file holds.

    what: the kind, in errors. whole: the array of all cells in an NPZ. kinds: uS by name, of a column `kind`; none:
    only conductances. arrays, rows, columns: how many arrays there are, and their size; sizes: of each, (rows,
    columns), where these are not all the same and the size is what all of them fit into. least: arrays that must be
    told of. lowest_uS: the least that a cell may have. expected_uS: where the largest conductance and the median lie,
    if the unit is right.
    """

    what: str
    whole: str
    kinds: Mapping[str, float]
    arrays: int
    rows: int
    columns: int
    least: int
    lowest_uS: float
    expected_uS: tuple[float, float]
    sizes: tuple[tuple[int, int], ...] = ()

    def size_of(self, array: int) -> tuple[int, int]:
        """Rows and columns of an array."""
        return self.sizes[array] if self.sizes else (self.rows, self.columns)

    @property
    def heads(self) -> list[str]:
        """The columns for the value, of which a file has one."""
        return ["kind", "conductance_uS"] if self.kinds else ["conductance_uS"]


def read_cells(path: str | Path, form: CellFile) -> Floats:
    """The values of all cells, uS [arrays, rows, columns]; NaN of those that the file does not list.

    As many arrays as the file tells of: up to the last that it lists, or all of an array of cells; at least `least`.

    Raises:
        CimcError: the file cannot be read, its columns are others, or an entry names no cell of these arrays, a cell
            twice, or no value in uS; file and line are named.
    """
    is_numpy = Path(path).suffix.lower() in (".npz", ".npy")
    values = _read_arrays(path, form) if is_numpy else _place(path, form, *_read_table(path, form))
    # A kind says nothing about the unit: an open cell lies far below the others.
    by_kind = np.isin(values, np.array(list(form.kinds.values()), np.float32))
    told, (least, most) = values[(values > 0) & ~by_kind], form.expected_uS
    if told.size and not (float(np.max(told)) >= least and float(np.median(told)) <= most):
        raise CimcError(
            f"{form.what} {path}: the conductances reach {float(np.max(told)):.3g} uS, half of them "
            f"{float(np.median(told)):.3g} uS, and the chip's lie from {least:.3g} to {most:.3g} uS: they look like "
            "another unit; give uS"
        )
    return values


def _read_table(path: str | Path, form: CellFile) -> tuple[str, list[tuple[str, list[str]]]]:
    """The name of the value column of a CSV file, and of each entry where it stands and its fields."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise CimcError(f"cannot read {form.what} {path}: {reason}; give CSV, NPZ or NPY") from None
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise CimcError(f"{form.what} {path} is no CSV file: {error}; correct it") from None
    head = [name.strip() for name in (lines or [[]])[0]]
    if tuple(head[:3]) != PLACE or len(head) != 4 or head[3] not in form.heads:
        wanted = " or ".join(",".join([*PLACE, name]) for name in form.heads)
        raise CimcError(f"the head line of {form.what} {path} is {','.join(head)!r:.60}; make it {wanted}")
    entries = [(f"line {number}", line) for number, line in enumerate(lines[1:], 2) if line]
    for where, line in entries:
        if len(line) != len(head):
            raise CimcError(
                f"{form.what} {path}, {where}: {len(line)} fields in place of {len(head)}; correct the line"
            )
    return head[3], entries


def _read_arrays(path: str | Path, form: CellFile) -> Floats:
    """The values of an NPZ or NPY: of all cells in one array, or of an NPZ of those that its columns list."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return _check_whole(path, form, file)
        with file:
            arrays = {name: file[name] for name in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError  # NumPy hands on the bytes of a member that is no NPY
    except OSError as error:
        raise CimcError(f"cannot read {form.what} {path}: {error.strerror or error}; check the path") from None
    except (*_ERRORS, AttributeError, TypeError):
        raise CimcError(f"{form.what} {path} is no NPZ file of arrays; save it with numpy.savez") from None
    if form.whole in arrays and not set(PLACE) & arrays.keys():
        return _check_whole(path, form, arrays[form.whole])
    given = [name for name in form.heads if name in arrays]
    columns = [arrays.get(name) for name in PLACE]
    if len(given) != 1 or any(column is None for column in columns):
        raise CimcError(
            f"{form.what} {path} holds {', '.join(sorted(arrays))[:80] or 'nothing'}; give {form.whole} [arrays, rows, "
            f"columns], or {', '.join(PLACE)} and {' or '.join(form.heads)}"
        )
    parts = [np.asarray(part) for part in (*columns, arrays[given[0]])]
    if any(part.ndim != 1 or len(part) != len(parts[0]) for part in parts):
        raise CimcError(f"{form.what} {path}: {', '.join((*PLACE, given[0]))} must be lists of one length")
    entries = [(f"entry {number}", list(map(str, fields))) for number, fields in enumerate(zip(*parts, strict=True))]
    return _place(path, form, given[0], entries)


def _check_whole(path: str | Path, form: CellFile, values: npt.NDArray[Any]) -> Floats:
    """An array of all cells, if it is one of these arrays."""
    size = (form.rows, form.columns)
    if values.ndim != 3 or values.shape[1:] != size or not form.least <= len(values) <= form.arrays:
        raise CimcError(
            f"{form.what} {path}: {form.whole} is {' x '.join(map(str, values.shape))}; the package has arrays of "
            f"{size[0]} x {size[1]}, {form.least} in use on chips of {form.arrays}: is it of another package?"
        )
    if values.dtype.kind not in "fiu":
        raise CimcError(f"{form.what} {path}: {form.whole} holds {values.dtype}; give numbers in uS")
    wrong = np.argwhere((values < form.lowest_uS) | (values > LARGEST_uS))
    if len(wrong):
        array, row, column = (int(index) for index in wrong[0])
        raise CimcError(
            f"{form.what} {path}: array {array}, row {row}, column {column} is {values[array, row, column]:g}; "
            f"give uS, a number from {form.lowest_uS:g} to {LARGEST_uS:g}"
        )
    for array, (rows, columns) in enumerate(form.sizes[: len(values)]):
        beyond = np.isfinite(values[array])
        beyond[:rows, :columns] = False
        if beyond.any():
            row, column = (int(index) for index in np.argwhere(beyond)[0])
            raise CimcError(
                f"{form.what} {path}: array {array} has {rows} rows and {columns} columns, and row {row}, column "
                f"{column} is {values[array, row, column]:g}; make it NaN"
            )
    return values.astype(np.float32)


def _place(path: str | Path, form: CellFile, head: str, entries: Sequence[tuple[str, list[str]]]) -> Floats:
    """The values of the entries at their places."""
    found: dict[tuple[int, int, int], float] = {}
    for entry, fields in entries:
        where = f"{form.what} {path}, {entry}"
        cell = _cell(fields[:3], form, where)
        if cell in found:
            raise CimcError(f"{where}: array {cell[0]}, row {cell[1]}, column {cell[2]} comes twice; leave one out")
        found[cell] = _value(fields[3].strip(), head, form, where)
    arrays = max([form.least, *(cell[0] + 1 for cell in found)])
    values = np.full((arrays, form.rows, form.columns), np.nan, np.float32)
    if found:
        values[tuple(np.array(list(found)).T)] = list(found.values())
    return values


def _cell(fields: list[str], form: CellFile, where: str) -> tuple[int, int, int]:
    """The cell of an entry, within the arrays."""
    place: list[int] = []
    for number, (name, field) in enumerate(zip(PLACE, fields, strict=True)):
        most = form.size_of(place[0])[number - 1] if place else form.arrays
        text = field.strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise CimcError(f"{where}: {name} is {text!r:.40}; give a whole number from 0 to {most - 1}")
        if int(text) >= most:
            within = f" in array {place[0]}" if place and form.sizes else ""
            raise CimcError(f"{where}: there is no {name} {int(text)}{within}; it is from 0 to {most - 1}")
        place.append(int(text))
    return place[0], place[1], place[2]


def _value(text: str, head: str, form: CellFile, where: str) -> float:
    """The value of an entry, uS."""
    if head == "kind":
        if text not in form.kinds:
            raise CimcError(f"{where}: kind is {text!r:.40}; give {' or '.join(form.kinds)}")
        return form.kinds[text]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not form.lowest_uS <= value <= LARGEST_uS:
        span = f"from {form.lowest_uS:g} to {LARGEST_uS:g}"
        raise CimcError(f"{where}: conductance_uS is {text!r:.40}; give uS, a number {span}")
    return value
