"""`--energy` of eval and deploy, on a chip with wires: what JSON and table say, and what it cannot go with."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import cimc
from cimc.chip import load_chip
from cimc.commands.main import app
from cimc.data.load import load
from cimc.errors import CimcError
from tests.networks import network_proto, weights

WIRES = {"word_line_ohm": 20.0, "bit_line_ohm": 20.0, "ir_drop": "static"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("energy")
    x, w = np.random.default_rng(0).random((60, 16), np.float32), weights(16, 4)
    y = np.argmax(x @ w, axis=1).astype(np.int32)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    onnx.save(network_proto(nodes, {"x": ["N", 16]}, {"y": ["N", 4]}, {"w": w}), folder / "small.onnx")
    chip = load_chip("brram-256x64", settings={"wires": WIRES, "array": {"rows": 16, "columns": 8}})
    cimc.compile(folder / "small.onnx", chip, output=folder / "small.cim", verify=False)
    cimc.export(folder / "small.cim", output=folder / "package", data=load(str(folder / "data.npz")))
    return folder


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.stdout


@pytest.mark.parametrize(("command", "source"), [("eval", "small.cim"), ("deploy", "package")])
def test_energy_stands_beside_the_chip_s_figure(folder: Path, command: str, source: str) -> None:
    words = [command, str(folder / source), "--data", str(folder / "data.npz"), "--energy"]
    words += ["--chips", "2"] if command == "deploy" else []
    energy = json.loads(run(*words, "--json"))["energy_mj"]
    assert energy["table"] == pytest.approx(2.93e-6)
    assert 0 < energy["cells"]["min"] < energy["cells"]["mean"] < energy["cells"]["max"] < energy["table"]
    assert energy["total"] == energy["cells"]
    assert energy["word_lines"] is energy["conversions"] is None
    shown = run(*words)
    assert "these, by the data" in shown
    assert "2.93e-06" in shown


def test_energy_is_not_that_of_float32(folder: Path) -> None:
    with pytest.raises(CimcError, match="--energy is that of the arrays"):
        cimc.evaluate(folder / "small.cim", load(str(folder / "data.npz")), exact=True, energy=True)
