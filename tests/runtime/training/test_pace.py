"""Calls of few steps where steps are slow, and the same bits whatever their number."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api.compile import compile_model
from cimc.data.digits import digits
from cimc.dataset import Dataset
from runtime.training import pace
from runtime.training.pace import CALL_S, STEPS_PER_CALL, Pace
from runtime.training.run import Run
from tests.networks import network_proto, weights


def test_slow_steps_are_few_a_call_and_fast_ones_are_not_waited_for() -> None:
    compiled = Pace().after(1, 30.0)
    assert compiled == Pace(1, waits=True)
    assert compiled.after(1, CALL_S / 5) == Pace(5, waits=True)
    assert compiled.after(1, CALL_S * 5) == Pace(1, waits=True)
    assert compiled.after(1, 0.0) == Pace(STEPS_PER_CALL, waits=False)


def test_a_training_has_the_same_bits_in_calls_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], name="fc1")]
    model = network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, {"w": weights(784, 10)})
    onnx.save(model, tmp_path / "one.onnx")
    artifact = compile_model(tmp_path / "one.onnx", "brram-soc", verify=False).artifact
    data = Dataset.of_images("digits", *digits(200, 40), synthetic=True, classes=10)
    runs, calls = [], []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(pace, "CALL_S", seconds)
        options = cimc.TrainingOptions(epochs=1, steps_per_epoch=30, batch_size=8, lr=0.02)
        shown: list[int] = []

        def show(run: Run, total: int, shown: list[int] = shown) -> None:
            shown.append(run.step)

        runs.append(cimc.train(artifact, data, options=options, progress=show))
        calls.append(len(shown))
    assert calls[0] == 30 > calls[1]
    one, other = (run.artifact.state for run in runs)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
