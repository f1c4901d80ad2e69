"""`cimc sweep`: rows are what the single commands give, nothing is computed twice, whatever is killed."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, save
from typer.testing import CliRunner

import cimc
from cimc.api import sweep as sweep_module
from cimc.api import sweep_point
from cimc.api.sweep_point import Outcome, Point, Work
from cimc.commands.main import app
from tests.networks import network_proto, weights

ROOT = Path(__file__).parents[2]
CHIP = "brram-soc"
NOISE, ERROR = "cell.read_noise_uS", "cell.programming.error_sd_uS"


@pytest.fixture(scope="module")
def data() -> cimc.Dataset:
    x, w = weights(96, 6, seed=1) / 2 + 0.5, weights(6, 3)
    y = np.argmax(x @ w, axis=1).astype(np.int32)
    return cimc.Dataset.of_images("tiny", x[:64], y[:64], x[64:], y[64:], classes=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "tiny.onnx"
    node = helper.make_node("Gemm", ["x", "W"], ["y"])
    save(network_proto([node], {"x": ["N", 6]}, {"y": ["N", 3]}, {"W": weights(6, 3)}), path)
    return path


@pytest.fixture(scope="module")
def trained(model: Path, data: cimc.Dataset) -> Path:
    path = model.with_name("trained.cim")
    options = cimc.TrainingOptions(epochs=1, steps_per_epoch=2, batch_size=8)
    cimc.train(cimc.compile(model, CHIP, verify=False).artifact, data, options=options, output=path)
    return path


def pretend(work: Work, point: Point) -> Outcome:
    """Figures that follow from the options alone."""
    rate = point.options["eval"].get("metric")
    if rate == "broken":
        return Outcome(error="it is broken")
    return Outcome({"accuracy": 1 / (1 + abs(float(rate or 0) - 3)) + point.seed / 100, "energy_mj": float(rate or 0)})


def table(path: Path) -> list[Any]:
    with sqlite3.connect(path / "results.sqlite") as connection:
        return connection.execute("SELECT number, key, figures, error FROM points ORDER BY number").fetchall()


# --- What the rows hold ---


def test_rows_of_a_trained_file_are_those_of_eval_with_the_devices_kept(trained: Path, data: cimc.Dataset) -> None:
    notes: list[str] = []
    result = cimc.sweep(
        trained, data, vary={NOISE: [0.5, 2.0], "eval.noise": [True], "seed": [0, 3]}, note=notes.append
    )
    assert [(row.fields[NOISE], row.seed) for row in result.rows] == [(0.5, 0), (0.5, 3), (2.0, 0), (2.0, 3)]
    artifact = cimc.read_artifact(trained)
    for row in result.rows:
        chip = cimc.load_chip(CHIP, settings={"cell": {"read_noise_uS": row.fields[NOISE]}})
        figures = cimc.evaluate(replace(artifact, chip=chip), data, seed=row.seed)
        assert row.figures["accuracy"] == figures["accuracy"]
        assert row.figures["snr_db"] == figures["agreement"]["y"]["snr_db"]
    assert "stay as they were trained" in notes[0]
    group = result.groups[1]
    noises = [row.figures["snr_db"] for row in result.rows[2:]]
    assert group.mean["snr_db"] == pytest.approx(np.mean(noises))
    assert group.sd["snr_db"] == pytest.approx(np.std(noises, ddof=1))


def test_a_larger_programming_error_is_written_into_devices_anew(trained: Path, data: cimc.Dataset) -> None:
    notes: list[str] = []
    result = cimc.sweep(trained, data, vary={ERROR: [0.0, 6.0], NOISE: [0.0]}, note=notes.append)
    assert "written on the chip of each point" in notes[0]
    exact, wrong = (row.figures["snr_db"] for row in result.rows)
    assert exact > wrong + 5
    with pytest.raises(cimc.CimcError, match=r"--devices keep: .*error_sd_uS changes what devices hold"):
        cimc.sweep(trained, data, vary={ERROR: [0.0, 6.0]}, devices="keep")


def test_points_share_compilation_and_training_and_a_refused_one_is_a_row(
    model: Path, data: cimc.Dataset, tmp_path: Path
) -> None:
    fields = {
        "chip": CHIP,
        "adc.bits": [8, 99],
        NOISE: 0.1,
        "train.lr": [0.001, 0.01],
        "eval.noise": [True, False],
        "train.epochs": 1,
        "train.steps_per_epoch": 1,
    }
    result = cimc.sweep(model, data, vary=fields, folder=tmp_path)
    assert len(result.rows) == 8
    assert {row.fields["adc.bits"] for row in result.failed} == {99}
    assert all("adc.bits" in (row.error or "") for row in result.failed)
    kinds = [path.name.partition("-")[0] for path in (tmp_path / "files").iterdir()]
    assert (kinds.count("compiled"), kinds.count("trained")) == (1, 2)
    row = next(row for row in result.rows if row.error is None)
    assert row.figures["updates_per_weight_mean"] >= 0
    chip = cimc.load_chip(CHIP, settings={"cell": {"read_noise_uS": 0.1}})
    compiled = cimc.compile(model, chip, calibrate=data, verify=False).artifact
    options = cimc.TrainingOptions(epochs=1, steps_per_epoch=1, lr=0.001)
    again = cimc.evaluate(cimc.train(compiled, data, options=options).artifact, data)
    assert row.figures["accuracy"] == again["accuracy"]


def test_a_field_of_a_layer_is_what_an_options_file_says_of_it(model: Path, data: cimc.Dataset, trained: Path) -> None:
    fields = {"chip": CHIP, "adc.bits": [3, 8], "layer.*.adc.bits": [3, 8], "eval.noise": False}
    rows = {(row.fields["adc.bits"], row.fields["layer.*.adc.bits"]): row.figures["snr_db"] for row in (
        cimc.sweep(model, data, vary=fields).rows
    )}  # fmt: skip
    for bits in (3, 8):
        options = {"layer": {"*": {"adc.bits": bits}}}
        compiled = cimc.compile(model, CHIP, calibrate=data, verify=False, options=options).artifact
        (alone,) = cimc.evaluate(compiled, data, noise=False)["agreement"].values()
        assert rows[3, bits] == rows[8, bits] == alone["snr_db"]  # whatever the chip's own ADC has
    assert rows[3, 3] < rows[8, 8]
    (exported,) = cimc.sweep(trained, data, vary={"layer.*.adc.bits": 3, "deploy.chips": 1}).rows
    package = cimc.export(trained, data=data, options={"layer": {"*": {"adc.bits": 3}}})
    assert exported.figures["accuracy"] == cimc.deploy(package, data, chips=1).accuracies[0]


def test_a_package_is_deployed_at_each_point(trained: Path, data: cimc.Dataset) -> None:
    package = cimc.export(trained, data=data)
    result = cimc.sweep(package, data, vary={"deploy.chips": [2], NOISE: [5.0], "array.rows": [64, 32]})
    found, refused = result.rows
    assert "laid out for its own chip" in (refused.error or "")
    chip = cimc.load_chip(CHIP, settings={"cell": {"read_noise_uS": 5.0}})
    accuracies = cimc.deploy(replace(package, chip=chip), data, chips=2).accuracies
    assert found.figures["accuracy"] == np.median(accuracies)


@pytest.mark.parametrize(
    ("fields", "do", "message"),
    [
        ({"compile.arrays": 3}, None, "compiled already"),
        ({"cell.read_nois_uS": [1, 2]}, None, "read_nois_uS"),
        ({"train.lrr": 3}, "train", "no option train.lrr"),
        ({"deploy.chips": 3}, "eval", "--do deploy"),
        ({"train.lr": 3, NOISE: 1}, None, "sweep the compiled file"),
        ({"eval.noise": True}, "deploy", "--do eval"),
        ({"layer.y.adc.bits": 3}, "eval", "sweep the ONNX file, or take --do deploy"),
        ({"eval.metric": "no such"}, None, "no point could be computed"),
    ],
)
def test_what_does_not_fit_the_source_is_told_in_one_line(
    fields: dict[str, Any], do: str | None, message: str, trained: Path, data: cimc.Dataset
) -> None:
    with pytest.raises(cimc.CimcError, match=message):
        cimc.sweep(trained, data, vary=fields, do=do)


def test_a_folder_in_which_nothing_could_be_computed_takes_the_corrected_sweep(
    trained: Path, data: cimc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "measure_point", pretend)
    with pytest.raises(cimc.CimcError, match="no point could be computed: it is broken"):
        cimc.sweep(trained, data, vary={"eval.metric": "broken"}, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(cimc.sweep(trained, data, vary={"eval.metric": [3]}, folder=tmp_path).rows) == 1


# --- Folders ---


def test_a_folder_goes_on_with_its_own_sweep_and_no_other(
    trained: Path, data: cimc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Point] = []

    def counted(work: Work, point: Point) -> Outcome:
        calls.append(point)
        return pretend(work, point)

    monkeypatch.setattr(sweep_module, "measure_point", counted)
    fields = {"eval.metric": ["broken", 1, 2, 3]}

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cimc.sweep(trained, data, vary=fields, folder=tmp_path, progress=stop, seeds=2)
    assert 0 < len(table(tmp_path)) < 8
    partial = cimc.read_sweep(tmp_path)
    assert not partial.complete
    result = cimc.sweep(trained, data, vary=fields, folder=tmp_path, seeds=2)
    assert cimc.sweep(trained, data, vary=fields, folder=tmp_path, seeds=2).rows == result.rows
    assert len(calls) == 8
    assert [row.number for row in result.rows] == list(range(8))
    assert cimc.read_sweep(tmp_path).complete
    with pytest.raises(cimc.CimcError, match=r"holds another sweep \(points, vary eval.metric differ\)"):
        cimc.sweep(trained, data, vary={"eval.metric": [1, 2]}, folder=tmp_path, seeds=2)
    with pytest.raises(cimc.CimcError, match="data_sha256"):
        cimc.sweep(trained, replace(data, test=data.train), vary=fields, folder=tmp_path, seeds=2)
    with pytest.raises(cimc.CimcError, match="holds other files"):
        cimc.sweep(trained, data, vary=fields, folder=trained.parent)
    with sqlite3.connect(tmp_path / "results.sqlite") as connection, pytest.raises(sqlite3.Error, match="final"):
        connection.execute("DELETE FROM points")


def test_a_search_finds_the_best_and_goes_on_as_if_it_had_not_been_stopped(
    trained: Path, data: cimc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr(sweep_module, "measure_point", pretend)
    settings: dict[str, Any] = {"search": 24, "objective": ["accuracy:max", "energy:min"]}
    fields = {"eval.metric": "0.0:9.0"}

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cimc.sweep(trained, data, vary=fields, folder=tmp_path, progress=stop, **settings)
    resumed = cimc.sweep(trained, data, vary=fields, folder=tmp_path, **settings)
    straight = cimc.sweep(trained, data, vary=fields, **settings)
    assert [replace(row, seconds=0) for row in resumed.rows] == [replace(row, seconds=0) for row in straight.rows]
    assert len({row.fields["eval.metric"] for row in straight.rows}) == 24


def test_a_killed_sweep_ends_with_the_same_table_and_no_point_twice(
    trained: Path, data: cimc.Dataset, tmp_path: Path
) -> None:
    arrays = {"x_train": data.train.inputs[""], "y_train": np.asarray(data.train.labels)}
    arrays |= {"x_test": data.test.inputs[""], "y_test": np.asarray(data.test.labels)}
    np.savez(tmp_path / "tiny.npz", **arrays)  # type: ignore[arg-type]
    arguments = ["sweep", str(trained), "--data", str(tmp_path / "tiny.npz"), "--vary", f"{NOISE}=0.1:0.8:0.1"]
    command = [sys.executable, "-m", "cimc", *arguments, "-o", str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    results = tmp_path / "killed" / "results.sqlite"
    while process.poll() is None and not (results.exists() and _count(results)):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _count(results) > 0
    for folder in ("killed", "straight"):
        done = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / folder), "--json"])
        assert done.exit_code == 0, done.output
    assert table(tmp_path / "killed") == table(tmp_path / "straight")
    assert len(json.loads(done.stdout)["rows"]) == 8


def _count(path: Path) -> int:
    try:
        with sqlite3.connect(path) as connection:
            return int(connection.execute("SELECT count(*) FROM points").fetchone()[0])
    except sqlite3.OperationalError:  # no table yet
        return 0


def test_errors_that_may_pass_are_computed_again(
    trained: Path, data: cimc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = True

    def costs(mapping: Any) -> dict[str, float]:
        nonlocal short
        if short:
            short = False
            raise MemoryError
        return {}

    monkeypatch.setattr(sweep_point, "costs", costs)
    first = cimc.sweep(trained, data, vary={NOISE: [0.5, 2.0]}, folder=tmp_path)
    assert [row.error for row in first.rows] == ["not enough memory", None]
    assert not first.complete
    assert len(table(tmp_path)) == 1
    again = cimc.sweep(trained, data, vary={NOISE: [0.5, 2.0]}, folder=tmp_path)
    assert again.complete
    assert not again.failed


def test_a_figure_that_is_no_number_is_an_error_of_its_point(
    trained: Path, data: cimc.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    energies = iter([math.nan, 1.0, 1e200])
    monkeypatch.setattr(sweep_point, "costs", lambda mapping: {"energy_mj": next(energies)})
    result = cimc.sweep(trained, data, vary={NOISE: [0.5, 1.0, 2.0]})
    said = "energy_mj is {}, no finite number up to 1e+100".format
    assert [row.error for row in result.rows] == [said("nan"), None, said("1e+200")]


def test_a_search_that_asks_for_points_again_comes_to_its_end(
    trained: Path, data: cimc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr(sweep_module, "measure_point", pretend)
    seen: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"vary": {"eval.metric": [1, 2, 3]}, "folder": tmp_path}
    with pytest.raises(cimc.CimcError, match="points have no acuracy to search by; they have accuracy, energy_mj"):
        cimc.sweep(trained, data, search=9, objective="acuracy:max", **settings)
    assert not list(tmp_path.iterdir())
    cimc.sweep(trained, data, search=9, progress=lambda *at: seen.append(at), **settings)
    assert seen[-1] == (9, 9)
    assert len(table(tmp_path)) <= 3
    assert cimc.read_sweep(tmp_path).complete


@pytest.mark.parametrize("search", [None, 12])
def test_points_without_a_figure_do_not_judge_for_the_others(
    search: int | None, trained: Path, data: cimc.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    if search:
        pytest.importorskip("optuna")

    def some(work: Work, point: Point) -> Outcome:
        whole = pretend(work, point)
        return replace(whole, figures={"accuracy": 0.5}) if point.options["eval"]["metric"] != 2 else whole

    monkeypatch.setattr(sweep_module, "measure_point", some)
    notes: list[str] = []
    fields = {"eval.metric": [1, 2, 3]}
    result = cimc.sweep(trained, data, vary=fields, search=search, objective="energy:min", note=notes.append)
    assert not any("so it is not shown" in note for note in notes)
    assert [group.fields["eval.metric"] for group in result.pareto()] == [2]


def test_objectives_of_a_grid_are_kept_and_may_change(
    trained: Path, data: cimc.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "measure_point", pretend)
    notes: list[str] = []
    for objective in ("acuracy:max", "enrgy:min", "energy:min"):
        fields = {"eval.metric": [1, 2]}
        cimc.sweep(trained, data, vary=fields, objective=objective, folder=tmp_path, note=notes.append)
    for wrong in ("acuracy", "enrgy"):
        assert f"points have no {wrong}, so it is not shown; they have accuracy, energy_mj" in notes
    assert [str(one) for one in cimc.read_sweep(tmp_path).aims()] == ["energy_mj:min"]
    monkeypatch.setattr(sweep_module, "__version__", "0.0.1")
    with pytest.raises(cimc.CimcError, match="cimc_version"):
        cimc.sweep(trained, data, vary={"eval.metric": [1, 2]}, folder=tmp_path)


def test_fields_of_the_chip_are_those_of_the_chip_of_export(trained: Path, data: cimc.Dataset) -> None:
    result = cimc.sweep(trained, data, vary={"export.chip": CHIP, "cell.read_noise_uS": [0.0, 30.0], "deploy.chips": 2})
    chip = cimc.load_chip(CHIP, settings={"cell": {"read_noise_uS": 30.0}})
    accuracies = cimc.deploy(cimc.export(trained, chip, data=data), data, chips=2).accuracies
    means = [row.figures["accuracy_mean"] for row in result.rows]
    assert means[1] == np.mean(accuracies) != means[0]
    with pytest.raises(cimc.CimcError, match=r"chip cannot be varied here: export\.chip says"):
        cimc.sweep(trained, data, vary={"export.chip": CHIP, "chip": CHIP})


# --- Shown ---


def test_the_command_shows_a_table_and_the_report_draws_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "measure_point", pretend)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[vary]\n"eval.metric" = [1, 2, 3]\n')
    command = ["sweep", str(trained), "s.toml", "--vary", "eval.noise=true,false", "--seeds", "2", "--csv", "s.csv"]
    goals = ["--objective", "accuracy:max", "--objective", "energy:min"]
    done = CliRunner().invoke(app, [*command, *goals])
    assert done.exit_code == 0, done.output
    assert "100.50 ± 0.71 %" in done.output
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "point,eval.metric,eval.noise,seed,accuracy,energy_mj,error"
    assert len(lines) == 13
    assert CliRunner().invoke(app, ["report", "sweep", "-o", "sweep.html"]).exit_code == 0
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") >= 3
    assert "accuracy by eval.metric and eval.noise" in page
    assert CliRunner().invoke(app, ["sweep", str(trained)]).exit_code == 1
    figure = cimc.plot_sweep(cimc.read_sweep("sweep", ["accuracy:max", "energy:min"]), "sweep.svg")
    # Two figures by two fields, a pair of fields, a pair of figures.
    assert len(figure.axes) == 6
    means = {f"{1 / (1 + abs(value - 3)) + 0.005:.3g}" for value in (1, 2, 3)}
    assert {text.get_text() for text in figure.axes[4].texts} == means
    assert (tmp_path / "sweep.svg").read_text().count("<svg") == 1
    with pytest.raises(cimc.CimcError, match=r"sweep\.jpg: pictures are PNG, PDF or SVG"):
        cimc.plot_sweep(cimc.read_sweep("sweep"), "sweep.jpg")
