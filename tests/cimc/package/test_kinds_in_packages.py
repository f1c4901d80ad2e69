"""Arrays of several kinds in packages: reference columns, fault maps, dies, the README."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cimc.addresses import reference_addresses
from cimc.chip import load_chip
from cimc.errors import CimcError
from cimc.fault_map import Die, read_fault_map
from cimc.options import DiePlacement
from cimc.package_readme import package_readme
from cimc.program_files import array_targets
from cimc.report.floor_plan import floor_plan
from cimc.units import reference_target
from passes.dies.place import place_on_die
from tests.cimc.kinds import CHIP, LAYERS, SMALL, mapped, program_of


def test_the_reference_column_is_the_last_of_each_array() -> None:
    base = {"weights": {"scheme": "offset", "offset_columns": 1}, "array": {"rows": 64, "columns": 64}}
    chip = load_chip("brram-256x64", settings={**base, "kinds": {"small": SMALL}})
    mapping = mapped(chip, {"fc1": {"array": "small"}, "conv1": {"array": "first"}})
    assert set(mapping.kind_of_arrays) == {"", "small"}
    targets = array_targets(mapping, chip, program_of(mapping, chip))
    for array, kind in enumerate(mapping.kind_of_arrays):
        used = np.isfinite(targets[array])
        last = chip.sizes[kind].columns - 1
        np.testing.assert_array_equal(used[:, last], used[:, :last].any(axis=1))
        assert not used[:, last + 1 :].any()
    for layer in mapping.layers:
        cells = reference_addresses(mapping, layer.name, chip=chip)
        assert (cells.column == chip.sizes[layer.kind].columns - 1).all()
        np.testing.assert_array_equal(targets[tuple(cells)], np.float32(reference_target(chip)))


def test_a_fault_map_names_cells_of_each_array_within_its_own_size(tmp_path: Path) -> None:
    mapping = mapped()
    small, large = mapping.kind_of_arrays.index("small"), mapping.kind_of_arrays.index("")
    file = tmp_path / "die.csv"

    def read(line: str) -> Any:
        file.write_text(f"array,row,column,kind\n{line},stuck-low\n")
        return read_fault_map(file, mapping, chip=CHIP)

    assert np.argwhere(np.isfinite(read(f"{large},63,63"))).tolist() == [[large, 63, 63]]
    assert np.argwhere(np.isfinite(read(f"{small},19,11"))).tolist() == [[small, 19, 11]]
    with pytest.raises(CimcError, match=f"there is no row 20 in array {small}; it is from 0 to 19"):
        read(f"{small},20,0")
    with pytest.raises(CimcError, match=f"there is no column 12 in array {small}; it is from 0 to 11"):
        read(f"{small},0,12")
    with pytest.raises(CimcError, match=f"there is no array {mapping.arrays}; it is from 0 to"):
        read(f"{mapping.arrays},0,0")
    whole = np.full((mapping.arrays, 64, 64), np.nan, np.float32)
    whole[small, 5, 5] = 10
    np.save(tmp_path / "die.npy", whole)
    assert np.isfinite(read_fault_map(tmp_path / "die.npy", mapping, chip=CHIP)).sum() == 1
    whole[small, 5, 12] = 10
    np.save(tmp_path / "die.npy", whole)
    with pytest.raises(CimcError, match=f"array {small} has 20 rows and 12 columns, and row 5, column 12 is 10"):
        read_fault_map(tmp_path / "die.npy", mapping, chip=CHIP)


def test_a_network_placed_on_a_die_stays_within_arrays_of_each_size() -> None:
    mapping = mapped()
    program = program_of(mapping, CHIP)
    targets = array_targets(mapping, CHIP, program)
    stuck = np.full(targets.shape, np.nan, np.float32)
    random = np.random.default_rng(0)
    for array, kind in enumerate(mapping.kind_of_arrays):
        size = CHIP.sizes[kind]
        faulty = random.random((size.rows, size.columns)) < 0.05
        held = random.choice([10, 70], np.count_nonzero(faulty))
        stuck[array, : size.rows, : size.columns][faulty] = held
    placed = place_on_die(program, mapping, CHIP, Die("one", stuck), placement=DiePlacement.full, powers={})
    assert placed.wiring is not None
    errors = placed.figures["expected_error"]
    assert errors["bound"] <= errors["full"] < errors["pairs"] < errors["none"]
    on_die = array_targets(mapping, CHIP, placed.program, placed.wiring)
    for array, kind in enumerate(mapping.kind_of_arrays):
        size = CHIP.sizes[kind]
        assert mapping.kind_of_arrays[placed.wiring.array[array]] == kind
        assert np.isnan(on_die[array, size.rows :]).all()
        assert np.isnan(on_die[array, :, size.columns :]).all()
        faulty = np.isfinite(stuck[array]) & np.isfinite(on_die[array])
        np.testing.assert_array_equal(on_die[array][faulty], stuck[array][faulty])


def test_the_readme_and_the_floor_plan_have_each_size() -> None:
    mapping = mapped()
    text = package_readme("m", chip=CHIP, mapping=mapping, program=program_of(mapping, CHIP), notes={}, digests={})
    small = mapping.kind_of_arrays.count("small")
    assert f"{small} of kind small, 20 word lines x 12 bit lines, which are arrays 16 to 23 of a chip" in text
    cells = small * 240 + mapping.kind_of_arrays.count("") * 4096
    assert f"of {cells:,} cells are used" in text
    rows = floor_plan(mapping, CHIP).rows
    assert {row[2] for row in rows} == set(LAYERS)
