"""The input range: taken from data at compilation, and compared with the data of each later command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, save
from typer.testing import CliRunner

import cimc
from cimc.commands.main import app
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from runtime.system.inputs import outward
from tests.networks import network_proto, weights

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 2, 2), np.uint8)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)


def said_by(*arguments: str) -> dict[str, Any]:
    """The JSON of a command, with what it says on stderr."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return {**json.loads(result.stdout), "stderr": result.stderr}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small network and images for it as bytes, and as floats of 0 to 255."""
    monkeypatch.chdir(tmp_path)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "W"], ["y"])]
    save(network_proto(nodes, {"x": ("N", 3, 2, 2)}, {"y": ("N", 4)}, {"W": weights(12, 4)}), "net.onnx")
    np.savez("bytes.npz", x=PIXELS)
    np.savez("floats.npz", x_train=PIXELS.astype(np.float32), y_train=np.arange(40) % 4, x_test=np.float32(PIXELS))
    return tmp_path


def test_the_range_is_what_the_network_sees_and_fits_all_later_commands() -> None:
    prepared = ["--mean", "0.5,0.4,0.3", "--std", "0.2,0.3,0.1"]
    found = said_by("compile", "net.onnx", "--calibrate", "bytes.npz", *prepared, "-o", "net.cim")
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (MEAN, STD))
    seen = (PIXELS / 255 - mean) / std
    assert cimc.read_artifact("net.cim").mapping.input_range == pytest.approx((seen.min(), seen.max()), rel=1e-5)
    assert f"inputs from {seen.min():.4g} to {seen.max():.4g}, which the network sees of bytes.npz" in found["notes"]
    notes = said_by("eval", "net.cim", "--data", "bytes.npz", *prepared)["notes"]
    assert not [note for note in notes if not note.startswith("LOW AGREEMENT")]


def test_values_below_the_range_are_refused_with_the_range_that_is_needed() -> None:
    artifact = cimc.compile("net.onnx", "ideal", verify=False).artifact
    x = np.full((4, 3, 2, 2), 0.5, np.float32)
    x[1, 0], x[2, 1] = -2.1234, 2.7001
    data = Dataset("mine", Samples({"": x}), Samples({"": x}))
    for call in (cimc.evaluate, lambda source, data: cimc.export(source, data=data)):
        with pytest.raises(CimcError, match=r"down to -2.12 but .* with --input-range -2.13,2.71 or --calibrate mine"):
            call(artifact, data)
    found = cimc.compile("net.onnx", "ideal", verify=False, calibrate=data).artifact.mapping.input_range
    assert found == pytest.approx((-2.1234, 2.7001))


def test_values_above_the_range_are_said_by_every_command() -> None:
    said_by("compile", "net.onnx", "-o", "net.cim", "--no-verify")
    said = {
        "train": said_by("train", "net.cim", "--data", "floats.npz", "--epochs", "1", "-o", "trained.cim"),
        "eval": said_by("eval", "net.cim", "--data", "floats.npz"),
        "export": said_by("export", "net.cim", "--data", "floats.npz", "-o", "package"),
        "deploy": said_by("deploy", "package", "--data", "floats.npz", "--chips", "1"),
    }
    for command, found in said.items():
        (line,) = (note for note in found["notes"] if "reaches" in note)
        assert "floats.npz reaches 255 but the network was compiled for inputs up to 1" in line, command
        assert f"{command}: {line}\n" in found["stderr"]
    assert not [note for note in said_by("eval", "net.cim", "--data", "bytes.npz")["notes"] if "reaches" in note]


@pytest.mark.parametrize(
    ("inputs", "options", "said"),
    [
        ({"x": np.ones((2, 3, 2, 2))}, {"input_range": (0, 1)}, "--input-range and --calibrate both"),
        ({"image": np.ones((2, 3, 2, 2))}, {}, "mine has image, no input of the network: it takes x"),
        ({"x": np.zeros((2, 3, 2, 2))}, {}, "mine has no input of floats that is not 0 everywhere"),
    ],
)
def test_data_that_gives_no_range_is_told(inputs: dict[str, Any], options: dict[str, Any], said: str) -> None:
    data = Dataset("mine", Samples(inputs), Samples(inputs))
    with pytest.raises(CimcError, match=said):
        cimc.compile("net.onnx", "ideal", verify=False, calibrate=data, **options)


def test_of_several_inputs_the_floats_count_and_those_without_data_are_named() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Add", ["h", "state"], ["next"]),
    ]
    sizes = {"x": ("N", 3), "state": ("N", 4)}
    save(network_proto(nodes, sizes, {"next": ("N", 4)}, {"W": weights(3, 4)}), "cell.onnx")
    x = np.array([[-7, 2, 3], [4, 5, 6]], np.float32)
    samples = Samples({"x": x})
    compiled = cimc.compile(
        "cell.onnx", "ideal", verify=False, calibrate=Dataset("mine", samples, samples, preprocess=Preprocess(0.5))
    )
    assert compiled.artifact.mapping.input_range == (-3.5, 3.0)
    assert compiled.notes[0].endswith("of mine; nothing is known of state")


@pytest.mark.parametrize(("low", "high"), [(-2.1179, 2.6401), (0.0, 1e-7), (-1234.5, 0.3), (0.0123456, 99999.0)])
def test_a_range_that_is_suggested_holds_all_values(low: float, high: float) -> None:
    least, most = map(float, outward(low, high).split(","))
    assert least <= low
    assert most >= high
    assert most - least <= 1.02 * (high - low)
