"""Bad networks, chips, data: exit status 1, one line on stderr that says what, where, what to do; no partial file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.artifact import read_artifact, write_artifact
from cimc.chip import chip_text, load_chip
from cimc.chip_to_toml import chip_to_toml
from tests.cimc.errors.refusals import CONSTANTS, LAYER, cimc, data, refused, save

LENET1 = str(Path(__file__).parents[3] / "models" / "lenet1.onnx")


# --- the network ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile", "none.onnx", "-o", "new.cim"],
        ["train", "none.cim", "--data", "data.npz", "-o", "new.cim"],
        ["eval", "none.cim", "--data", "data.npz"],
        ["export", "none.cim", "-o", "new"],
        ["deploy", "none", "--data", "data.npz"],
        ["inspect", "none.cim"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_missing_file(arguments):
    message = refused(*arguments)
    assert arguments[1] in message
    assert any(words in message for words in ("there is no such file; check", "does not exist; make", "is missing"))


@pytest.mark.parametrize("content", [b"", b"weights: 3\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04"])
def test_file_that_is_not_onnx(place, content):
    (place / "bad.onnx").write_bytes(content)
    message = refused("compile", "bad.onnx", "-o", "new.cim")
    assert "bad.onnx" in message
    assert "not an ONNX file" in message
    assert "export or copy it again" in message


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.5, 0.9, 0.99])
def test_truncated_onnx_file(place, kept):
    whole = Path(LENET1).read_bytes()
    (place / "cut.onnx").write_bytes(whole[: int(kept * len(whole))])
    message = refused("compile", "cut.onnx", "-o", "new.cim")
    assert "cut.onnx" in message
    assert "again" in message


def test_unsupported_operator(place):
    save(place / "sine.onnx", [*LAYER, helper.make_node("RandomNormalLike", ["y"], ["z"], name="wave")], ["z"])
    message = refused("compile", "sine.onnx", "-o", "new.cim")
    assert "RandomNormalLike 'wave' is not supported" in message


@pytest.mark.parametrize("options", [[], ["--json"], ["--no-verify"]], ids=str)
@pytest.mark.parametrize("constant", ["W", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_model_with_weights_that_are_no_numbers(place, options, constant, value):
    array = CONSTANTS[constant].copy()
    array.flat[1] = value
    changes: dict[str, Any] = {constant: array}
    save(place / "nan.onnx", **changes)
    message = refused("compile", "nan.onnx", "-o", "new.cim", *options)
    assert "NaN" in message
    assert "fc" in message or f"'{constant}'" in message


@pytest.mark.parametrize("command", ["train", "eval", "export"])
def test_compiled_network_with_nan_weights(place, command):
    artifact = read_artifact(place / "small.cim")
    network = ir.to_proto(artifact.network)
    (layer,) = (node for node in network.graph.node if node.name == "fc")
    (weight,) = (tensor for tensor in network.graph.initializer if tensor.name == layer.input[1])
    array = onnx.numpy_helper.to_array(weight).copy()
    array[5, 2] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    write_artifact(place / "nan.cim", replace(artifact, network=ir.from_proto(network)))
    output = {"train": ["-o", "new.cim"], "eval": [], "export": ["-o", "new"]}[command]
    message = refused(command, "nan.cim", "--data", "data.npz", *output)
    assert "the weights of fc hold NaN or infinity; export the model again" in message


def test_labels_of_a_network_with_two_outputs_name_theirs(place):
    save(place / "two.onnx", [*LAYER, helper.make_node("Relu", ["y"], ["z"])], ["y", "z"])
    assert cimc("compile", "two.onnx", "--chip", "brram-soc", "-o", "two.cim")[0] == 0
    message = refused("train", "two.cim", "--data", "data.npz", "-o", "new.cim")
    assert "data.npz: the network has the outputs y, z; name the one of the labels: labels/OUTPUT" in message


def test_eval_of_layers_without_arrays():
    message = refused("eval", "small.cim", "--data", "data.npz", "--layers", "--exact")
    assert "--layers compares the arrays with float32, and --exact leaves them out; give one of them" in message


def test_eval_of_a_network_with_two_outputs(place):
    save(place / "two.onnx", [*LAYER, helper.make_node("Relu", ["y"], ["z"])], ["y", "z"])
    assert cimc("compile", "two.onnx", "--chip", "brram-soc", "-o", "two.cim")[0] == 0
    message = refused("eval", "two.cim", "--data", "data.npz")
    assert "data.npz has labels without a name" in message
    assert "outputs are y, z: name them labels/NAME" in message


# --- the chip ---


@pytest.mark.parametrize(
    "command",
    [["train", "wide.cim", "-o", "new.cim"], ["eval", "wide.cim"], ["export", "wide.cim", "-o", "new"]],
    ids=lambda command: command[0],
)
def test_chip_that_is_not_simulated(place, command):
    chip = load_chip("isaac", settings={"input": {"bits": 32}})
    Path("wide.toml").write_text(chip_to_toml(chip), encoding="utf-8")
    assert cimc("compile", "small.onnx", "--chip", "wide.toml", "-o", "wide.cim")[0] == 0
    assert cimc("inspect", "wide.cim")[0] == 0
    message = refused(*command, "--data", "data.npz")
    assert "isaac is not simulated (inputs of more than 23 bits)" in message
    assert "need fewer" in message


def test_budget_without_an_objective(place):
    assert "add --objective" in refused("compile", "small.onnx", "--chip", "brram-soc", "--arrays", "4")


def test_budget_that_the_network_does_not_fit(place):
    command = ["compile", "small.onnx", "--chip", "brram-soc", "--objective", "interval", "--arrays", "1"]
    text = chip_text("brram-soc").replace("rows = 64 ", "rows = 4 ").replace("columns = 64", "columns = 8")
    (place / "tiny.toml").write_text(text, encoding="utf-8")
    message = refused(*command[:3], "tiny.toml", *command[4:])
    assert "has no cost.row_write_us to program them anew with; raise --arrays" in message


@pytest.mark.parametrize("command", [["compile", "small.onnx"], ["export", "trained.cim"]], ids=lambda c: c[0])
def test_unknown_chip(command):
    message = refused(*command, "--chip", "brram-sock", "-o", "new")
    assert "unknown chip 'brram-sock'" in message
    assert "did you mean brram-soc?" in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("range_uA", "range_mA", ("adc.range_mA", "wrong unit", "the key is range_uA")),
        ("read_noise_uS", "reed_noise_uS", ("unknown key cell.reed_noise_uS", "did you mean read_noise_uS?")),
        ("rows = 64", "rows = -64", ("array.rows", "greater than 0", "correct it")),
    ],
    ids=["wrong unit", "unknown key", "out of range"],
)
def test_chip_file_with_a_fault(place, old, new, words):
    (place / "my.toml").write_text(chip_text("brram-soc").replace(old, new), encoding="utf-8")
    message = refused("compile", "small.onnx", "--chip", "my.toml", "-o", "new.cim")
    for word in ("my.toml", *words):
        assert word in message


def test_missing_chip_file():
    message = refused("compile", "small.onnx", "--chip", "none.toml", "-o", "new.cim")
    assert "cannot read chip file none.toml" in message


def test_too_few_arrays():
    message = refused("compile", LENET1, "--chip", "brram-soc", "--max-chips", "1", "-o", "new.cim")
    assert "needs 6 arrays but 1 x brram-soc has 4" in message
    assert "raise --max-chips to 2 or choose a larger chip" in message


# --- the data ---


@pytest.mark.parametrize("command", ["train", "eval", "export", "deploy"])
@pytest.mark.parametrize("name", ["mnist", "none.npz"])
def test_missing_data(made, command, name):
    source = {"train": "small.cim", "deploy": str(made / "package")}.get(command, "trained.cim")
    output = {"train": ["-o", "new.cim"], "export": ["-o", "new"]}.get(command, [])
    message = refused(command, source, "--data", name, *output)
    assert name in message
    assert "put the files there" in message or "check the path" in message


@pytest.mark.parametrize("command", ["train", "eval", "export", "deploy"])
def test_data_of_another_shape(place, made, command):
    images = np.zeros((64, 1, 9, 9), np.uint8)
    np.savez(place / "large.npz", **data(x_train=images, x_test=images))
    source = {"train": "small.cim", "deploy": str(made / "package")}.get(command, "trained.cim")
    output = {"train": ["-o", "new.cim"], "export": ["-o", "new"]}.get(command, [])
    message = refused(command, source, "--data", "large.npz", *output)
    assert "large.npz" in message
    assert "1x9x9" in message
    assert "the network takes 1x8x8; choose data of that shape" in message


@pytest.mark.parametrize("array", ["x_train", "x_test"])
def test_nan_in_data(place, array):
    images = {key: np.full((64, 1, 8, 8), 0.5, np.float32) for key in ("x_train", "x_test")}
    images[array][3, 0, 2, 1] = np.nan
    np.savez(place / "nan.npz", **data(**images))
    message = refused("train", "small.cim", "--data", "nan.npz", "-o", "new.cim")
    assert f"nan.npz: {array} holds NaN or infinite values" in message
    assert "remove or replace them" in message


def test_data_file_that_is_not_npz(place):
    (place / "bad.npz").write_bytes(b"not a zip")
    message = refused("eval", "small.cim", "--data", "bad.npz")
    assert "bad.npz" in message
    assert "save it with np.savez" in message


@pytest.mark.parametrize("command", ["train", "eval"])
def test_labels_beyond_the_outputs_of_the_network(place, command):
    np.savez(place / "nine.npz", **data(**{key: np.arange(64, dtype=np.int32) % 9 for key in ("y_train", "y_test")}))
    message = refused(command, "small.cim", "--data", "nine.npz", *(["-o", "new.cim"] if command == "train" else []))
    assert "nine.npz" in message
    assert "9" in message
    assert "4" in message
