"""The cells of reference columns are devices: written with errors, aged, stuck, measured, and part of the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

import cimc
from cimc.addresses import reference_addresses
from cimc.artifact import read_artifact
from cimc.chip import Chip, load_chip
from cimc.data.load import load
from cimc.errors import CimcError
from cimc.options import Compensate
from cimc.package import Package
from runtime.deployment.chips import Chips, outputs_on_chips
from runtime.deployment.population import Request, population_of
from runtime.network.load import load_network
from runtime.system.inference import batches
from runtime.system.inputs import match_data
from runtime.system.state import build_system, restore_state
from tests import reference
from tests import reference_schemes as schemes
from tests.chips import chip_of
from tests.networks import network_proto, weights

ROWS, COLUMNS = 8, 3
SD = 0.4  # uS
CELL = {"conductance_min_uS": 10.0, "conductance_max_uS": 60.0, "programming": {"error_sd_uS": SD}}
SLICED = {"scheme": "offset", "offset_columns": 1, "bits": 4, "bits_per_cell": 2}


def offset_chip(**tables: Mapping[str, Any]) -> Chip:
    weights = tables.pop("weights", {"scheme": "offset", "offset_columns": 1})
    return chip_of(weights=weights, cell={**CELL, **tables.pop("cell", {})}, rows=ROWS, **tables)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((16, ROWS), np.float32)
    y = np.arange(16, dtype=np.int32) % COLUMNS
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    proto = network_proto(nodes, {"x": ["N", ROWS]}, {"y": ["N", COLUMNS]}, {"w": weights(ROWS, COLUMNS)})
    onnx.save(proto, "small.onnx")
    return tmp_path


def package_of(chip: Chip) -> Package:
    cimc.compile("small.onnx", chip, output="small.cim", verify=False)
    return cimc.export("small.cim", output="package", data=load("data.npz"))


def chips_of(package: Package, request: Request) -> Mapping[float | None, Chips]:
    """Virtual chips of a package, by the time after programming."""
    system = build_system(load_network(package.network), package.mapping, package.chip)
    data = match_data(system.network, load("data.npz"))
    return population_of(system, package.program, data, request).make(np.arange(request.chips))


def inputs_of_test_set() -> npt.NDArray[np.float32]:
    return next(iter(load("data.npz").test.inputs.values()))


def outputs(chips: Chips) -> npt.NDArray[np.float64]:
    """Of the test set on each chip [chips, samples, columns]."""
    network = chips.system.network
    data = match_data(network, load("data.npz"))
    (batch,) = batches(network, data.test, data.preprocess, None)
    return np.stack([made["y"] for made in outputs_on_chips(chips, batch)]).astype(np.float64)


@pytest.mark.parametrize(("table", "signs", "times"), [({}, [1], 1), (SLICED, [4, 1], 8)])
def test_errors_of_the_writes_of_a_reference_column_are_in_every_output(
    place: Path, table: dict[str, Any], signs: list[float], times: float
) -> None:
    """y errs by W / full (sum over k s_k sum_r u e_k  -  t sum_r u e_ref), of independent e with the sd of a write."""
    chip = offset_chip(**({"weights": table} if table else {}))
    package = package_of(chip)
    share = times * SD / chip.scheme.full_uS
    assert f"alike, by {share:.2%} of their range" in Path("package/README.md").read_text(encoding="utf-8")
    y = outputs(chips_of(package, Request(4000, 0))[None])[:, 0]
    u = inputs_of_test_set()[0].astype(np.float64)
    per_uS = np.broadcast_to(package.program.layers["fc"].weight_range, COLUMNS) / chip.scheme.full_uS
    own = SD**2 * np.sum(u**2) * np.sum(np.square(signs))
    shared = SD**2 * np.sum(u**2) * times**2
    np.testing.assert_allclose(y.std(axis=0), per_uS * np.sqrt(own + shared), rtol=0.05)
    correlations = np.asarray(np.corrcoef(y.T))[np.triu_indices(COLUMNS, 1)]
    np.testing.assert_allclose(correlations, shared / (own + shared), atol=0.05)


def test_writes_without_errors_leave_every_bit_as_it_is(place: Path) -> None:
    """`isaac` converts exactly; a chip between states and with noise does not."""
    quiet = {"programming": {"error_sd_uS": 0.0}, "read_noise_uS": 0.5}
    serial = {"bits": 6, "encoding": "bit-serial"}
    for chip in (load_chip("isaac"), offset_chip(cell=quiet, inputs=serial, adc={"bits": 6, "noise_lsb": 0.3})):
        chips = chips_of(package_of(chip), Request(2, 0))[None]
        assert set(chips.own["reference_column"]) == {"fc"}
        ideal = Chips(chips.system, chips.state, {"conductance": chips.own["conductance"]}, chips.keys)
        np.testing.assert_array_equal(outputs(chips), outputs(ideal))


def test_reference_columns_age_by_the_law_of_their_devices(place: Path) -> None:
    drift = {"drift": {"exponent": {"constant": 0.05}, "start_s": 20.0}}
    chips = chips_of(package_of(offset_chip(cell=drift)), Request(2, 0, at=(2000.0,)))
    fresh, aged = (np.asarray(chips[moment].own["reference_column"]["fc"]) for moment in (None, 2000.0))
    np.testing.assert_allclose(aged, fresh * 100**-0.05, rtol=1e-5)


@pytest.mark.parametrize("kind", [Compensate.global_, Compensate.column])
def test_compensation_undoes_the_drift_of_weights_and_reference_columns(place: Path, kind: Compensate) -> None:
    """All that is read has drifted by the same factor, and nothing has another error."""
    drift = {"drift": {"exponent": {"constant": 0.05}, "start_s": 20.0}, "programming": {"error_sd_uS": 0.0}}
    package = package_of(offset_chip(cell=drift))
    request = Request(2, 0, at=(2000.0,), compensate=(kind,))
    gain = np.asarray(chips_of(package, request)[2000.0].own["gain"]["fc"])
    assert gain.shape == ((2,) if kind is Compensate.global_ else (2, COLUMNS))
    np.testing.assert_allclose(gain, package.program.layers["fc"].gain * 100**0.05, rtol=1e-4)


def test_stuck_and_measured_cells_of_a_reference_column_reach_the_outputs(place: Path) -> None:
    """Cell by cell as the plain model has it; the map lists cells where the package has them."""
    chip = offset_chip(
        weights=SLICED,
        cell={"programming": {"error_sd_uS": 0.0}},
        inputs={"bits": 4, "encoding": "bit-serial"},
        adc={"bits": 6},
    )
    package = package_of(chip)
    cells = reference_addresses(package.mapping, "fc", chip=chip)
    stored = np.load("package/program/addresses.npz")
    assert stored["reference"].sum() == ROWS
    assert (stored["counts"][stored["reference"]] == -8).all()
    assert (stored["layer"][stored["reference"]] == -1).all()
    programmed = np.load("package/program/targets.npy")
    np.testing.assert_allclose(programmed[tuple(cells)], schemes.reference_target(chip), atol=chip.target_step_uS)
    measured = programmed.copy()
    places = [tuple(int(part[row, 0]) for part in cells) for row in (2, 5)]
    held = np.full(ROWS, schemes.reference_target(chip))
    held[[2, 5]] = 55.0, 43.0
    lines = ["array,row,column,conductance_uS"]
    for place_, g in zip(places, held[[2, 5]], strict=True):
        measured[place_] = g
        lines.append(",".join(map(str, (*place_, g))))
    Path("map.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.savez("measured.npz", conductance_uS=measured)
    x, targets = inputs_of_test_set(), np.ones((16, COLUMNS), np.float32)
    np.savez("targets.npz", x_train=x, y_train=targets, x_test=x, y_test=targets)
    data = load("targets.npz")
    stuck, ideal = (np.mean(np.abs(plain_outputs(package, column) - targets)) for column in (held, None))
    assert stuck > 1.1 * ideal
    found = cimc.deploy("package", data, chips=1, faults="map.csv", metric="mae")
    assert found.accuracies[0] == pytest.approx(stuck, rel=1e-5)
    read = cimc.measure("package", "measured.npz", data=data, metric="mae", reprogram="0.5uS")[0]
    assert read.chip.value == pytest.approx(stuck, rel=1e-5)
    assert read.reprogram is not None
    assert [tuple(cell) for cell in read.reprogram.cells] == places
    assert read.reprogram.expected_error["before"] > 0
    assert read.reprogram.expected_error["after"] < 1e-9 * read.reprogram.expected_error["before"]
    assert package.mapping.cost.devices == np.isfinite(programmed).sum()
    text = Path("package/README.md").read_text(encoding="utf-8")
    assert f"{package.mapping.cost.devices} of " in text


def plain_outputs(package: Package, column: npt.ArrayLike | None) -> npt.NDArray[np.float64]:
    """Of the plain model with that reference column; None: as it is to be [samples, columns]."""
    chip, layer = package.chip, package.program.layers["fc"]
    held = np.full(ROWS, schemes.reference_target(chip)) if column is None else column
    codes = reference.dac_codes(inputs_of_test_set(), float(layer.input_range), chip)
    u = reference.vectors(codes, None)
    d = reference.sums(chip, u, layer.targets, [(0, ROWS)], False, None, reference_column=held).d[..., 0]
    ranges = np.broadcast_to(layer.weight_range, COLUMNS)
    scale = np.array([reference.output_scale(float(one), float(layer.input_range), chip) for one in ranges])
    return (d * scale[:, None] * np.reshape(layer.gain, (-1, 1))).T


def test_training_holds_what_was_written_and_files_of_earlier_versions_the_targets(place: Path) -> None:
    cimc.compile("small.onnx", offset_chip(), output="small.cim", verify=False)
    options = cimc.TrainingOptions(epochs=1, steps_per_epoch=2, batch_size=4)
    figures = cimc.train("small.cim", load("data.npz"), options=options, output="trained.cim").figures
    assert figures["first_writes"] == figures["first_trials"] == ROWS * COLUMNS + ROWS
    trained = read_artifact("trained.cim")
    off = trained.state["reference_column/fc"] - schemes.reference_target(trained.chip)
    assert off.shape == (ROWS, 1)
    assert 0.3 * SD < off.std() < 3 * SD
    system = build_system(load_network(trained.network), trained.mapping, trained.chip)
    kept = restore_state(system, trained.state, "trained.cim")
    np.testing.assert_array_equal(kept["reference_column"]["fc"], trained.state["reference_column/fc"])
    before = {name: array for name, array in trained.state.items() if not name.startswith("reference_column/")}
    assert restore_state(system, before, "trained.cim")["reference_column"] == {}


def test_what_a_die_holds_of_a_reference_column_is_in_no_package(place: Path) -> None:
    with pytest.raises(CimcError, match="have a reference column"):
        cimc.tune(package_of(offset_chip()), load("data.npz"))
