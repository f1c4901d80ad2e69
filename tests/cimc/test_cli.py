"""The commands: they answer at once, print one JSON object with the agreed keys, and explain themselves."""

import io
import json
import resource
import statistics
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import helper, save
from typer.testing import CliRunner

from cimc.api.checkpoint import CLOCKED
from cimc.api.example_model import example_model as network_of_quickstart
from cimc.artifact import read_artifact
from cimc.chip import chip_names, load_chip, parse_chip
from cimc.commands import main as cli
from cimc.commands.console import print_figures, print_table
from cimc.data.digits import digits
from cimc.version import __version__
from tests.networks import network_proto, weights

ROOT = Path(__file__).parents[2]
LENET1 = str(ROOT / "models" / "lenet1.onnx")
START_SECONDS = 0.5
COMPILE_KEYS = {"model", "chip", "layers", "crossbars", "devices", "weights", "mvm_positions", "tile_ops"}
COMPILE_KEYS |= {"latency_ms", "pipelined_latency_ms", "energy_mj", "utilization", "row_split", "verify"}
COMPILE_KEYS |= {"digital_products", "macs"}
TRAIN_KEYS = {"accuracy", "loss", "epochs", "images_per_s", "updates", "updates_per_weight_mean"}
TRAIN_KEYS |= {"updates_per_weight_max", "update_reduction", "programming_energy_mj"}
DEPLOY_KEYS = {"chips", "accuracy", "yield", "baseline_accuracy", "normalized_accuracy"}
COMMANDS = sorted(command.name or getattr(command.callback, "__name__", "") for command in cli.app.registered_commands)


class Output(NamedTuple):
    status: Any
    out: str
    err: str


