"""The tables of a package: every target, block and level, exactly, with how to write it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cimc.chip import chip_text
from cimc.package import read_package, write_package
from cimc.program import Program
from tests.cimc.package.package_files import package_on, read_table


def assert_tables_are_exact(folder: Path) -> None:
    targets = np.load(folder / "program" / "targets.npy", allow_pickle=False)
    files = sorted((folder / "program").glob("array_*.csv"))
    assert len(files) == len(targets)
    assert targets.dtype == np.float32
    for path, array in zip(files, targets, strict=True):
        _, head, cells = read_table(path)
        assert head == ["row", *(f"bl{column}" for column in range(array.shape[1]))]
        np.testing.assert_array_equal(cells, array.astype(np.float64))
        assert np.isnan(cells).any(), "no array here is full"


def test_csv_files_hold_exactly_the_same_targets(folder):
    assert_tables_are_exact(folder)


@pytest.mark.parametrize("off_grid", [1.0, np.float32(np.pi)])
def test_csv_files_are_exact_for_targets_off_the_grid(package, tmp_path, off_grid):
    layers = {
        name: replace(layer, targets=(layer.targets * np.float32(off_grid)).astype(np.float32))
        for name, layer in package.program.layers.items()
    }
    write_package(tmp_path / "off", replace(package, program=Program(layers, package.program.digital)))
    assert_tables_are_exact(tmp_path / "off")
    rows = (tmp_path / "off" / "program" / "array_0000.csv").read_text(encoding="ascii").splitlines()
    places = len(rows[-64].split(",")[1].partition(".")[2])
    assert places == 7 if off_grid == 1.0 else places > 7, "the grid of brram-soc is 2^-7 uS"


def test_first_lines_of_an_array_say_how_to_write_it(folder, package):
    for index in range(package.mapping.arrays):
        lines, _, cells = read_table(folder / "program" / f"array_{index:04d}.csv")
        stated = dict(line.split(": ", 1) for line in lines if not line.startswith("holds"))
        chip, place = divmod(index, 4)
        assert stated[f"target conductances of array {index}"].startswith(f"chip {chip}, array {place} on that chip")
        assert stated["unit"] == "uS"
        assert stated["G_min"] == "8.2 uS; G_max: 32.9 uS"
        assert stated["tolerance"] == f"+-{package.chip.cell.programming.tolerance_uS:g} uS of the target"
        assert stated["most trials"] == f"{package.chip.cell.programming.trials}"
        assert stated["verify voltage"] == f"{package.chip.cell.read_voltage_V:g} V"
        assert "first RESET" in stated["writing order"]
        assert "bring it to G_min" in stated["unused"]
        assert "word line" in stated["order"]
        assert "G+ first, then G-" in stated["sign"]
        (held,) = [line for line in lines if line.startswith("holds")]
        (block,) = [b for layer in package.mapping.layers for b in layer.blocks if b.array == index]
        rows, columns = block.row_stop - block.row_start, 2 * (block.column_stop - block.column_start)
        assert f"weight rows {block.row_start} to {block.row_stop - 1}, " in held
        assert f"in wl 0 to {rows - 1}, bl 0 to {columns - 1}; G+ in bl 0, 2, " in held
        assert np.isfinite(cells[:rows, :columns]).all()


def test_chip_without_a_tolerance_says_so(package, tmp_path):
    write_package(tmp_path / "other", package_on(package, chip_text("brram-256x64")))
    lines, _, _ = read_table(tmp_path / "other" / "program" / "array_0000.csv")
    assert "tolerance: not stated" in lines
    assert "Tolerance: not stated." in (tmp_path / "other" / "README.md").read_text(encoding="utf-8")


def test_names_from_the_network_keep_their_line(package, tmp_path):
    evil = 'a|b\n"<b>' + "\u00b5"
    first = package.mapping.layers[0]
    mapping = package.mapping.model_copy(
        update={"layers": (first.model_copy(update={"name": evil}), *package.mapping.layers[1:])}
    )
    layers = {evil if name == first.name else name: layer for name, layer in package.program.layers.items()}
    write_package(
        tmp_path / "evil", replace(package, mapping=mapping, program=Program(layers, package.program.digital))
    )
    lines, _, _ = read_table(tmp_path / "evil" / "program" / "array_0000.csv")
    (held,) = [line for line in lines if line.startswith("holds")]
    name = held.removeprefix("holds: layer ").partition(", copy")[0]
    assert json.loads(name) == evil
    readme = (tmp_path / "evil" / "README.md").read_text(encoding="utf-8")
    assert "a&#124;b" in readme
    assert "<b>" not in readme
    assert evil in read_package(tmp_path / "evil").program.layers


def test_block_table_lists_every_block_with_its_place(folder, package):
    with (folder / "program" / "blocks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(layer.blocks) for layer in package.mapping.layers)
    for row in rows:
        layer, start = row["layer"], (int(row["row_start"]), int(row["column_start"]))
        address = package.mapping.address(layer, *start)
        place = [int(row[key]) for key in ("chip", "array_on_chip", "array_row", "array_column")]
        assert place == [address.chip, address.array, address.row, address.column_plus]
        last = package.mapping.address(layer, int(row["row_stop"]) - 1, int(row["column_stop"]) - 1)
        assert (last.chip, last.array) == (address.chip, address.array)


@pytest.mark.parametrize(
    ("key", "count", "spread", "listed"),
    [
        ("levels = 4", 4, "evenly from G_min to G_max", [10, 30, 50, 70]),
        ("level_uS = [10.0, 17.5, 64.25]", 3, "as chip.toml lists them", [10, 17.5, 64.25]),
        ("levels = 64", 64, "evenly from G_min to G_max", np.linspace(10, 70, 64)),
        ("levels = 65", 65, "evenly from G_min to G_max", []),
        ("granularity_uS = 4.0", 0, "", []),
    ],
)
def test_tables_and_readme_list_the_levels_of_which_every_target_is_one(package, tmp_path, key, count, spread, listed):
    other = package_on(package, chip_text("brram-256x64").replace("granularity_uS = 4.0", key))
    write_package(tmp_path / "package", other)
    lines, _, cells = read_table(tmp_path / "package" / "program" / "array_0000.csv")
    readme = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    found = [line.removeprefix("levels: ") for line in lines if line.startswith("levels: ")]
    if not count:
        assert found == []
        assert " levels, " not in readme
        return
    (said,) = found
    head, _, numbers = said.removesuffix(" uS").partition(": ")
    assert head == f"every target is one of {count} levels, {spread}"
    assert f"Of these, {said}." in readme
    values = [float(number) for number in numbers.split(", ") if number]
    assert values == pytest.approx(listed, abs=other.chip.target_step_uS)
    used = set(cells[np.isfinite(cells)].tolist())
    assert 3 <= len(used) <= count
    assert not values or used <= set(values), "the same numbers to the last decimal"
