"""Reads through the wires of arrays, in compiled programs: of chips side by side, and of a training step."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.chip import load_chip
from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.options import Backward
from runtime.training.options import Policy, TrainingOptions
from tests.networks import network_proto, weights

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(0, 1, (24, 6)).astype(np.float32)
DATA = Dataset(
    "mine",
    Samples({"x": X}, RANDOM.integers(0, 3, 24).astype(np.int32)),
    Samples({"x": X}, RANDOM.integers(0, 3, 24).astype(np.int32)),
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wires")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "dense")
    onnx.save(network_proto([node], {"x": ["N", 6]}, {"y": ["N", 3]}, {"w": weights(6, 3)}), folder / "net.onnx")
    wires = {"ir_drop": "static", "word_line_ohm": 5.0, "bit_line_ohm": 5.0}
    chip = load_chip("brram-256x64", settings={"wires": wires, "array": {"rows": 16, "columns": 16}})
    cimc.compile(folder / "net.onnx", chip, output=folder / "net.cim", verify=False)
    return folder


def test_a_training_step_reads_through_the_wires(compiled: Path) -> None:
    trained = cimc.train(compiled / "net.cim", DATA, options=TrainingOptions(epochs=1, steps_per_epoch=1, batch_size=8))
    assert trained.artifact.state


def test_chips_side_by_side_read_what_each_reads_alone(compiled: Path) -> None:
    cimc.export(compiled / "net.cim", output=compiled / "package", data=DATA)
    together = cimc.deploy(compiled / "package", DATA, chips=8, seed=1)
    first = cimc.deploy(compiled / "package", DATA, chips=1, seed=1)
    assert len(together.accuracies) == 8
    assert first.baseline_accuracy == together.baseline_accuracy
    assert cimc.verify(compiled / "package")["model_onnx"] < 1e-3


def test_transposed_reads_are_of_pairs_in_columns(compiled: Path) -> None:
    cimc.compile(compiled / "net.onnx", "neurram", output=compiled / "rows.cim", verify=False)
    with pytest.raises(CimcError, match="transposed reads need pairs of devices in columns"):
        cimc.train(
            compiled / "rows.cim",
            DATA,
            options=TrainingOptions(epochs=1, steps_per_epoch=1, policy=Policy(backward=Backward.analog)),
        )
