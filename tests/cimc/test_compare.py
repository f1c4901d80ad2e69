"""`compare` and `chips --compare`: the figures are those of the files and of `inspect`, the differences are all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from typer.testing import CliRunner

import cimc
from cimc.commands.main import app
from cimc.program import Program
from cimc.sweep_result import SweepResult
from cimc.sweep_results import Row
from cimc.sweep_spec import Objective
from passes.mapper.off_chip import off_chip_bytes
from tests.networks import network, weights


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of 20, 30 and 5 values, its .cim files, one trained for two steps, and a package."""
    place = tmp_path_factory.mktemp("compared")
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="last"),
    ]
    made = network(nodes, {"x": ["N", 20]}, {"y": ["N", 5]}, {"a": weights(20, 30), "b": weights(30, 5, seed=1)})
    onnx.save(ir.to_proto(made), place / "n.onnx")
    onnx_file = place / "n.onnx"
    cimc.compile(onnx_file, "brram-256x64", output=place / "plain.cim", verify=False)
    coarse = cimc.compile(onnx_file, cimc.load_chip("brram-256x64", settings={"adc": {"bits": 6}}), verify=False)
    for name, changes in (("trained", {}), ("sign", {"policy": {"method": "sign", "sync": "target"}, "lr": 0.5})):
        cimc.write_artifact(place / f"{name}.cim", replace(coarse.artifact, history=history(**changes)))
    return place


def history(**options: Any) -> dict[str, Any]:
    """Of a training run of two steps, as a `.cim` file has it."""
    policy = {"method": "mixed-precision", "sync": "target"}
    usual = {"data": "made", "images": 64, "data_sha256": "0", "source_sha256": "1", "lr": 0.005, "policy": policy}
    record = {"epoch": 1, "loss": 1.5, "accuracy": 0.25, "measures": {}, "lr": 0.005, "updates": 7}
    return {
        "options": {**usual, **options},
        "step": 2,
        "steps": 2,
        "synthetic": False,
        "epochs": [record],
        "figures": {"accuracy": 0.25, "loss": 1.5, "steps": 2, "updates": 7, "device_writes": 31},
    }