def cimc(*arguments: str) -> Output:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["cimc", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return Output(caught.value.code or 0, out.getvalue(), err.getvalue())


def figures(*arguments: str) -> dict[str, Any]:
    """The JSON object of a command; nothing else is on its stdout."""
    output = cimc(*arguments, "--json")
    assert output.status == 0, output.err
    assert output.out.count("\n") == 1
    result = json.loads(output.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(result, dict)
    return result


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A folder with a one-layer network and 300 synthetic digits, in which all commands run."""
    folder = tmp_path_factory.mktemp("cli")
    arrays: dict[str, Any] = dict(zip(("x_train", "y_train", "x_test", "y_test"), digits(300, 100), strict=True))
    np.savez(folder / "data.npz", **arrays)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "W", "b"], ["y"])]
    constants = {"W": 0.1 * weights(784, 10), "b": 0.1 * weights(10)}
    save(network_proto(nodes, {"x": ("N", 1, 28, 28)}, {"y": ("N", 10)}, constants), folder / "small.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def compiled(place) -> dict[str, Any]:
    return figures("compile", "small.onnx", "--chip", "brram-256x64", "-o", "small.cim")


@pytest.fixture(scope="module")
def trained(compiled) -> dict[str, Any]:
    return figures("train", "small.cim", "--data", "data.npz", "--epochs", "4", "--lr", "0.02", "-o", "trained.cim")


@pytest.fixture(scope="module")
def exported(trained) -> dict[str, Any]:
    return figures("export", "trained.cim", "-o", "package")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_command_answers_within_half_a_second_of_processor_time(option):
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "cimc", option]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert ("compile" if option == "--help" else __version__) in done.stdout
    assert 0 < statistics.median(seconds) < START_SECONDS


def test_help_lists_every_command():
    assert {"compile", "train", "eval", "export", "deploy", "inspect", "chips", "quickstart"} <= set(COMMANDS)
    listed = CliRunner().invoke(cli.app, ["--help"]).output
    for command in COMMANDS:
        assert command in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example_of_it(command):
    output = CliRunner().invoke(cli.app, [command, "--help"])
    assert output.exit_code == 0
    assert f"Example: cimc {command}" in output.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_json(command):
    assert "--json" in CliRunner().invoke(cli.app, [command, "--help"]).output


def test_unknown_command_is_a_usage_error():
    assert cimc("compil").status == 2
    assert cimc("compile").status == 2
    assert cimc("compile", LENET1, "--chipp", "ideal").status == 2


def test_lenet1_compiles_to_the_published_figures_and_computes_the_same():
    result = figures("compile", LENET1, "--chip", "brram-soc", "-o", "lenet1.cim")
    assert set(result) >= COMPILE_KEYS
    assert (result["model"], result["chip"]) == ("lenet1", "brram-soc")
    assert [layer["name"] for layer in result["layers"]] == ["conv1", "conv2", "fc1"]
    assert (result["crossbars"], result["weights"], result["devices"]) == (6, 3220, 6440)
    assert (result["mvm_positions"], result["tile_ops"]) == (641, 707)
    assert result["latency_ms"] == pytest.approx(0.46, abs=0.005)
    assert result["pipelined_latency_ms"] == pytest.approx(0.41472)
    assert result["energy_mj"] == pytest.approx(0.0019, abs=5e-5)
    assert 0 < result["utilization"] < 1
    assert result["row_split"] == ["channel"]
    assert 0 <= result["verify"]["ideal"] < 1e-5
    assert 1e-4 < result["verify"]["chip"] < 10


def test_compile_options_change_the_mapping():
    arguments = ["compile", LENET1, "--chip", "brram-soc", "--no-verify"]
    flat = figures(*arguments, "--row-split", "flat")
    signed = figures(*arguments, "--input-range=-1,1", "-o", "signed.cim")
    assert flat["row_split"] == ["flat"]
    assert set(flat["verify"].values()) == {None}
    assert {"ideal", "chip"} <= set(flat["verify"])
    assert read_artifact(Path("signed.cim")).mapping.layer("conv1").signed_input
    assert signed["tile_ops"] > figures(*arguments)["tile_ops"]


def test_an_input_is_set_and_what_was_decided_is_noted(place):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="fc"), helper.make_node("Mul", ["p", "gain"], ["y"])]
    constants = {"w": weights(7, 5).astype(np.float64)}
    double = network_proto(nodes, {"x": ["N", 7], "gain": []}, {"y": ["N", 5]}, constants, dtype=11)
    save(double, "double.onnx")
    noted = figures("compile", "double.onnx", "--set", "gain=0.5")
    assert noted["notes"] == ["float64 values are computed in float32, inputs and outputs too"]
    assert "note: float64 values" in cimc("compile", "double.onnx", "--set", "gain=0.5").out
    refused = cimc("compile", "double.onnx", "--set", "loss=0.5")
    assert refused.status == 1
    assert refused.err == "error: --set names the input 'loss', but the network has x, gain\n"


def test_compile_without_output_writes_nothing(place):
    before = sorted(place.iterdir())
    figures("compile", LENET1, "--chip", "brram-soc", "--no-verify")
    assert sorted(place.iterdir()) == before


def test_train_has_all_figures(trained):
    assert set(trained) >= TRAIN_KEYS
    assert trained["epochs"] == 4
    assert trained["accuracy"] > 0.5
    assert 0 < trained["loss"] < 2.3
    assert trained["images_per_s"] > 0
    assert trained["updates_per_weight_mean"] == pytest.approx(trained["updates"] / 7840)
    assert trained["updates_per_weight_max"] >= 1
    assert trained["update_reduction"] == pytest.approx(trained["steps"] * 7840 / trained["updates"])
    assert trained["programming_energy_mj"] is None, "this chip states no energy of a pulse"


def test_train_repeats_and_shows_progress_on_stderr(trained):
    arguments = ["--data", "data.npz", "--epochs", "4", "--lr", "0.02", "-o", "again.cim"]
    output = cimc("train", "small.cim", *arguments)
    assert output.status == 0
    lines = output.err.splitlines()
    assert lines[0] == "train: loss: cross-entropy on y"
    assert all(line.startswith("train: epoch ") for line in lines[1:])
    assert lines[-1].startswith("train: epoch 4: loss ")
    assert "wrote again.cim" in output.out
    assert Path("again.cim").read_bytes() == Path("trained.cim").read_bytes()


def test_eval_has_all_figures(trained):
    results = [figures("eval", "trained.cim", "--data", "data.npz", *options) for options in ([], ["--exact"])]
    for result in results:
        assert set(result) >= {"accuracy", "images_per_s"}
        assert result["accuracy"] > 0.5
        assert result["images_per_s"] > 0


def test_export_tells_where_and_how_much(exported):
    assert (exported["model"], exported["chip"], exported["package"]) == ("small", "brram-256x64", "package")
    assert exported["devices"] == 2 * 7840
    assert Path("package/model.onnx").is_file()


def test_export_names_the_data_of_the_training_for_what_comes_next(trained):
    assert "next: cimc deploy named --data data.npz" in cimc("export", "trained.cim", "-o", "named").out


def test_deploy_has_all_figures(exported):
    result = figures("deploy", "package", "--data", "data.npz", "--chips", "3")
    assert set(result) >= DEPLOY_KEYS
    assert result["chips"] == 3
    for key in ("accuracy", "normalized_accuracy"):
        values = result[key]
        assert set(values) >= {"mean", "std", "min", "p5", "median"}
        assert values["min"] <= values["p5"] <= values["median"]
        assert values["min"] <= values["mean"]
    assert result["accuracy"]["mean"] > 0.5
    assert result["baseline_accuracy"] > 0.5
    expected = result["accuracy"]["mean"] / result["baseline_accuracy"]
    assert result["normalized_accuracy"]["mean"] == pytest.approx(expected)
    assert 0 <= result["yield"] <= 1
    lax = figures("deploy", "package", "--data", "data.npz", "--chips", "3", "--required", "0")
    assert lax["yield"] == 1
    assert lax["accuracy"] == result["accuracy"], "the same seed programs the same chips"
    strict = figures("deploy", "package", "--data", "data.npz", "--chips", "3", "--baseline", "1")
    assert strict["normalized_accuracy"] == pytest.approx(
        {key: strict["accuracy"][key] for key in strict["normalized_accuracy"]}
    )


def test_inspect_shows_what_compile_counted(compiled):
    result = figures("inspect", "small.cim")
    for key in ("layers", "crossbars", "devices", "weights", "tile_ops", "energy_mj"):
        assert result[key] == compiled[key]


def test_inspect_shows_the_training_that_train_printed(trained):
    shown = figures("inspect", "trained.cim")["training"]
    kept = {name: value for name, value in trained.items() if name not in CLOCKED | {"notes"}}
    assert shown["figures"] == read_artifact(Path("trained.cim")).history["figures"] == kept
    assert shown["complete"]
    assert (shown["options"]["lr"], shown["options"]["seed"], shown["options"]["epochs"]) == (0.02, 0, 4)
    assert [record["accuracy"] for record in shown["epochs"]][-1] == trained["accuracy"]
    assert shown["tool"] == f"cimc {__version__}"
    table = cimc("inspect", "trained.cim").out
    for text in (f"{trained['accuracy']:.2%}", f"{trained['updates']:,}", "seed", "cosine", f"cimc {__version__}"):
        assert text in table


def test_tables_name_layers_and_files(compiled):
    table = cimc("compile", "small.onnx", "-o", "table.cim")
    shown = cimc("inspect", "table.cim")
    for output in (table, shown):
        assert output.status == 0
        assert output.err == ""
        assert "784 x 10" in output.out
    assert "wrote table.cim" in table.out
    assert "verified against onnxruntime" in table.out


def test_chips_lists_all():
    table = cimc("chips").out
    assert set(figures("chips")) == set(chip_names())
    for name in chip_names():
        assert name in table


@pytest.mark.parametrize("name", chip_names())
def test_printed_chip_is_a_description_to_start_from(name):
    printed = cimc("chips", name).out
    assert parse_chip(printed, "printed") == load_chip(name)
    assert "#" in printed, "the sources are lost"
    assert figures("chips", name).keys() == {name}


def test_chips_explains_what_follows_from_a_description(place):
    assert set(figures("chips", "--explain")) == set(chip_names())
    assert figures("chips", "hermes", "--explain")["hermes"]["updates"]["granularity_uS"] == pytest.approx(
        2.185, abs=0.001
    )
    Path("mine.toml").write_text(cimc("chips", "brram-soc").out, encoding="utf-8")
    table = cimc("chips", "mine.toml", "--explain")
    assert table.status == 0, table.err
    assert "1.82 / 3.85 uS" in table.out, "the error of one trial that leaves the stated one"


@pytest.mark.parametrize("levels", [2, 4])
def test_a_chip_of_few_levels_is_compiled_verified_and_exported_with_so_many_targets(place, levels):
    text = cimc("chips", "brram-256x64").out.replace("granularity_uS = 4.0", f"levels = {levels}")
    Path("levels.toml").write_text(text, encoding="utf-8")
    assert figures("compile", "small.onnx", "--chip", "levels.toml", "-o", "levels.cim")["verify"]["ideal"] < 1e-4
    figures("export", "levels.cim", "--data", "data.npz", "-o", "levels")
    targets = np.load("levels/program/targets.npy")
    assert len(np.unique(targets[np.isfinite(targets)])) == levels


def test_output_cut_off_by_its_reader_is_no_crash():
    command = f'"{sys.executable}" -m cimc chips | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_objective_shows_copies_and_the_bound():
    result = figures(
        "compile", LENET1, "--objective", "interval", "--arrays", "9", "--chip", "brram-soc", "-o", "9.cim"
    )
    assert result["crossbars"] == result["arrays"] == 9
    assert [layer["copies"] for layer in result["layers"]] == [8, 1, 1]
    assert [layer["grid"] for layer in result["layers"]] == [[1, 1], [2, 1], [3, 1]]
    assert sum(layer["share_of_time"] for layer in result["layers"]) == pytest.approx(1)
    assert result["result"]["objective"] == "interval"
    assert result["result"]["exact"]
    assert result["result"]["bound"] == pytest.approx(result["interval_ms"])
    assert figures("inspect", "9.cim").items() <= result.items()
    shown = cimc("inspect", "9.cim")
    assert shown.status == 0
    for word in ("copies", "critical path", "components", "bound", "optimal", "limited by array"):
        assert word in shown.out


def test_quickstart_finds_its_network():
    assert network_of_quickstart().is_file()


def test_segments_show_their_programming():
    vgg8 = str(ROOT / "models" / "vgg8.onnx")
    command = ("compile", vgg8, "--objective", "latency", "--chip", "cimaq-256", "--no-verify", "-o", "segments.cim")
    result = figures(*command)
    assert len(result["segments"]) > 1
    assert result["reprogramming_ms"] == pytest.approx(len(result["segments"]) * 0.056)
    shown = cimc("inspect", "segments.cim")
    assert shown.status == 0
    assert f"{len(result['segments'])} segments" in shown.out
    assert "of these, programming" in shown.out


def test_names_are_shown_as_they_are_written_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("of [/b]", ["[bold]", "n"], [["[/i] a", "[red]1"]], "see [/x]")
    print_figures("[/b]", {"[dim]name": "[/]"})
    shown = capsys.readouterr().out
    for text in ("of [/b]", "[bold]", "[/i] a", "[red]1", "see [/x]", "[dim]name", "[/]"):
        assert text in shown
