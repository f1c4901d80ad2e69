"""Training without a backward pass learns, resumes to the same bytes, counts conversions and refuses in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.dataset import Dataset
from tests.networks import network_proto, weights

STEPS = 40
OPTIONS = cimc.TrainingOptions(
    epochs=2,
    steps_per_epoch=STEPS,
    batch_size=16,
    lr=0.02,
    gradient=cimc.Gradient.activities,
    tangents=3,
    optimizer=cimc.Optimizer.frank_wolfe,
    frank_wolfe=cimc.FrankWolfe(radius=0.9, averaging=0.2),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Two classes that a line tells apart, of four numbers."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400).astype(np.int32)
    points = random.normal(size=(400, 4)).astype(np.float32) + np.float32(1.5) * (2 * labels[:, None] - 1)
    return Dataset(
        "points", cimc.Samples({"x": points[:300]}, labels[:300]), cimc.Samples({"x": points[300:]}, labels[300:])
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> cimc.Artifact:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="fc2"),
    ]
    constants = {"w1": weights(4, 8), "b1": weights(8), "w2": weights(8, 2, seed=1), "b2": weights(2)}
    folder = tmp_path_factory.mktemp("forward")
    onnx.save(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, constants), folder / "m.onnx")
    cimc.compile(folder / "m.onnx", "brram-soc", output=folder / "m.cim", verify=False, input_range=(-6, 6))
    return cimc.read_artifact(folder / "m.cim")  # once: the steps are compiled for what was read


class KilledError(Exception):
    """Ends a training in the middle."""


def kill(run: Any, total: int) -> None:
    if run.step > STEPS:
        raise KilledError


def test_a_run_that_was_killed_ends_with_the_same_bytes(compiled: cimc.Artifact, data: Dataset, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.cim", tmp_path / "cut.cim"
    trained = cimc.train(compiled, data, options=OPTIONS, output=whole)
    with pytest.raises(KilledError):
        cimc.train(compiled, data, options=OPTIONS, output=cut, checkpoint_seconds=0, progress=kill)
    assert STEPS <= cimc.read_artifact(cut).history["step"] < 2 * STEPS
    for other in (
        replace(OPTIONS, tangents=2),
        replace(OPTIONS, gradient=cimc.Gradient.backward),
        replace(OPTIONS, frank_wolfe=cimc.FrankWolfe()),
    ):
        with pytest.raises(cimc.CimcError, match="was started with other settings"):
            cimc.train(compiled, data, options=other, output=cut, resume=True)
    cimc.train(compiled, data, options=OPTIONS, output=cut, resume=True)
    assert cut.read_bytes() == whole.read_bytes()
    assert trained.figures["accuracy"] > 0.9


def test_conversions_are_those_of_every_column_once_a_step(compiled: cimc.Artifact, data: Dataset) -> None:
    """fc1 sees both signs and is read in two phases, fc2 follows a Relu; two columns hold a weight."""
    images = 2 * STEPS * 16
    forward = cimc.train(compiled, data, options=OPTIONS).figures
    assert forward["forward_conversions"] == images * (2 * 8 * 2 + 2 * 2)
    assert forward["backward_conversions"] == 0
    assert (forward["gradient"], forward["tangents"], forward["optimizer"]) == ("activities", 3, "frank-wolfe")
    policy = cimc.Policy(backward=cimc.Backward.analog)
    backward = replace(OPTIONS, gradient=cimc.Gradient.backward, optimizer=cimc.Optimizer.adam, policy=policy)
    analog = cimc.train(compiled, data, options=backward).figures
    assert analog["forward_conversions"] == forward["forward_conversions"]
    assert analog["backward_conversions"] == images * 2 * (4 + 8)
    assert analog["tangents"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gradient": "sideways"}, "gradient is 'sideways'; choose backward, weights, projected, activities"),
        ({"tangents": 0}, "tangents is 0; give a whole number of at least 1"),
        ({"policy": cimc.Policy(backward=cimc.Backward.analog)}, "has no backward pass that --backward analog"),
    ],
)
def test_what_does_not_go_together_is_refused(
    given: dict[str, Any], message: str, compiled: cimc.Artifact, data: Dataset
) -> None:
    with pytest.raises(cimc.CimcError, match=message) as caught:
        cimc.train(compiled, data, options=replace(OPTIONS, **given))
    assert "\n" not in str(caught.value)
