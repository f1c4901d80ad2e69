"""Training with the recipes of `cimc train`: what a run with them ends with, and that a resumed one ends the same."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api.compile import compile_model
from cimc.artifact import Artifact
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.errors import CimcError
from tests.networks import network_proto, weights

STEPS = 12  # of an epoch


def network() -> Any:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv1", strides=[7, 7]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="fc1"),
    ]
    one = np.ones(4, np.float32)
    norm = {"scale": one, "shift": 0 * one, "mean": 0 * one, "var": one}
    constants = {"w1": weights(4, 1, 7, 7), "b1": weights(4), "w2": 0.3 * weights(64, 10), "b2": weights(10), **norm}
    return network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset.of_images("digits", *digits(300, 60), synthetic=True, classes=10)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("network") / "small.onnx"
    onnx.save(network(), path)
    return compile_model(path, "brram-soc", verify=False).artifact


def options(**given: Any) -> cimc.TrainingOptions:
    return cimc.TrainingOptions(**{"epochs": 3, "steps_per_epoch": STEPS, "batch_size": 16, "lr": 0.02, **given})


def same(one: Artifact, other: Artifact) -> bool:
    return one.state.keys() == other.state.keys() and all(
        np.array_equal(array, other.state[name], equal_nan=True) for name, array in one.state.items()
    )


class KilledError(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "momentum", "schedule": "step", "augment": "crop,flip,cutout", "label_smoothing": 0.1},
        {"optimizer": "adamw", "warmup": "1 epochs", "validation": 0.2, "keep": "best", "lr": 0.1},
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    recipe: dict[str, Any], compiled: Artifact, data: Dataset, tmp_path: Path
) -> None:
    whole = cimc.train(compiled, data, options=options(**recipe))

    def kill(run: Any, total: int) -> None:
        if run.step > 2 * STEPS:
            raise KilledError

    path = tmp_path / "killed.cim"
    with pytest.raises(KilledError):
        cimc.train(compiled, data, options=options(**recipe), output=path, checkpoint_seconds=0, progress=kill)
    resumed = cimc.train(compiled, data, options=options(**recipe), output=path, resume=True)
    assert same(whole.artifact, resumed.artifact)
    assert not any(name.startswith("best/") for name in resumed.artifact.state)
    again = cimc.train(compiled, data, options=options(**recipe), output=path, resume=True)
    assert same(whole.artifact, again.artifact)
    assert again.figures["accuracy"] == whole.figures["accuracy"]


def test_the_best_epoch_by_validation_is_kept_and_the_run_stops_early(compiled: Artifact, data: Dataset) -> None:
    # A rate that rises makes the first epochs the best.
    notes: list[str] = []
    given = {"epochs": 12, "lr": 0.5, "warmup": "9 epochs", "validation": 0.2, "patience": 2}
    kept = cimc.train(compiled, data, options=options(keep="best", **given), note=notes.append)
    losses = [record["validation"]["loss"] for record in kept.run.history]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 12
    assert notes[-1] == f"no lower validation loss for 2 epochs: ends after epoch {len(losses)}"
    assert kept.figures["best_epoch"] == best + 1
    assert kept.figures["accuracy"] == kept.run.history[best]["accuracy"]
    assert kept.artifact.history["steps"] == kept.artifact.history["step"] == len(losses) * STEPS
    # The state of that epoch: what a run has after so many epochs. The counts are of the whole run.
    states: list[Any] = []

    def watch(run: Any, total: int) -> None:
        if run.step == (best + 1) * STEPS:
            states.append({name: np.array(array) for name, array in run.state["weight"].items()})

    cimc.train(compiled, data, options=options(**given), progress=watch)
    for name, weight in states[0].items():
        np.testing.assert_array_equal(kept.artifact.state[f"weight/{name}"], weight)
    assert kept.figures["updates"] == kept.run.history[-1]["updates"]


def test_validation_samples_are_not_trained_on(compiled: Artifact, data: Dataset) -> None:
    trained = cimc.train(compiled, data, options=options(epochs=1, validation=0.2))
    assert trained.artifact.history["options"]["images"] == 240
    with pytest.raises(CimcError, match=r"--validation 0.001 of 300 training samples leaves one part empty"):
        cimc.train(compiled, data, options=options(validation=0.001))


def test_smoothing_without_classes_and_augmentation_without_images_are_one_line(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="fc1")]
    onnx.save(network_proto(nodes, {"x": ["N", 784]}, {"y": ["N", 10]}, {"w": weights(784, 10)}), path)
    flat = compile_model(path, "brram-soc", verify=False).artifact
    with pytest.raises(CimcError, match=r"--augment changes images \[N, C, height, width\], and the network's input x"):
        cimc.train(flat, data, options=options(augment="flip"))
    with pytest.raises(CimcError, match="--label-smoothing is of cross-entropy"):
        cimc.train(flat, data, options=options(loss="distill", label_smoothing=0.1))
