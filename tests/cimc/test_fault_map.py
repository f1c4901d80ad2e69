"""Fault maps: the stuck devices of a die reach the weights that lie on them, and wrong files get one line."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.addresses import cell_addresses, take_from_arrays
from cimc.artifact import read_artifact
from cimc.chip import load_chip
from cimc.data.load import load
from cimc.device_time import Faults
from cimc.errors import CimcError
from cimc.fault_map import note_copies, read_fault_map
from tests.networks import network_proto, weights


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((64, 300), np.float32)
    w = weights(300, 3)
    y = np.argmax(x @ w, axis=1).astype(np.int32)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    onnx.save(network_proto(nodes, {"x": ["N", 300]}, {"y": ["N", 3]}, {"w": w}), "small.onnx")
    cimc.compile("small.onnx", "brram-256x64", output="small.cim", verify=False)
    return tmp_path


def write_map(*lines: str, head: str = "array,row,column,kind") -> str:
    Path("map.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return "map.csv"


def test_stuck_devices_of_a_map_are_those_of_the_weights_on_them(place: Path) -> None:
    stored = read_artifact("small.cim")
    cells = cell_addresses(stored.mapping, "fc")
    # G+ of weight (280, 1), on the second array, and G- of weight (3, 2).
    picked = [(0, 280, 1), (1, 3, 2)]
    places = [tuple(int(part[at]) for part in cells) for at in picked]
    assert places[0][0] != places[1][0]
    listed = [f"{','.join(map(str, cell))},{value}" for cell, value in zip(places, ("1.5", "99"), strict=True)]
    stuck = read_fault_map(write_map(*listed, head="array,row,column,conductance_uS"), stored.mapping, chip=stored.chip)
    of_layer = take_from_arrays(stored.mapping, "fc", stuck)
    assert [float(of_layer[at]) for at in picked] == [1.5, 99.0]
    assert np.sum(~np.isnan(of_layer)) == 2


def test_chips_with_many_stuck_devices_lose_accuracy_and_all_alike(place: Path) -> None:
    data = load("data.npz")
    cimc.export("small.cim", output="package", data=data)
    good = cimc.deploy("package", data, chips=2)
    lines = [f"0,{row},{column},stuck-high" for row in range(0, 256, 2) for column in (0, 3)]
    bad = cimc.deploy("package", data, chips=2, faults=write_map(*lines))
    assert np.max(bad.accuracies) < np.min(good.accuracies) - 0.2
    again = cimc.deploy("package", data, chips=2, faults=write_map())
    np.testing.assert_array_equal(again.accuracies, good.accuracies, err_msg="an empty map changes nothing")


def test_kinds_stand_for_the_states_of_the_chip(place: Path) -> None:
    stored, chip = read_artifact("small.cim"), load_chip("brram-256x64")
    stuck = read_fault_map(write_map("0,0,0,stuck-low", "1,5,7,stuck-high"), stored.mapping, chip=chip)
    assert stuck[0, 0, 0] == chip.cell.conductance_min_uS
    assert stuck[1, 5, 7] == chip.cell.conductance_max_uS


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0,0,0,stuck"], "line 2: kind is 'stuck'; give stuck-low or stuck-high"),
        (["0,0,0,stuck-low", "0,0,0,stuck-high"], "line 3: array 0, row 0, column 0 comes twice"),
        (["2048,0,0,stuck-low"], "line 2: there is no array 2048; it is from 0 to 2047"),
        (["0,256,0,stuck-low"], "line 2: there is no row 256; it is from 0 to 255"),
        (["0,-1,0,stuck-low"], "line 2: row is '-1'; give a whole number from 0 to 255"),
        (["0," + "9" * 5000 + ",0,stuck-low"], "line 2: row is '9+"),
        (["0,0," + "9" * 200_000 + ",stuck-low"], "map.csv is no CSV file: field larger than field limit"),
        (["0,0,stuck-low"], "line 2: 3 fields in place of 4"),
    ],
)
def test_a_wrong_line_is_named(place: Path, lines: list[str], message: str) -> None:
    stored = read_artifact("small.cim")
    with pytest.raises(CimcError, match=message):
        read_fault_map(write_map(*lines), stored.mapping, chip=stored.chip)


def test_the_arrays_of_a_die_are_those_that_its_map_tells_of(place: Path) -> None:
    """At least those in use, and spare ones up to the last that is listed."""
    stored = read_artifact("small.cim")
    assert len(read_fault_map(write_map(), stored.mapping, chip=stored.chip)) == 2
    stuck = read_fault_map(write_map("5,0,1,stuck-low"), stored.mapping, chip=stored.chip)
    assert len(stuck) == 6
    assert np.argwhere(~np.isnan(stuck)).tolist() == [[5, 0, 1]]


def test_archives_hold_the_same_as_tables(place: Path) -> None:
    stored = read_artifact("small.cim")
    table = write_map("0,3,4,stuck-high", "1,5,7,stuck-low")
    of_table = read_fault_map(table, stored.mapping, chip=stored.chip)
    places: dict[str, Any] = {"array": [0, 1], "row": [3, 5], "column": [4, 7]}
    np.savez("kinds.npz", **places, kind=["stuck-high", "stuck-low"])
    np.savez("values.npz", **places, conductance_uS=[70.0, 10.0])
    np.savez("whole.npz", stuck_uS=of_table)
    for name in ("kinds.npz", "values.npz", "whole.npz"):
        np.testing.assert_array_equal(read_fault_map(name, stored.mapping, chip=stored.chip), of_table)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"stuck_uS": np.zeros((2, 64, 256))}, "is 2 x 64 x 256; the package has arrays of 256 x 64.*another package"),
        ({"stuck_uS": np.full((1, 256, 64), np.nan)}, "is 1 x 256 x 64; the package .* 2 in use"),
        ({"stuck_uS": np.full((2, 256, 64), -1.0)}, "array 0, row 0, column 0 is -1; give uS, a number from 0"),
        ({"stuck_uS": np.full((2, 256, 64), np.inf)}, "array 0, row 0, column 0 is inf; give uS, a number from 0"),
        ({"stuck_uS": np.full((2, 256, 64), "x")}, "stuck_uS holds <U1; give numbers in uS"),
        ({"stuck_uS": np.full((2, 256, 64), 7e-5)}, "reach 7e-05 uS.* look like another unit; give uS"),
        ({"stuck_uS": np.full((2, 256, 64), 7e4)}, "reach 7e[+]04 uS.* look like another unit; give uS"),
        (
            {"array": [0, 0], "row": [1, 1], "column": [2, 2], "kind": ["stuck-low"] * 2},
            "entry 1: array 0.*comes twice",
        ),
        ({"array": [0.5], "row": [1], "column": [2], "kind": ["stuck-low"]}, "entry 0: array is '0.5'; give a whole"),
        ({"array": [0, 1], "row": [1], "column": [2], "kind": ["stuck-low"]}, "must be lists of one length"),
        ({"array": [0], "row": [1], "column": [2]}, "holds array, column, row; give stuck_uS .* or array, row, column"),
        ({"stuck_uS": np.array([{}], dtype=object)}, "is no NPZ file of arrays; save it with numpy.savez"),
    ],
)
def test_a_wrong_archive_is_told_in_one_line(place: Path, arrays: dict[str, Any], message: str) -> None:
    stored = read_artifact("small.cim")
    np.savez("map.npz", **arrays)
    with pytest.raises(CimcError, match=message):
        read_fault_map("map.npz", stored.mapping, chip=stored.chip)


def test_what_is_no_archive_is_told(place: Path) -> None:
    stored = read_artifact("small.cim")
    Path("text.npz").write_text("array,row,column,kind\n")
    np.save("single.npy", np.zeros(3))  # all cells of a die, as `np.save` writes them, whatever the file is called
    Path("single.npy").rename("single.npz")
    with pytest.raises(CimcError, match=r"single.npz: stuck_uS is 3; the package has arrays of 256 x 64"):
        read_fault_map("single.npz", stored.mapping, chip=stored.chip)
    with zipfile.ZipFile("bytes.npz", "w") as archive:
        archive.writestr("stuck_uS.npy", b"no array")
    with pytest.raises(CimcError, match=r"bytes.npz is no NPZ file of arrays"):
        read_fault_map("bytes.npz", stored.mapping, chip=stored.chip)
    with pytest.raises(CimcError, match=r"text.npz is no NPZ file of arrays"):
        read_fault_map("text.npz", stored.mapping, chip=stored.chip)
    with pytest.raises(CimcError, match=r"cannot read fault map none.npz: No such file"):
        read_fault_map("none.npz", stored.mapping, chip=stored.chip)


def test_a_kind_is_no_question_of_units(place: Path) -> None:
    stored = read_artifact("small.cim")
    faults = Faults(stuck_low=0.01, low_uS=1e-4, high_uS=5000.0 * stored.chip.cell.conductance_max_uS)
    chip = stored.chip.model_copy(update={"cell": stored.chip.cell.model_copy(update={"faults": faults})})
    for kind, held in (("stuck-low", 1e-4), ("stuck-high", faults.high_uS)):
        found = read_fault_map(write_map(f"0,0,0,{kind}"), stored.mapping, chip=chip)
        assert found[0, 0, 0] == np.float32(held)


def test_wrong_units_and_files_are_named(place: Path) -> None:
    stored = read_artifact("small.cim")
    with pytest.raises(CimcError, match="make it array,row,column,kind or array,row,column,conductance_uS"):
        read_fault_map(write_map("0,0,0,3e-6", head="array,row,column,conductance_S"), stored.mapping, chip=stored.chip)
    with pytest.raises(CimcError, match="conductance_uS is 'nan'; give uS"):
        read_fault_map(write_map("0,0,0,nan", head="array,row,column,conductance_uS"), stored.mapping, chip=stored.chip)
    with pytest.raises(CimcError, match="conductance_uS is '1e300'; give uS, a number from 0 to 1e"):
        read_fault_map(
            write_map("0,0,0,1e300", head="array,row,column,conductance_uS"), stored.mapping, chip=stored.chip
        )
    with pytest.raises(CimcError, match=r"cannot read fault map none.csv: No such file"):
        read_fault_map("none.csv", stored.mapping, chip=stored.chip)


def test_copies_that_are_not_computed_are_told(place: Path) -> None:
    mapping, said = read_artifact("small.cim").mapping, list[str]()
    note_copies(mapping, said.append)
    assert not said
    copied = mapping.model_copy(update={"layers": (mapping.layers[0].model_copy(update={"copies": 4}),)})
    note_copies(copied, said.append)
    assert "of the 4 copies of fc the first is computed" in said[0]


def test_a_placement_is_of_a_die(place: Path) -> None:
    with pytest.raises(
        CimcError, match="placement pairs is of the stuck cells of a die; give its fault map with --die"
    ):
        cimc.export("small.cim", data=load("data.npz"), placement="pairs")
