"""Reprogramming: the devices that are written again are those whose errors cost most."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cimc
from cimc.addresses import cell_addresses
from cimc.api.reprogram import choose_cells, reprogram_of
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.package import Package
from cimc.program_files import array_targets
from cimc.reprogram import parse_amount, parse_shares
from cimc.wiring import Wiring
from runtime.deployment.population import Request, population_of
from runtime.deployment.reprogram import Reprogram, choose_devices, gains
from runtime.system.inputs import match_data
from tests.cimc.in_the_loop.two_layers import (
    measurement,
    system_of,
)


def test_a_gain_is_what_the_output_error_falls_by() -> None:
    """Device by device: the error of a layer with it off its target, less that with it on its target."""
    random = np.random.default_rng(0)
    held, targets = random.random((2, 2, 3, 4))
    importance, counts = random.random((3, 4)), np.array([1.0, -1.0]) / 60

    def error(conductance: np.ndarray) -> float:
        weight = np.tensordot(counts, conductance - targets.astype(np.float32), axes=1)
        return float(np.sum(importance * np.square(weight)))

    held, targets = held.astype(np.float32), targets.astype(np.float32)
    found = gains(held, targets, importance, counts)
    for device in np.ndindex(*held.shape):
        written = held.astype(np.float64)
        written[device] = targets[device]
        assert found[device] == pytest.approx(error(held.astype(np.float64)) - error(written), abs=1e-12)


def test_a_share_is_of_all_layers_together() -> None:
    gained = {"a": np.array([[[3.0, -1.0, 0.5, 0.4]]]), "b": np.array([[[2.0, 1.0, 0.0, -2.0]]])}
    chosen = choose_devices(gained, 0.25)
    assert {name: of_layer.sum() for name, of_layer in chosen.items()} == {"a": 1, "b": 1}
    every = choose_devices(gained, 1.0)
    assert {name: of_layer.sum() for name, of_layer in every.items()} == {"a": 3, "b": 2}, "none without a gain"


@pytest.fixture(scope="module")
def costs(plain: Package, data: Dataset) -> Reprogram:
    system = system_of(plain)
    return reprogram_of(system, plain, match_data(system.network, data), 0, carry={})


@pytest.mark.parametrize("moved", [False, True])
def test_the_list_has_what_costs_most_in_the_order_of_rows(plain: Package, costs: Reprogram, moved: bool) -> None:
    """On a die whose lines were moved, too: with the places that the die has."""
    arrays, random = plain.mapping.arrays, np.random.default_rng(1)
    rows, columns = (np.stack([random.permutation(32) for _ in range(arrays)]) for _ in range(2))
    package = replace(plain, wiring=Wiring(np.arange(arrays)[::-1], rows, columns, arrays)) if moved else plain
    targets = array_targets(package.mapping, package.chip, package.program, package.wiring)
    used = np.argwhere(np.isfinite(targets))
    off = [tuple(used[n]) for n in random.permutation(len(used))[:6]]
    values = targets.copy()
    for number, cell in enumerate(off):
        values[cell] += 5 if number % 2 else -5
    values[tuple(used[0])] += 0.01
    found = choose_cells(package, values, costs, parse_amount("1uS"))
    assert {tuple(cell) for cell in found.cells} == set(off)
    order = [
        (array, row, held < target, column)
        for (array, row, column), held, target in zip(
            found.cells.tolist(), found.measured.tolist(), found.targets.tolist(), strict=True
        )
    ]
    assert order == sorted(order), "row by row, RESET before SET"
    np.testing.assert_array_equal(found.targets, targets[tuple(found.cells.T)])
    assert found.expected_error["after"] < 1e-4 * found.expected_error["before"]
    most = choose_cells(package, values, costs, parse_amount("0.1%"))
    assert len(most.cells) == 1
    assert tuple(most.cells[0]) in off


def test_a_tolerance_leaves_out_cells_not_in_use_and_pairs_that_are_off_together(
    plain: Package, costs: Reprogram
) -> None:
    """Of these each device would make its weight worse, written alone."""
    targets = array_targets(plain.mapping, plain.chip, plain.program)
    values = np.nan_to_num(targets, nan=70.0)
    pair = tuple(part[:, 0, 0] for part in cell_addresses(plain.mapping, "first"))
    values[pair] += 4
    alone = tuple(part[0, 1, 1] for part in cell_addresses(plain.mapping, "first"))
    values[alone] += 4
    found = choose_cells(plain, values, costs, parse_amount("1uS"))
    assert [tuple(cell) for cell in found.cells] == [alone]


def test_measure_lists_the_devices_of_each_chip(plain: Package, data: Dataset, tmp_path: Path) -> None:
    measurement(plain, ["first", "last"], tmp_path / "die7.npz")
    (found,) = cimc.measure(plain, tmp_path / "die7.npz", data=data, reprogram="5%", output=tmp_path / "again")
    assert found.reprogram is not None
    lines = (tmp_path / "again" / "die7.csv").read_text().splitlines()
    assert lines[0] == "array,row,column,pulse,measured_uS,target_uS"
    assert len(lines) - 1 == len(found.reprogram.cells) == np.ceil(0.05 * found.reprogram.devices)
    errors = found.figures["reprogram"]["expected_error"]
    assert errors["after"] < 0.8 * errors["before"]


@pytest.mark.parametrize(
    ("measured", "output", "message"),
    [
        ("chips", "chips", r"chips: die7\.npz lies there, and the lists would be read as chips"),
        ("chips/die7.npz", "chips", r"chips: die7\.npz lies there, and the lists would be read as chips"),
        ("chips/die7.npz", "chips/die7.npz", "File exists"),
        ("chips", "file", "file: File exists"),
    ],
)
def test_lists_of_devices_leave_measurements_alone(
    plain: Package, data: Dataset, tmp_path: Path, measured: str, output: str, message: str
) -> None:
    (tmp_path / "chips").mkdir()
    measurement(plain, ["first", "last"], tmp_path / "chips" / "die7.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(CimcError, match=message):
        cimc.measure(plain, tmp_path / measured, data=data, reprogram="5%", output=tmp_path / output)
    with pytest.raises(CimcError, match="seed is"):
        cimc.measure(plain, tmp_path / measured, data=data, seed=2**80)


def test_a_wrong_package_leaves_no_folder_for_lists(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CimcError, match="no package"):
        cimc.measure(tmp_path / "no package", tmp_path, data=data, reprogram="5%", output=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_rounds_write_the_worst_again_and_leave_the_others(plain: Package, data: Dataset, costs: Reprogram) -> None:
    system = system_of(plain)
    matched = match_data(system.network, data)

    def chips(*shares: float) -> dict[str, np.ndarray]:
        request = Request(2, 0, reprogram=replace(costs, shares=shares))
        made = population_of(system, plain.program, matched, request).make(np.arange(2))[None]
        return {name: np.asarray(array) for name, array in made.own["conductance"].items()}

    def error(held: dict[str, np.ndarray], chip: int) -> float:
        return sum(
            float(
                np.sum(
                    costs.importance[name]
                    * np.square(np.tensordot(costs.counts, held[name][chip].astype(np.float64) - layer.targets, axes=1))
                )
            )
            for name, layer in plain.program.layers.items()
        )

    rounds = [chips(), chips(0.05), chips(0.05, 0.05)]
    for chip in range(2):
        errors = [error(held, chip) for held in rounds]
        assert errors[2] < errors[1] < 0.9 * errors[0]
        changed = sum(np.count_nonzero(rounds[1][name][chip] != rounds[0][name][chip]) for name in rounds[0])
        assert changed == np.ceil(0.05 * sum(array[chip].size for array in rounds[0].values()))
    deployed = cimc.deploy(plain, data, chips=2, reprogram="5%,5%")
    assert [share for share, _ in deployed.reprogrammed] == [0.05, 0.05]
    before = cimc.deploy(plain, data, chips=2).accuracies
    np.testing.assert_array_equal(deployed.reprogrammed[0][1], before)
    assert deployed.accuracies.mean() > before.mean()


@pytest.mark.parametrize("text", ["5", "0%", "101%", "-2uS", "2nS", "some"])
def test_a_wrong_amount_is_told(text: str) -> None:
    with pytest.raises(CimcError, match=r"--reprogram is .*; give a share of the devices \(5%\), or how far"):
        parse_amount(text)


def test_rounds_of_virtual_chips_take_shares() -> None:
    assert parse_shares("5%, 2.5%") == parse_shares([0.05, 0.025]) == (0.05, 0.025)
    with pytest.raises(CimcError, match="of virtual chips give a share"):
        parse_shares("2uS")