def package_of(trained: cimc.Artifact) -> cimc.Package:
    """A package with these contents and notes, of which the rest is not looked at."""
    noisy = {"y": {"snr_db": 12.5, "argmax_agreement": 0.75}, "z": {"snr_db": 9.5, "argmax_agreement": 0.875}}
    notes = {"trained_on": "x", "training": trained.history["options"], "agreement": {"samples": 3, "noise_on": noisy}}
    program = Program({}, {})
    return cimc.Package(trained.model, trained.chip, trained.chip_text, trained.mapping, program, b"", b"", notes=notes)


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a package of the trained network seems to be."""
    found = package_of(cimc.read_artifact(folder / "trained.cim"))
    monkeypatch.setattr("cimc.package.read_package", lambda path: found)
    (folder / "package").mkdir(exist_ok=True)
    return folder / "package"


def test_figures_are_those_of_inspect_and_of_the_package(folder: Path, package: Path) -> None:
    files = [*(str(folder / name) for name in ("plain.cim", "trained.cim")), str(package)]
    compared = json.loads(run("compare", *files, "--json"))
    assert compared["files"] == files
    sections = compared["sections"]
    assert sections["file"]["kind"] == ["compiled", "trained", "package"]
    assert sections["chip"] == {"adc.bits": [8, 6, 6]}
    plain, trained = (json.loads(run("inspect", file, "--json")) for file in files[:2])
    for key, name in (("latency, ms", "row_pipelined_latency_ms"), ("energy, mJ", "energy_mj"), ("TOPS", "tops")):
        assert sections["one input"][key][:2] == [plain[name], trained[name]]
    for key in ("accuracy", "updates", "steps", "device_writes"):
        assert sections["training"][key] == [None, history()["figures"][key], None]
    assert sections["package"]["same largest entry, with noise"] == [None, None, 0.75]  # of the worst output
    assert sections["package"]["SNR, dB, with noise"] == [None, None, 9.5]
    assert sections["training options"] == {}


def test_every_difference_of_training_options_is_found_and_nothing_else(folder: Path) -> None:
    compared = json.loads(run("compare", str(folder / "trained.cim"), str(folder / "sign.cim"), "--json"))
    expected = {"lr": [0.005, 0.5], "policy.method": ["mixed-precision", "sign"]}
    assert compared["sections"]["training options"] == expected


def test_three_files_fit_eighty_columns(folder: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(folder)
    shown = run("compare", "plain.cim", "trained.cim", "package")
    assert max(map(len, shown.splitlines())) <= 100  # the last line is a sentence, which the terminal wraps
    assert max(len(line) for line in shown.splitlines() if "│" in line) <= 80
    assert "adc.bits" in shown
    assert "training options: the same" in shown


def test_one_file_or_another_kind_is_refused(folder: Path) -> None:
    assert CliRunner().invoke(app, ["compare", str(folder / "plain.cim")]).exit_code == 2
    result = CliRunner().invoke(app, ["compare", str(folder / "plain.cim"), str(folder / "n.onnx")])
    assert isinstance(result.exception, cimc.CimcError)


def test_a_network_on_several_chips_one_of_which_refuses(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = cimc.compile

    def refusing(model: Path, chip: str, **options: Any) -> cimc.Compiled:
        if chip == "puma":
            raise cimc.CimcError("puma has no room")
        return plain(model, chip, **options)

    monkeypatch.setattr(cimc, "compile", refusing)
    names = ["isaac", "hermes", "puma"]
    command = ("chips", "--compare", *names, "--model", str(folder / "n.onnx"))
    compared = json.loads(run(*command, "--json"))
    assert list(compared["chips"]) == names
    assert compared["operations"] == 2 * (20 * 30 + 30 * 5)
    for name in names[:2]:
        cimc.compile(folder / "n.onnx", name, output=tmp_path / "n.cim", verify=False)
        inspected = json.loads(run("inspect", str(tmp_path / "n.cim"), "--json"))
        row = compared["chips"][name]
        assert row["arrays"] == inspected["crossbars"]
        assert (row["tops_per_w"], row["energy_mj"]) == (inspected["tops_per_w"], inspected["energy_mj"])
        assert (row["latency_ms"], row["area_mm2"]) == (inspected["row_pipelined_latency_ms"], inspected["area_mm2"])
    assert compared["chips"]["puma"] == {"refused": "puma has no room"}
    said = run(*command)
    assert "refused" in said
    # Energies of chips that state other components do not compare, and that is said.
    left_out = compared["chips"]["hermes"]["energy_not_stated"]
    assert {"digital operators", "local memory"} <= set(left_out)
    assert f"hermes: without {', '.join(left_out)}" in " ".join(said.split())
    for wrong in (("chips", "--compare", "isaac"), ("chips", "isaac", "--model", "n.onnx"), ("chips", "isaac", "puma")):
        assert CliRunner().invoke(app, list(wrong)).exit_code == 2


@pytest.mark.parametrize(("wrong", "said"), [("isac", "isac"), ("broken.toml", "broken.toml"), ("no.toml", "no.toml")])
def test_a_chip_that_is_none_is_no_chip_that_refuses(
    wrong: str, said: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text("name = 'broken'\n")
    monkeypatch.setattr(cimc, "compile", lambda *_, **__: pytest.fail("mapped before all chips were read"))
    result = CliRunner().invoke(app, ["chips", "--compare", "isaac", wrong, "--model", str(folder / "n.onnx")])
    assert isinstance(result.exception, cimc.CimcError)
    assert said in str(result.exception)


def test_as_busy_layers_are_counted_where_the_limit_is_told(folder: Path) -> None:
    """One of equal layers alone looks like the one to mend."""
    schedule = cimc.read_artifact(folder / "plain.cim").mapping.schedule
    assert schedule is not None
    assert [limit.where for limit in schedule.limits if limit.kind == "array"] == ["first and 1 more"]


@pytest.mark.parametrize(
    ("array", "moved"),
    [
        ({"per_chip": 8}, 20 + 5),  # inputs and outputs, a byte each
        ({"per_chip": 1}, 20 + 5 + 30),  # a layer a chip: 30 values go over
        # Rows in two arrays: inputs once; partial sums of both layers; of the 30 values those that each chip needs.
        ({"per_chip": 1, "rows": 16}, 20 + 5 + 30 + 5 + 30),
    ],
)
def test_bytes_over_the_edge_of_a_chip_are_counted_by_hand(folder: Path, array: dict[str, int], moved: int) -> None:
    chip = cimc.load_chip("brram-256x64", settings={"array": array})
    mapping = cimc.compile(folder / "n.onnx", chip, verify=False).artifact.mapping
    assert off_chip_bytes(mapping, chip) == moved


def test_sweeps_are_compared_point_by_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(better: float) -> SweepResult:
        rows = [
            Row(number, {"adc.bits": bits}, seed, {"accuracy": 0.5 + better + seed / 10}, None, 1.0)
            for number, (bits, seed) in enumerate([(6, 0), (6, 1), (7, 0), (7, 1)])
        ]
        return SweepResult("net", ("adc.bits",), tuple(rows), (Objective("accuracy", True),))

    found = {folder / "one": sweep(0.0), folder / "two": sweep(0.25)}
    monkeypatch.setattr("cimc.sweep_results.is_sweep", lambda path: path in found)
    monkeypatch.setattr("cimc.sweep_result.read_sweep", lambda path: found[path])
    sections = json.loads(run("compare", *map(str, found), "--json"))["sections"]
    assert sections["accuracy, mean over seeds"] == {"adc.bits 6": [0.55, 0.8], "adc.bits 7": [0.55, 0.8]}
    assert sections["file"]["points"] == [2, 2]
