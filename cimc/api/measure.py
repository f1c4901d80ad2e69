"""Chips that were programmed with a package and read back: the accuracy of each."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cimc.api.progress import Note, Progress, silent, unsaid
from cimc.api.reprogram import ToReprogram, choose_cells, reprogram_of, write_cells
from cimc.api.sources import require_data
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.fault_map import map_files, note_copies, read_measured
from cimc.files import make_folder, require_outputs
from cimc.options import check_seed, check_whole
from cimc.package import Package, read_package
from cimc.program import Floats
from cimc.program_files import array_targets
from cimc.reprogram import parse_amount
from cimc.wiring import layers_on_die, references_on_die
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.measured import MeasuredChip, evaluate_measured
from runtime.network.load import load_network
from runtime.system.carry import Carry, check_carry
from runtime.system.inputs import check_range, match_data
from runtime.system.state import build_system

LEAST_CORRELATION = 0.5  # of what was measured with the targets; below it a file is that of another package, or no chip


@dataclass(frozen=True)
class Measured:
    """What was measured of a chip.

    name: of its file. chip: its accuracy, agreement and layers. deviation_uS: mean, sd and largest of what its devices
    are off their targets. beyond_tolerance: share of them that are off by more than the chip's tolerance; None: it
    states none. reprogram: the devices that are to be written again, where that was asked for.
    """

    name: str
    chip: MeasuredChip
    deviation_uS: dict[str, float]
    beyond_tolerance: float | None
    reprogram: ToReprogram | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.name,
            self.chip.measure: self.chip.value,
            "baseline": self.chip.baseline,
            "normalized": self.chip.normalized,
            "deviation_uS": self.deviation_uS,
            "beyond_tolerance": self.beyond_tolerance,
            "agreement": self.chip.agreement,
            "layers": {error.name: error.figures for error in self.chip.layers},
            **({} if self.reprogram is None else {"reprogram": self.reprogram.figures}),
        }


def measure(
    package: str | Path | Package,
    measured: str | Path,
    *,
    data: Dataset,
    metric: str | None = None,
    memory: int | None = None,
    carry: Carry = MappingProxyType({}),
    reprogram: str | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
    note: Note = unsaid,
) -> list[Measured]:
    """The accuracy of chips that were really programmed, from the conductances read back from them.

    Args:
        package: what they were programmed with: a folder, or its contents.
        measured: a file of conductances (`cimc.fault_map.read_measured`), or a folder with a file a chip.
        data: the test set is used.
        metric, memory, carry: as of `deploy`.
        reprogram: choose the devices of each chip that are to be written again: a share of them such as `"5%"`, those
            whose errors cost the layers' outputs most, or all that are off by more than so much, such as `"2uS"`.
        output: folder for their lists, a CSV a chip by its name; None: nothing is written.
        seed: of the noise of reads.
        progress: called with the samples done, of how many.
        note: called with a line for what the user should know of the data or of a chip.

    Raises:
        CimcError: the package, the data or a file do not fit, a cell in use was not measured, or a list cannot be
            written or would take the place of a measurement.
    """
    require_data(data)
    seed = check_seed(seed)
    amount = None if reprogram is None else parse_amount(reprogram)
    if output is not None and amount is None:
        raise CimcError("-o is for the lists of devices to write again; say how many with --reprogram, such as 5%")
    memory = None if memory is None else check_whole("memory", memory, 1)
    use_compilation_cache()
    contents = package if isinstance(package, Package) else read_package(package)
    files = map_files(measured) if Path(measured).is_dir() else [Path(measured)]
    mapping, targets = (
        contents.mapping,
        array_targets(contents.mapping, contents.chip, contents.program, contents.wiring),
    )
    for file in files:  # a fault of the last is told before the first is evaluated
        read_chip(file, contents, targets, unsaid)
    lists = [] if output is None else _places_of_lists(files, Path(output))
    note_copies(mapping, note)
    system = build_system(load_network(contents.network), mapping, contents.chip)
    check_carry(system.network, carry)
    data = match_data(system.network, data, free_batch=False, carried=carry.values())
    check_range(data, system.network, mapping.input_range, note)
    costs = None if amount is None else reprogram_of(system, contents, data, seed, carry=carry)
    found, samples = [], len(data.test)
    for number, file in enumerate(files):
        values = read_chip(file, contents, targets, note)
        before = number * samples
        chip = evaluate_measured(
            system,
            contents.program,
            layers_on_die(mapping, contents.wiring, values),
            data,
            references=references_on_die(mapping, contents.wiring, values, chip=contents.chip),
            seed=seed,
            metric=metric,
            memory=memory,
            carry=carry,
            input_range=mapping.input_range,
            progress=lambda done, before=before: progress(before + done, len(files) * samples),  # type: ignore[misc]
        )
        listed = None if costs is None or amount is None else choose_cells(contents, values, costs, amount)
        if lists and listed is not None:
            write_cells(lists[number], listed, contents)
        found.append(Measured(file.stem, chip, *_deviation(contents, values, targets), listed))
    return found


def _places_of_lists(files: list[Path], folder: Path) -> list[Path]:
    """The file of each chip's list, in the folder, which is made. Raises CimcError where one cannot be written."""
    beside = next((file for file in files if file.resolve().parent == folder.resolve()), None)
    if beside is not None:
        raise CimcError(
            f"cannot write {folder}: {beside.name} lies there, and the lists would be read as chips; choose another "
            "folder"
        )
    places = [make_folder(folder) / f"{file.stem}.csv" for file in files]
    require_outputs(files, places)
    return places


def read_chip(file: Path, package: Package, targets: Floats, note: Note, *, whole: bool = True) -> Floats:
    """The conductances of all cells of a chip [arrays, rows, columns], uS; NaN of those that were not measured.

    Args:
        file: as of `read_measured`.
        package: what the chip was programmed with; targets: its `array_targets`.
        note: called with a line where what was measured does not follow them.
        whole: whether all cells in use must be there.

    Raises:
        CimcError: as `read_measured`, or a cell in use was not measured.
    """
    values = read_measured(file, package.mapping, chip=package.chip, arrays=len(targets))[: len(targets)]
    used = np.isfinite(targets)
    missing = np.argwhere(used & ~np.isfinite(values))
    if whole and len(missing):
        array, row, column = missing[0].tolist()
        raise CimcError(
            f"measurement {file}: {len(missing)} of the {np.count_nonzero(used)} cells in use were not measured, the "
            f"first at array {array}, row {row}, column {column}; measure all that program/targets.npy has"
        )
    used &= np.isfinite(values)
    alike = np.corrcoef(values[used], targets[used])[0, 1] if used.any() and np.ptp(values[used]) else 0.0
    if alike < LEAST_CORRELATION:
        note(
            f"{file}: what was measured does not follow the package's targets (correlation {alike:.2f}): is it of "
            "another package or die, or are arrays, rows or columns in another order?"
        )
    return values


def _deviation(package: Package, values: Floats, targets: Floats) -> tuple[dict[str, float], float | None]:
    """What the devices of a chip are off their targets, and the share of those beyond the tolerance."""
    used, tolerance = np.isfinite(targets), package.chip.cell.programming.tolerance_uS
    off = values[used].astype(np.float64) - targets[used]
    figures = {"mean": float(off.mean()), "sd": float(off.std()), "largest": float(np.abs(off).max())}
    return figures, None if tolerance is None else float(np.mean(np.abs(off) > tolerance))
