"""Samples and what a network sees of them: by NumPy alone, and the same for JAX."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from onnx import helper, save

import cimc
from cimc.api.checkpoint import calibration_samples
from cimc.artifact import Artifact
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from tests.networks import network_proto, weights

BYTES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 2), np.uint8)
MEAN, STD = (0.5, 0.25, 0.125), (2.0, 0.5, 0.25)


def normalised(images: np.ndarray) -> np.ndarray:
    """uint8 images, channels first, value by value."""
    seen = np.empty(images.shape, np.float32)
    for place, value in np.ndenumerate(images):
        seen[place] = (value / 255 - MEAN[place[1]]) / STD[place[1]]
    return seen


@pytest.mark.parametrize("kind", [np.asarray, jax.numpy.asarray])
def test_what_is_seen_of_images_is_scaled_and_normalised_by_channel(kind: Any) -> None:
    first = Preprocess(1 / 255, MEAN, STD)
    np.testing.assert_allclose(first.apply(kind(BYTES)), normalised(BYTES), rtol=0, atol=1e-6)
    last = Preprocess(1 / 255, MEAN, STD, channels_last=True)
    stored = np.moveaxis(BYTES, 1, -1)
    assert stored.shape == (5, 4, 2, 3)
    np.testing.assert_array_equal(last.apply(kind(stored)), first.apply(kind(BYTES)))
    assert first.apply(kind(BYTES)).dtype == np.float32


def test_one_mean_serves_all_channels_and_flat_samples() -> None:
    np.testing.assert_array_equal(Preprocess(mean=(1.0,), std=(2.0,)).apply(np.full((2, 3, 2), 5)), 2.0)
    np.testing.assert_array_equal(Preprocess(mean=(1.0, 2.0)).apply(np.full((3, 2), 5)), [[4.0, 3.0]] * 3)


@pytest.mark.parametrize("wrong", [{"std": (1.0, 0.0)}, {"std": (-1.0,)}, {"mean": (float("nan"),)}, {"scale": np.inf}])
def test_a_preprocessing_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CimcError, match="finite numbers, --std above 0"):
        Preprocess(**wrong)


def test_means_of_other_channels_than_the_data_has_are_refused_and_not_spread_over_them() -> None:
    with pytest.raises(CimcError, match="--mean has 2 values but the data has 1 channels: give one, or one a channel"):
        Preprocess(mean=(1.0, 2.0)).apply(np.zeros((3, 1, 2), np.float32))
    with pytest.raises(CimcError, match="--std has 3 values but the data has 4 channels"):
        Preprocess(std=(1.0, 2.0, 3.0), channels_last=True).apply(np.zeros((5, 3, 4), np.float32))


def test_samples_are_taken_with_their_labels() -> None:
    samples = Samples({"a": np.arange(4), "b": np.arange(8).reshape(4, 2)}, {"y": np.arange(4) * 10})
    some = samples.take(np.array([2, 0]))
    assert (len(samples), len(some)) == (4, 2)
    assert some.inputs["a"].tolist() == [2, 0]
    assert some.inputs["b"].tolist() == [[4, 5], [0, 1]]
    assert isinstance(some.labels, dict)
    assert some.labels["y"].tolist() == [20, 0]
    assert samples.take(slice(1, 3)).inputs["a"].tolist() == [1, 2]
    assert Samples({"": np.arange(4)}).take(slice(2)).labels is None


def test_pixels_are_seen_from_0_to_1_and_tokens_as_they_are() -> None:
    labels = np.zeros(5, np.int32)
    assert Dataset.of_images("x", BYTES, labels, BYTES, labels).preprocess == Preprocess(1 / 255)
    tokens = BYTES.astype(np.int32)
    assert Dataset.of_images("x", tokens, labels, tokens, labels).preprocess == Preprocess()


def test_files_of_before_kept_a_scale_of_their_calibration_images(artifact_of_before: Artifact) -> None:
    kept = calibration_samples(artifact_of_before)
    assert kept is not None
    assert kept[1] == Preprocess(1 / 255)
    np.testing.assert_array_equal(kept[0].inputs[""], BYTES)


@pytest.fixture
def artifact_of_before() -> Artifact:
    nothing: Any = None
    state = {"calibration/images": BYTES}
    return Artifact("m", nothing, nothing, "", nothing, state, {"scale": 1 / 255})


def test_prepared_images_train_as_those_that_are_prepared_when_they_are_read(tmp_path: Path) -> None:
    """From a folder, bytes with their channels last; and in memory, what the network is to see."""
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (32, 2, 4, 4), np.uint8), random.integers(0, 3, 32)
    convolution = helper.make_node("Conv", ["x", "k"], ["c"], name="conv", pads=[1, 1, 1, 1])
    flat = helper.make_node("Flatten", ["c"], ["f"])
    product = helper.make_node("MatMul", ["f", "w"], ["y"], name="fc")
    constants = {"k": weights(2, 2, 3, 3), "w": weights(32, 3)}
    model = network_proto([convolution, flat, product], {"x": ["N", 2, 4, 4]}, {"y": ["N", 3]}, constants)
    save(model, tmp_path / "m.onnx")
    compiled = cimc.compile(tmp_path / "m.onnx", "ideal", input_range=(-2.0, 2.0), verify=False).artifact
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.moveaxis(images, 1, -1))
    np.save(tmp_path / "data" / "labels.npy", labels)
    mean, std = (0.5, 0.25), (0.5, 1.0)
    stored = cimc.load_data(tmp_path / "data", mean=mean, std=std, channels_last=True)
    samples = Samples({"x": Preprocess(1 / 255, mean, std).apply(images)}, labels.astype(np.int32))
    options = cimc.TrainingOptions(cimc.Policy(method="float"), epochs=1, steps_per_epoch=4, batch_size=8)
    one, two = (cimc.train(compiled, data, options=options) for data in (stored, Dataset("seen", samples, samples)))
    assert one.figures["loss"] == pytest.approx(two.figures["loss"], rel=1e-5)
    for name in ("weight/conv", "weight/fc"):
        np.testing.assert_allclose(one.artifact.state[name], two.artifact.state[name], rtol=1e-4, atol=1e-6)
    assert not np.allclose(one.artifact.state["weight/fc"], constants["w"], atol=1e-3), "nothing was learnt"
    assert one.artifact.state["calibration/images"].dtype == np.uint8
    kept = calibration_samples(one.artifact)
    assert kept is not None
    assert kept[1] == stored.preprocess
