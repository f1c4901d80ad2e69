"""The generated digits: right form, repeatable, and neither trivial nor hopeless to classify."""

import numpy as np
import pytest

from cimc.data.digits import digits
from cimc.errors import CimcError


def test_images_have_the_form_of_mnist():
    x_train, y_train, x_test, y_test = digits(200, 100)
    assert x_train.shape == (200, 1, 28, 28)
    assert x_test.shape == (100, 1, 28, 28)
    assert x_train.dtype == x_test.dtype == np.uint8
    assert y_train.dtype == y_test.dtype == np.int32
    assert y_train.shape == (200,)


def test_strokes_are_white_on_black_and_centred():
    images = digits(500, 1)[0][:, 0].astype(float)
    assert np.median(images) < 20
    assert images.max(axis=(1, 2)).min() > 100
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert border.mean() < 8
    mass = images.sum(axis=(1, 2))
    for axis in (1, 2):
        centre = (images.sum(axis=axis) * np.arange(28)).sum(axis=1) / mass
        assert abs(centre.mean() - 13.5) < 0.5


def test_classes_are_balanced_and_shuffled():
    _, y_train, _, y_test = digits(1000, 55)
    assert (np.bincount(y_train) == 100).all()
    assert set(np.bincount(y_test, minlength=10)) == {5, 6}
    assert (y_train[:10] != np.arange(10)).any()


def test_same_seed_repeats_and_another_seed_differs():
    first, again, other = digits(60, 30, seed=3), digits(60, 30, seed=3), digits(60, 30, seed=4)
    assert all(np.array_equal(first[n], again[n]) for n in range(4))
    assert not np.array_equal(first[0], other[0])


def test_more_training_images_leave_the_test_images_alone():
    assert np.array_equal(digits(20, 30)[2], digits(70, 30)[2])


def test_training_and_test_images_do_not_coincide():
    x_train, _, x_test, _ = digits(100, 100)
    assert not any(np.array_equal(a, b) for a, b in zip(x_train, x_test, strict=True))


def test_a_linear_classifier_learns_but_does_not_solve_it():
    x_train, y_train, x_test, y_test = digits(4000, 1000)
    a, b = (np.c_[x.reshape(len(x), -1) / 255, np.ones(len(x))] for x in (x_train, x_test))
    weights = np.linalg.solve(a.T @ a + 10 * np.eye(a.shape[1]), a.T @ np.eye(10)[y_train])
    accuracy = (np.argmax(b @ weights, axis=1) == y_test).mean()
    assert 0.6 < accuracy < 0.95


@pytest.mark.parametrize(("train", "test", "seed"), [(0, 10, 0), (10, 0, 0), (10, 10, -1)])
def test_impossible_requests_are_refused(train: int, test: int, seed: int):
    with pytest.raises(CimcError, match="digits"):
        digits(train, test, seed)
