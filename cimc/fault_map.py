"""Dies: the stuck devices of real chips from the fault maps of a tester, and the conductances that one has programmed.

The files are those of `cimc.cell_file`: CSV, NPZ or NPY, with `kind` (stuck-low, stuck-high) or `conductance_uS`. An
NPZ of all cells is called `stuck_uS` in a fault map and `conductance_uS` in a measurement.
"""

from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cimc.addresses import largest_array, size_of_array
from cimc.cell_file import CellFile, Floats, read_cells
from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Mapping

SUFFIXES = (".csv", ".npz", ".npy")
# Of G_max: how far the conductances of a file may lie from it, before its unit must be another one.
OPEN, SHORT, NEAR = 1e-5, 100.0, 20.0


@dataclass(frozen=True, eq=False)
class Die:
    """A die. stuck: what each stuck cell holds, uS [arrays, array rows, array columns]; NaN of all others.

    It has as many arrays as its fault map tells of, at least those of the mapping: those beyond are spare.
    """

    name: str
    stuck: Floats


def read_die(path: str | Path, mapping: Mapping, *, chip: Chip, arrays: int | None = None) -> Die:
    """The die of a fault map, named as the file is. Arguments and errors as `read_fault_map`."""
    return Die(Path(path).stem, read_fault_map(path, mapping, chip=chip, arrays=arrays))


def read_dies(folder: str | Path, mapping: Mapping, *, chip: Chip, arrays: int | None = None) -> Iterator[Die]:
    """The die of every fault map (.csv, .npz, .npy) in a folder, in the order of their names.

    Raises:
        CimcError: there is none, two have one name, or as `read_fault_map`.
    """
    for file in map_files(folder):
        yield read_die(file, mapping, chip=chip, arrays=arrays)


def note_without_faults(die: Die, note: Callable[[str], None]) -> None:
    """A line where a fault map lists no stuck cell: the file may be one that was never filled."""
    if np.isnan(die.stuck).all():
        note(f"the fault map of die {die.name} lists no stuck cell: its devices are all taken for good")


def note_copies(mapping: Mapping, note: Callable[[str], None]) -> None:
    """A line where layers have copies: what is known of the devices of the others than the first is not computed."""
    copied = [layer for layer in mapping.layers if layer.copies > 1]
    if copied:
        note(
            f"of the {copied[0].copies} copies of {copied[0].name} the first is computed for all inputs: what the "
            f"devices of the others hold does not count (layers with copies: {len(copied)})"
        )


def map_files(folder: str | Path) -> list[Path]:
    """The files (`SUFFIXES`) of a folder, one a die, in the order of their names. Raises CimcError as `read_dies`."""
    place = Path(folder)
    if not place.is_dir():
        raise CimcError(f"{folder} is no folder with a file a die; give a folder")
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise CimcError(f"folder {folder} holds no CSV, NPZ or NPY file; put one a die there")
    stems = [file.stem for file in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise CimcError(f"folder {folder} holds two files of die {twice}; leave one out")
    return files


def read_fault_map(path: str | Path, mapping: Mapping, *, chip: Chip, arrays: int | None = None) -> Floats:
    """What each stuck cell holds, uS, [arrays, array rows, array columns]; NaN of all others.

    Stuck low and high are what `[cell.faults]` says, else G_min and G_max. A cell that holds no weight may be listed,
    and so may arrays of the chips that the network does not use; not on a chip with several kinds of arrays in use,
    where their numbers do not tell their kind.

    Args:
        path: the file.
        mapping: of the network on the chip.
        chip: the chip.
        arrays: of a die, up to the last that is in use; None: those of the mapping.

    Raises:
        CimcError: as `read_cells`.
    """
    faults, cell = chip.cell.faults, chip.cell
    low = cell.conductance_min_uS if faults is None or faults.low_uS is None else faults.low_uS
    high = cell.conductance_max_uS if faults is None or faults.high_uS is None else faults.high_uS
    kinds = {"stuck-low": low, "stuck-high": high}
    form = _form("fault map", "stuck_uS", kinds, mapping, chip, arrays or mapping.arrays * mapping.physical_per_array)
    largest = cell.conductance_max_uS  # a stuck cell may be an open or a short one
    return read_cells(path, replace(form, expected_uS=(OPEN * largest, SHORT * largest)))


def read_measured(path: str | Path, mapping: Mapping, *, chip: Chip, arrays: int) -> Floats:
    """Conductances that were measured on a chip, uS [arrays, array rows, array columns]; NaN of cells left out.

    Args:
        path: the file.
        mapping: of the network on the chip.
        chip: the chip.
        arrays: that must be there.

    Raises:
        CimcError: as `read_cells`.
    """
    return read_cells(path, _form("measurement", "conductance_uS", {}, mapping, chip, arrays))


def _form(what: str, whole: str, kinds: Dictionary[str, float], mapping: Mapping, chip: Chip, least: int) -> CellFile:
    in_use, (rows, columns) = mapping.arrays * mapping.physical_per_array, largest_array(mapping, chip)
    return CellFile(
        what,
        whole,
        kinds,
        arrays=in_use if mapping.kinds else mapping.chips * mapping.arrays_per_chip * mapping.physical_per_array,
        rows=rows,
        columns=columns,
        sizes=tuple(size_of_array(mapping, chip, array) for array in range(in_use)) if mapping.kinds else (),
        least=least,
        # Reads of an idle cell fall below 0 by their noise and offset.
        lowest_uS=-chip.cell.conductance_max_uS if what == "measurement" else 0.0,
        expected_uS=(chip.cell.conductance_max_uS / NEAR, chip.cell.conductance_max_uS * NEAR),
    )
