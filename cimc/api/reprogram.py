"""Which devices of programmed chips are written again: those whose errors cost the outputs of their layers most."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.addresses import cell_addresses, reference_addresses, reference_of_columns
from cimc.chip import Chip
from cimc.dataset import Dataset
from cimc.files import replacing
from cimc.mapping import MappedLayer
from cimc.package import Package
from cimc.program import Floats
from cimc.program_files import array_targets, decimals_for
from cimc.reprogram import Amount
from passes.dies.place import importance_of
from passes.dies.reach import coefficients
from runtime.deployment.reprogram import Reprogram, gains
from runtime.system.calibration import calibration_index
from runtime.system.carry import Carry
from runtime.system.input_power import input_powers
from runtime.system.program import programmed_state
from runtime.system.state import System

HEAD = ("array", "row", "column", "pulse", "measured_uS", "target_uS")


@dataclass(frozen=True, eq=False)
class ToReprogram:
    """The devices of a chip that are to be written again.

    cells: array, row and column of each [devices, 3], in that order; in a row those to RESET first. measured, targets:
    what each holds and should, uS. devices: in use. expected_error: of the layers' outputs, of their power, summed over
    the layers as of `export --die`: `before`, and `after`, where all cells are written without error.
    """

    cells: NDArray[np.int64]
    measured: Floats
    targets: Floats
    devices: int
    expected_error: dict[str, float]

    @property
    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        return {"devices": len(self.cells), "of": self.devices, "expected_error": self.expected_error}


def reprogram_of(
    system: System, package: Package, data: Dataset, seed: int, shares: Sequence[float] = (), *, carry: Carry
) -> Reprogram:
    """What an error of each weight costs, by its inputs on some training samples (where there are none, test samples).

    Args:
        system: of the package.
        package: the package.
        data: as of `runtime.system.inputs.match_data`.
        seed: draws the samples.
        shares: of the devices, round after round.
        carry: as of `deploy`.
    """
    samples = data.train if len(data.train) else data.test
    some = samples.take(calibration_index(seed, len(samples), stream=bool(carry)))
    state = programmed_state(system, package.program)
    powers = input_powers(system, state, some, data.preprocess, carry=carry)
    layers = package.program.layers.items()
    importance = {name: importance_of(layer, package.chip, powers.get(name)) for name, layer in layers}
    return Reprogram(shares, importance, coefficients(package.chip))


def choose_cells(package: Package, values: Floats, costs: Reprogram, amount: Amount) -> ToReprogram:
    """The devices to write again of a chip: a share, of those with most to gain, or all beyond a tolerance.

    Stuck cells of the package's die are left out, and so are devices without whose error that of their weight would be
    larger; with a tolerance too. Cells of reference columns are chosen by a tolerance alone.

    Args:
        package: what the chip was programmed with.
        values: measured, of all cells in use [arrays, rows, columns], uS.
        costs: of the package.
        amount: how many.
    """
    mapping, wiring = package.mapping, package.wiring
    targets = array_targets(mapping, package.chip, package.program, wiring)
    arrays, wanted = (part if wiring is None else wiring.from_die(part) for part in (values, targets))
    gained = np.zeros(arrays.shape)
    of_copies = [(layer, copy) for layer in mapping.layers for copy in range(layer.copies)]
    layers = [
        (costs.importance[layer.name] / layer.copies, tuple(cell_addresses(mapping, layer.name, copy=copy)))
        for layer, copy in of_copies  # each copy makes its part of the outputs
    ]
    for importance, cells in layers:
        gained[cells] = gains(arrays[cells], wanted[cells], importance, costs.counts)
    references = [_references(package, layer, copy) for layer, copy in of_copies]
    if amount.unit == "uS" and package.chip.scheme.reference is not None:
        for of_layer in references:
            gained[of_layer] = np.inf
    for name in package.programmed:  # their targets are what devices were read to hold
        gained[tuple(cell_addresses(mapping, name))] = 0
    gained = gained if wiring is None else wiring.to_die(gained, fill=0)
    if package.die is not None:
        gained[~np.isnan(package.die.stuck[: len(gained)])] = 0
    used = int(np.count_nonzero(np.isfinite(targets)))
    chosen = gained > 0
    if amount.unit == "uS":
        chosen &= np.abs(values - np.nan_to_num(targets)) > amount.amount
    else:
        count = int(np.ceil(amount.amount / 100 * used))
        chosen &= gained >= np.partition(gained.reshape(-1), -count)[-count]
    errors = []
    for held in (values, np.where(chosen, targets, values)):
        held = held if wiring is None else wiring.from_die(held)
        off = held - wanted
        errors.append(
            sum(
                _error(off[cells], off[columns], weights, costs.counts, package.chip)
                for (weights, cells), columns in zip(layers, references, strict=True)
            )
        )
    listed = np.argwhere(chosen)
    reset = (values > targets)[chosen]
    listed = listed[np.lexsort((listed[:, 2], ~reset, listed[:, 1], listed[:, 0]))]
    place = tuple(listed.T)
    return ToReprogram(listed, values[place], targets[place], used, dict(zip(("before", "after"), errors, strict=True)))


def _references(package: Package, layer: MappedLayer, copy: int) -> tuple[NDArray[np.int32], ...]:
    """Of each weight of a copy the cell of the reference column that counts in it, each [rows, columns]; () without."""
    if package.chip.scheme.reference is None:
        return ()
    found = reference_addresses(package.mapping, layer.name, chip=package.chip, copy=copy)
    return tuple(part[:, reference_of_columns(layer)] for part in found)


def _error(
    off: Floats, references: Floats, importance: NDArray[np.float64], counts: NDArray[np.float64], chip: Chip
) -> float:
    """The expected error of a layer's output, of its power.

    off: how far devices are off their targets [devices, rows, columns], uS. references: likewise of the cells of
    reference columns, by weight [rows, columns].
    """
    error = np.tensordot(counts, off.astype(np.float64), axes=1)
    if chip.scheme.reference is not None:
        error -= chip.scheme.reference.times / chip.scheme.full_uS * references.astype(np.float64)
    return float(np.sum(importance * np.square(error)))


def write_cells(path: Path, reprogram: ToReprogram, package: Package) -> None:
    """The CSV for a tester: a line a device, in the order of writing. Raises CimcError where it cannot be written."""
    targets = array_targets(package.mapping, package.chip, package.program, package.wiring)
    decimals = decimals_for(targets, package.chip)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(HEAD)
        for cell, held, target in zip(reprogram.cells.tolist(), reprogram.measured, reprogram.targets, strict=True):
            pulse = "RESET" if held > target else "SET"
            table.writerow([*cell, pulse, f"{held:.6g}", f"{target:.{decimals}f}"])
