"""Stored samples for the inputs of a network: which is which, what does not fit, and what the network sees."""

from typing import Any

import numpy as np
import pytest

from cimc.dataset import Preprocess, Samples, input_bounds
from cimc.errors import CimcError
from runtime.system.inputs import Shapes, check_tokens, match_inputs, network_inputs

FLOAT, INT, BOOL = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)
IMAGE: Shapes = {"image": ((None, 3, 4, 2), FLOAT)}
MIXED: Shapes = {
    "tokens": ((None, 6), INT),
    "mask": ((None, 6), BOOL),
    "speed": ((None,), FLOAT),
    "image": ((None, 3, 4, 2), FLOAT),
}
STORED: dict[str, np.ndarray] = {
    "image": np.full((2, 3, 4, 2), 255, np.uint8),
    "speed": np.array([7.0, 8.0]),
    "mask": np.ones((2, 6), np.uint8),
    "tokens": np.full((2, 6), 5, np.uint8),
}


def test_arrays_without_a_name_are_the_only_input() -> None:
    images = np.zeros((2, 24))
    matched = match_inputs(Samples({"": images}, np.arange(2)), IMAGE)
    assert list(matched.inputs) == ["image"]
    assert matched.inputs["image"] is images
    assert network_inputs(matched.inputs, IMAGE, Preprocess())["image"].shape == (2, 3, 4, 2)


def test_inputs_of_every_type_by_name() -> None:
    matched = match_inputs(Samples(STORED), MIXED)
    assert list(matched.inputs) == list(MIXED)
    seen = network_inputs(matched.inputs, MIXED, Preprocess(1 / 255, mean=(0.5,)))
    assert [seen[name].dtype for name in MIXED] == [np.int32, np.bool_, np.float32, np.float32]
    assert seen["tokens"].max() == 5
    assert seen["speed"].tolist() == [7.0, 8.0]
    assert set(seen["image"].ravel()) == {0.5}


def test_channels_that_are_last_come_first_before_anything_is_flattened() -> None:
    stored = np.arange(48, dtype=np.float32).reshape(2, 4, 2, 3)
    preprocess = Preprocess(channels_last=True)
    assert match_inputs(Samples({"": stored}), IMAGE, preprocess)
    flat: Shapes = {"x": ((None, 24), FLOAT)}
    for wanted, shape in ((IMAGE, (2, 3, 4, 2)), (flat, (2, 24))):
        (seen,) = network_inputs(
            match_inputs(Samples({"": stored}), wanted, preprocess).inputs, wanted, preprocess
        ).values()
        np.testing.assert_array_equal(seen, np.moveaxis(stored, -1, 1).reshape(shape))


@pytest.mark.parametrize(
    ("inputs", "wanted", "said"),
    [
        ({"": np.zeros((2, 6))}, MIXED, "one array of samples but the network takes tokens, mask, speed, image"),
        ({"image": STORED["image"], "mask": STORED["mask"]}, MIXED, "lacks tokens, speed"),
        ({**STORED, "other": np.zeros(2)}, MIXED, "has other, no input of the network"),
        ({"": np.zeros((2, 4, 2, 3))}, IMAGE, "4x2x3 a sample of image but the network takes 3x4x2"),
        ({"": np.zeros((2, 23))}, IMAGE, "23 a sample of image"),
        ({"": np.zeros((2, 5))}, {"x": ((None, 3, None), FLOAT)}, "5 a sample of x but the network takes 3x\\?"),
        ({"": np.zeros((2, 4, 5))}, {"x": ((None, 3, None), FLOAT)}, "4x5 a sample of x"),
        ({"": np.zeros((2, 6))}, {"x": ((None, 6), INT)}, "float64 for x but the network takes int64"),
        ({"": np.zeros((2, 6))}, {"x": ((None, 6), BOOL)}, "float64 for x but the network takes bool"),
        ({"": np.zeros((2, 6))}, {"x": ((None,), FLOAT)}, "6 a sample of x but the network takes one value"),
    ],
)
def test_what_does_not_fit_is_told(inputs: dict[str, Any], wanted: Shapes, said: str) -> None:
    with pytest.raises(CimcError, match=said) as error:
        match_inputs(Samples(inputs), wanted)
    assert "\n" not in str(error.value)


def test_a_mean_for_every_channel_or_one_for_all() -> None:
    match_inputs(Samples({"": STORED["image"]}), IMAGE, Preprocess(mean=(1.0, 2.0, 3.0), std=(2.0,)))
    with pytest.raises(CimcError, match="mean has 2 values but image has 3 channels"):
        match_inputs(Samples({"": STORED["image"]}), IMAGE, Preprocess(mean=(1.0, 2.0)))


def test_tokens_beyond_their_table_are_told() -> None:
    check_tokens({"x": np.array([[0, 4]])}, {"x": 5})
    for wrong in (5, -1):
        with pytest.raises(CimcError, match=rf"the token {wrong} for x but the network's table has 5 entries"):
            check_tokens({"x": np.array([[0, wrong]])}, {"x": 5})


@pytest.mark.parametrize("last", [False, True])
def test_the_bounds_are_those_of_what_is_seen(last: bool) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 2), np.uint8)
    stored = np.moveaxis(stored, 1, -1) if last else stored
    preprocess = Preprocess(1 / 255, (0.1, 0.5, 0.9), (0.1, 0.2, 0.3), last)
    seen = preprocess.apply(stored)
    assert input_bounds(stored, preprocess) == (seen.min(), seen.max())
