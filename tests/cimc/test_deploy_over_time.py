"""Virtual chips after a time: each is the same chip at every time, its devices as their laws say."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import cimc
from cimc.chip import Chip, load_chip
from cimc.commands.main import app
from cimc.data.load import load
from cimc.device_time import Drift, Faults, Flicker, StateLaw, Thermal
from cimc.durations import parse_time, parse_times, time_text
from cimc.errors import CimcError
from cimc.options import Compensate
from cimc.package import read_package
from cimc.report.read_deployments import read_deployments
from runtime.crossbar.chips import _read
from runtime.deployment.chips import Chips
from runtime.deployment.compensation import compensated_gains
from runtime.deployment.programming import age_chip, aged_system, program_chip
from runtime.network.load import load_network
from runtime.system.program import programmed_state
from runtime.system.state import build_system, gain_of
from tests.networks import network_proto, weights

KEYS = jax.random.split(jax.random.key(1), 1)
DRIFT = Drift(start_s=20.0, exponent=StateLaw(constant=0.05), exponent_sd=StateLaw(constant=0.02))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.random((200, 16), np.float32)
    w = weights(16, 4)
    y = np.argmax(x @ w, axis=1).astype(np.int32)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    onnx.save(network_proto(nodes, {"x": ["N", 16]}, {"y": ["N", 4]}, {"w": w}), "small.onnx")
    return tmp_path


def chip_with(**sections: object) -> Chip:
    chip = load_chip("hermes")
    return chip.model_copy(update={"cell": chip.cell.model_copy(update=sections)})


def export(chip: Chip) -> None:
    cimc.compile("small.onnx", chip, output="small.cim", verify=False)
    cimc.export("small.cim", output="package", data=load("data.npz"))


def test_accuracy_falls_with_time_and_what_came_before_is_unchanged(place: Path) -> None:
    export(chip_with(drift=DRIFT))
    data = load("data.npz")
    plain = cimc.deploy("package", data, chips=3)
    aged = cimc.deploy("package", data, chips=3, at=["1h", 3600.0 * 24 * 365.25 * 1000, "60min"])
    np.testing.assert_array_equal(aged.accuracies, plain.accuracies)
    assert list(aged.aged) == [3600.0, 1000 * 365.25 * 86400], "one hour is one time, however it is written"
    first, last = aged.aged.values()
    assert np.mean(last) < np.mean(first) - 0.02, "exponents of 0.05 +- 0.02 over twelve decades"
    assert aged.at(3600.0).yield_fraction == np.mean(first / aged.baseline_accuracy >= 0.99)


def test_devices_age_by_their_law_from_what_was_written(place: Path) -> None:
    export(chip_with(drift=DRIFT))
    contents = read_package(Path("package"))
    system = build_system(load_network(contents.network), contents.mapping, contents.chip)
    written = program_chip(system, programmed_state(system, contents.program), jax.random.key(0))
    held = np.asarray(written["fc"], np.float64)
    moved = held > 0  # an idle device that is written below 0 stays out of the logarithm
    exponents = []
    for seconds in (2000.0, 2e6):
        later = np.asarray(age_chip(system, written, seconds, jax.random.key(0))["fc"], np.float64)
        exponents.append(-np.log(later[moved] / held[moved]) / np.log(seconds / 20))
    np.testing.assert_allclose(exponents[0], exponents[1], atol=1e-3, err_msg="another device after a longer time")
    assert np.mean(exponents[0]) == pytest.approx(0.05, abs=0.01)
    assert age_chip(system, written, None, jax.random.key(0)) == written


def test_stuck_devices_do_not_age(place: Path) -> None:
    faults = Faults(stuck_high=0.3, high_uS=77.0)
    export(chip_with(drift=DRIFT, faults=faults))
    contents = read_package(Path("package"))
    system = build_system(load_network(contents.network), contents.mapping, contents.chip)
    state, key = programmed_state(system, contents.program), jax.random.key(0)
    for stuck in ({}, {"fc": np.where(np.arange(4) == 1, np.float32(77.0), np.nan) * np.ones((2, 16, 1), np.float32)}):
        written = program_chip(system, state, key, stuck)
        later = np.asarray(age_chip(system, written, 1e8, key, stuck)["fc"])
        held = np.asarray(written["fc"]) == 77.0
        assert 0 < held.sum() < held.size
        np.testing.assert_array_equal(later == 77.0, held)


def test_flicker_noise_grows_with_time(place: Path) -> None:
    flicker = Flicker(q=StateLaw(constant=0.01), read_s=250e-9, after_s=20.0)
    export(chip_with(flicker=flicker))
    contents = read_package(Path("package"))
    system = build_system(load_network(contents.network), contents.mapping, contents.chip)
    later = aged_system(system, 1e6)
    sds = [float(s.chip.cell.read_noise_variance(np.float64(10.0))) ** 0.5 for s in (system, later)]
    expected = [0.1 * np.sqrt(np.log((t + 250e-9) / 500e-9)) for t in (20.0, 1e6)]
    assert sds == pytest.approx(expected, rel=1e-6)
    assert all(crossbar.chip == later.chip for crossbar in later.crossbars.values())
    assert aged_system(system, None) is system


def test_a_warm_chip_is_sooner_what_a_cool_one_is_later(place: Path) -> None:
    quiet = {"drift": DRIFT, "flicker": None}
    thermal = Thermal(activation_energy_eV=1.1)
    export(chip_with(**quiet, thermal=thermal))
    said: list[str] = []
    warm = cimc.deploy("package", load("data.npz"), chips=3, at=["1d"], temperature=85, note=said.append)
    assert any(re.search("kept at 85 C, where time runs 1,30[0-9] times as fast as at 25 C", line) for line in said)
    factor = Thermal(activation_energy_eV=1.1, kept_at_C=85.0).acceleration
    later = 86400.0 * factor
    cool = cimc.deploy("package", load("data.npz"), chips=3, at=["1d", later])
    np.testing.assert_array_equal(warm.aged[86400.0], cool.aged[later])
    np.testing.assert_array_equal(warm.accuracies, cool.accuracies)
    assert np.any(warm.aged[86400.0] != cool.aged[86400.0])
    # The chip may say it itself; the option goes before it.
    export(chip_with(**quiet, thermal=thermal.model_copy(update={"kept_at_C": 85.0})))
    told = CliRunner().invoke(app, ["deploy", "package", "--data", "data.npz", "--chips", "3", "--at", "1d", "--json"])
    figures = json.loads(told.stdout)
    assert figures["temperature_C"] == 85.0
    Path("warm.json").write_text(told.stdout, encoding="utf-8")
    assert list(read_deployments([Path("warm.json")], None)) == ["no compensation, 85 C"]
    swept = cimc.sweep(
        "package", load("data.npz"), vary={"deploy.temperature": [25, 85], "deploy.at": "1d", "deploy.chips": 3}
    )
    assert [str(one) for one in swept.aims()] == ["accuracy_after_1d:max"], "what time and temperature change"
    medians = [row.figures["accuracy_after_1d"] for row in swept.rows]
    assert medians == [np.median(found.aged[86400.0]) for found in (cool, warm)]
    assert figures["aged"][0]["accuracies"] == warm.aged[86400.0].tolist()
    again = cimc.deploy("package", load("data.npz"), chips=3, at=["1d"], temperature=25)
    np.testing.assert_array_equal(again.aged[86400.0], cool.aged[86400.0])


@pytest.mark.parametrize(
    ("given", "stated", "message"),
    [
        (
            {"at": ["1y"], "temperature": 85},
            False,
            r"hermes do not say what heat does; .*activation_energy_eV=1.1 > warm.toml writes$",
        ),
        ({"temperature": 85}, True, r"temperature is that of the times .*--at 1h,1y$"),
        ({"at": ["1y"], "temperature": -300}, True, r"temperature is -300, .*give one from -200 to 1000$"),
        ({"at": ["1y"], "temperature": 900}, True, r"temperature: .*at 900 C time would run 1e14 times as fast"),
    ],
)
def test_a_temperature_that_says_nothing_is_one_line(
    place: Path, given: dict[str, Any], stated: bool, message: str
) -> None:
    export(chip_with(thermal=Thermal(activation_energy_eV=1.1) if stated else None))
    with pytest.raises(CimcError, match=message) as error:
        cimc.deploy("package", load("data.npz"), chips=1, **given)
    assert "\n" not in str(error.value)


def test_a_chip_that_does_not_age_says_so(place: Path) -> None:
    export(load_chip("brram-256x64"))
    said: list[str] = []
    cimc.deploy("package", load("data.npz"), chips=1, at=["1y"], note=said.append)
    assert any("state no drift, relaxation or retention" in line for line in said)


def test_a_drift_that_all_devices_share_is_compensated_whole(place: Path) -> None:
    shared = Drift(start_s=20.0, exponent=StateLaw(constant=0.08))
    quiet = {"drift": shared, "flicker": None, "read_noise_uS": 0.0, "conductance_min_uS": 0.0}
    export(chip_with(**quiet))
    data = load("data.npz")
    year = 365.25 * 86400
    plain, scaled, columns = (
        cimc.deploy("package", data, chips=2, at=["1y"], compensate=kind) for kind in ("none", "global", "column")
    )
    assert np.mean(plain.aged[year]) < np.mean(plain.accuracies)
    for found in (scaled, columns):
        np.testing.assert_array_equal(found.accuracies, plain.accuracies)
    # All conductances are 0.32 of what they were: so are the products, which the gain undoes; the ADC is not finer.
    contents = read_package(Path("package"))
    system = build_system(load_network(contents.network), contents.mapping, contents.chip)
    state = programmed_state(system, contents.program)
    written = program_chip(system, state, jax.random.key(0))
    later = age_chip(system, written, year, jax.random.key(0))
    new, old = (Chips(system, state, {"conductance": {"fc": held["fc"][None]}}, KEYS) for held in (written, later))
    for kind in (Compensate.global_, Compensate.column):
        gains = compensated_gains(kind, new, old, KEYS)["fc"]
        factor = np.asarray(gains) / np.asarray(gain_of(state, "fc"))
        np.testing.assert_allclose(factor, np.full(factor.shape, (year / 20) ** 0.08), rtol=1e-4)


def test_compensation_needs_a_time(place: Path) -> None:
    export(chip_with(drift=DRIFT))
    with pytest.raises(CimcError, match="acts at times after programming; say which with at, such as --at 1s,1y"):
        cimc.deploy("package", load("data.npz"), chips=1, compensate="column")
    with pytest.raises(CimcError, match="calibrate gives samples to compensate by, and compensate column takes none"):
        cimc.deploy("package", load("data.npz"), chips=1, at="1h", compensate="column", calibrate=load("data.npz"))


def test_times_may_be_one_text() -> None:
    """Not its letters: `12` is twelve seconds."""
    assert parse_times("1h,12,60min") == parse_times(["12", 3600.0]) == (12.0, 3600.0)


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("2min", 120), ("1h", 3600), ("1.5d", 129600), (30, 30)])
def test_times_are_read(text: str | float, seconds: float) -> None:
    assert parse_time(text) == seconds
    assert parse_time(time_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["1e300y", "1e31y", 1e13])
def test_a_time_that_is_too_long_is_refused(text: str | float) -> None:
    with pytest.raises(CimcError, match="longer than 1e\\+12 s, 30,000 years"):
        parse_time(text)


@pytest.mark.parametrize("text", ["", "1 month", "-1h", "0", "nan", "h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(CimcError, match="no span of time; give a number and a unit"):
        parse_time(text)


def test_any_number_of_chips_is_one_program_and_a_chip_does_not_depend_on_how_many_there_are(place: Path) -> None:
    export(load_chip("brram-256x64"))
    data = load("data.npz")
    few = cimc.deploy("package", data, chips=9)
    compiled: Any = _read  # what jax.jit returns counts what it compiled
    before = compiled._cache_size()
    many = cimc.deploy("package", data, chips=19)
    assert compiled._cache_size() == before, "the read of chips was compiled anew for another number of them"
    np.testing.assert_array_equal(many.accuracies[:9], few.accuracies)
    alone = cimc.deploy("package", data, chips=1)
    np.testing.assert_array_equal(many.accuracies[:1], alone.accuracies)


def test_what_a_deployment_says_of_its_chips(place: Path) -> None:
    export(chip_with(drift=DRIFT, faults=Faults(stuck_low=0.2)))
    options = ["--data", "data.npz", "--chips", "3", "--at", "1h", "--compensate", "global+affine", "--layers"]
    result = CliRunner().invoke(app, ["deploy", "package", *options, "--csv", "chips.csv", "--json"])
    assert result.exit_code == 0, result.output
    Path("found.json").write_text(result.stdout)
    found = json.loads(result.stdout)
    assert found["compensation"] == {"global": 1, "affine": 8}
    assert isinstance(found["iso_accuracy"], bool)
    worst = found["worst"]
    assert found["aged"][0]["accuracies"][worst["chip"]] == found["aged"][0]["accuracy"]["min"]
    assert 0.1 < worst["stuck_share"] < 0.3
    assert set(worst["layers"]) == set(worst["sensitivity"]) == {"fc"}
    with Path("chips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seconds"] for row in rows] == [""] * 3 + ["3600.0"] * 3
    assert float(rows[3]["accuracy"]) == found["aged"][0]["accuracies"][0]
    shown = CliRunner().invoke(app, ["report", "package", "--deployed", "found.json", "-o", "page.html"])
    assert shown.exit_code == 0, shown.output
    page = Path("page.html").read_text()
    assert "Virtual chips" in page
    assert "global+affine" in page
    assert "SNR of every layer, worst chip, " in page


def test_a_file_that_is_no_deployment_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(CimcError, match=r"other.json is no deployment; give what `cimc deploy --json` printed"):
        read_deployments([tmp_path / "other.json"], None)


SPREAD = {"mean": 0.8, "std": 0.1, "min": 0.7, "worst": 0.7, "median": 0.8}
TOLD = {"measure": "accuracy", "accuracies": [0.7, 0.9], "accuracy": SPREAD, "yield": 0.5, "model": "m", "chip": "c"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accuracies": []}, "accuracies"),
        ({"accuracies": [float("nan")]}, "accuracies"),
        ({"accuracy": 0.9}, "accuracy"),
        ({"aged": None}, "aged"),
        ({"aged": [{**TOLD, "seconds": 0}]}, "seconds"),
        ({"compensation": None}, "compensation"),
        ({"temperature_C": "hot"}, "temperature_C"),
        ({"measure": 3}, "measure"),
        ({"worst": {"chip": 0, "layers": {"fc": {}}}}, "worst"),
        ({"model": "other"}, "measured of other on c, and the package is of m on c"),
    ],
)
def test_a_file_that_is_no_deployment_of_the_package_is_one_line(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    (tmp_path / "good.json").write_text(json.dumps(TOLD))
    assert list(read_deployments([tmp_path / "good.json"], ("m", "c"))) == ["no compensation"]
    (tmp_path / "wrong.json").write_text(json.dumps(TOLD | changed))
    with pytest.raises(CimcError, match=message) as error:
        read_deployments([tmp_path / "wrong.json"], ("m", "c"))
    assert "wrong.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_deployments_that_differ_in_nothing_but_their_place_are_all_there(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "found.json" for folder in ("p", "q", "r")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(json.dumps(TOLD))
    names = list(read_deployments(paths, ("m", "c")))
    assert names == ["no compensation", "no compensation (found)", f"no compensation ({paths[2]})"]
    with pytest.raises(CimcError, match="given twice"):
        read_deployments([paths[2], paths[2], paths[2], paths[2]], ("m", "c"))
