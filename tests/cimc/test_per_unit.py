"""Energy and time of a token, of a step and of a second, and that what is printed calls an input an input."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import cimc
from cimc.commands import compile as compile_command
from cimc.commands.main import app
from tests.networks import network_proto, weights

TOKENS, FRAMES = 6, 5


def tokens_network(sizes: list[int | str]) -> onnx.ModelProto:
    """Tokens [N, T] to 3 scores each."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("MatMul", ["e", "W"], ["y"], name="fc"),
    ]
    constants = {"table": weights(7, 4), "W": weights(4, 3)}
    return network_proto(nodes, {"x": sizes}, {"y": [*sizes, 3]}, constants, dtype=TensorProto.INT64)


def recurrent_network() -> onnx.ModelProto:
    """Frames [N, T, 4] through a GRU."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "W", "R"], ["", "y"], hidden_size=3, name="gru"),
    ]
    constants = {"W": weights(1, 9, 4), "R": weights(1, 9, 3)}
    return network_proto(nodes, {"x": ["N", FRAMES, 4]}, {"y": [1, "N", 3]}, constants)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units")
    tokens = tokens_network(["N", TOKENS])
    tokens.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    for name, proto in (("tokens", tokens), ("frames", recurrent_network())):
        onnx.save(proto, folder / f"{name}.onnx")
        cimc.compile(folder / f"{name}.onnx", "brram-256x64", output=folder / f"{name}.cim", verify=False)
    return folder


def inspect(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.stdout


@pytest.mark.parametrize(("name", "unit", "count"), [("tokens", "token", TOKENS), ("frames", "step", FRAMES)])
def test_a_sequence_is_counted_by_its_tokens_or_steps(folder: Path, name: str, unit: str, count: int) -> None:
    found = json.loads(inspect(str(folder / f"{name}.cim"), "--json", "--inputs-per-second", "40"))
    energy_mj, interval_ms = sum(part["energy_mj"] or 0 for part in found["components"]), found["interval_ms"]
    assert list(found["per"]) == [unit, "second"]
    assert found["per"][unit]["energy_mj"] == pytest.approx(energy_mj / count)
    assert found["per"][unit]["interval_ms"] == pytest.approx(interval_ms / count)
    assert found["per"]["second"]["energy_mj"] == pytest.approx(40 * energy_mj)
    assert found["per"]["second"]["interval_ms"] == pytest.approx(40 * interval_ms)
    shown = inspect(str(folder / f"{name}.cim"), "--inputs-per-second", "40")
    assert f"per {unit} ({count} an input): {energy_mj / count:.2g} mJ, one every {interval_ms / count:.3g} ms" in shown
    assert "per second (40 inputs)" in shown
    assert "too slow" not in shown
    assert "image" not in shown
    rate = 1001 / interval_ms
    assert "(too slow)" in inspect(str(folder / f"{name}.cim"), "--inputs-per-second", str(rate))


def test_what_is_no_sequence_has_no_line_of_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"], name="fc")]
    onnx.save(network_proto(nodes, {"x": ["N", 8]}, {"y": ["N", 3]}, {"W": weights(8, 3)}), tmp_path / "m.onnx")
    compiled = cimc.compile(tmp_path / "m.onnx", "brram-256x64")
    compile_command.show(compiled, None)
    shown = capsys.readouterr().out
    assert "per " not in shown
    # Scales are not fitted yet: no figure of the converters that would be taken for the network's.
    assert np.isfinite(compile_command.figures(compiled)["verify"]["chip_snr_db"])
    assert " dB" not in shown
    assert "what the chip's converters change is measured with scales fitted to data" in shown
