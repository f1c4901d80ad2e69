"""Optimisers, rate schedules, label smoothing, augmentation, validation: each against NumPy or by its definition."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cimc
from cimc.errors import CimcError
from cimc.options import Augment, Loss, Optimizer, RateSchedule
from runtime.training.augmentation import augment_images
from runtime.training.learning_rate import course, plateau_factor, stops_early
from runtime.training.losses import OutputLoss, total_loss
from runtime.training.optimizers import optimizer_of
from runtime.training.options import TrainingOptions

DECAY, UNIT = 0.1, 3.0


def three_steps(name: Optimizer) -> tuple[list[float], list[float]]:
    """Directions of one weight and of one digital parameter, both 0.5 all along, for the gradients 1, -2 and 0.5."""
    parameters = {"weight": (jnp.full(1, 0.5),), "digital": (jnp.full(1, 0.5),)}
    transform = optimizer_of(name, DECAY)
    state, weight, digital = transform.init(parameters), [], []
    for gradient in (1.0, -2.0, 0.5):
        both = {group: (jnp.full(1, gradient),) for group in parameters}
        directions, state = transform.update(both, state, parameters, units=(jnp.float32(UNIT),))
        weight.append(float(directions["weight"][0][0]))
        digital.append(float(directions["digital"][0][0]))
    return weight, digital


def adam_by_hand() -> list[float]:
    m = v = 0.0
    directions = []
    for step, gradient in enumerate((1.0, -2.0, 0.5), 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        directions.append(m / (1 - 0.9**step) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8))
    return directions


def test_three_steps_of_each_optimizer_by_hand() -> None:
    adam, decay = np.array(adam_by_hand()), DECAY * 0.5
    expected: dict[Optimizer, tuple[Any, Any]] = {
        Optimizer.adam: (UNIT * adam + decay, adam),
        Optimizer.adamw: (UNIT * adam + decay, adam + decay),
        # The running sums of the gradients with their decay: 1.05, 0.9 x 1.05 - 1.95, and so on.
        Optimizer.momentum: (UNIT * np.array([1.05, -1.005, -0.3545]), [1.0, -1.1, -0.49]),
        Optimizer.sgd: (UNIT * np.array([1.05, -1.95, 0.55]), [1.0, -2.0, 0.5]),
    }
    for name in expected:
        np.testing.assert_allclose(three_steps(name), expected[name], rtol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("plateau", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8)]),
        ("linear", [1 - n / 8 for n in range(8)]),
        ("exponential", [0.01 ** (n / 8) for n in range(8)]),
        ("step", [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
@pytest.mark.parametrize(("warmup", "rising"), [(0, 0), ("4", 4), ("2 epochs", 4), ("0.5epochs", 1)])
def test_the_course_of_the_rate_after_a_warm_up(schedule: Any, expected: Any, warmup: Any, rising: int) -> None:
    options = TrainingOptions(lr=0.02, schedule=schedule, warmup=warmup)
    rates = course(options, 8 + rising, per_epoch=2)
    ramp = [(n + 1) / rising for n in range(rising)]
    np.testing.assert_allclose(rates, 0.02 * np.array([*ramp, *expected]), rtol=1e-5, atol=1e-9)


def test_plateau_and_patience_look_at_the_validation_loss_where_there_is_one() -> None:
    falling = [{"loss": 1 / (n + 1), "validation": {"loss": float(abs(n - 2))}} for n in range(8)]
    plateau = TrainingOptions(schedule=RateSchedule.plateau)
    assert plateau_factor(plateau, falling) == 0.5
    assert plateau_factor(plateau, [{"loss": record["loss"]} for record in falling]) == 1
    assert plateau_factor(TrainingOptions(), falling) == 1
    patient = TrainingOptions(patience=3, validation=0.1)
    assert [stops_early(patient, falling[:n]) for n in range(8)] == [False] * 6 + [True] * 2


def test_label_smoothing_is_a_mixture_with_the_uniform_distribution() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
    labels = np.array([0, 2])
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(0.7 * log_p[[0, 1], labels] + 0.3 * log_p.mean(axis=1))
    loss = OutputLoss("y", Loss.cross_entropy, smoothing=0.3)
    found = total_loss((loss,), {"y": jnp.asarray(logits)}, {"y": jnp.asarray(labels)})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    masked = replace(loss, masked=True)
    found = total_loss((masked,), {"y": jnp.asarray(logits)}, {"y": jnp.asarray([0, -1])})
    np.testing.assert_allclose(found, -(0.7 * log_p[0, 0] + 0.3 * log_p[0].mean()), rtol=1e-6)


# --- Augmentation ---

IMAGES = np.random.default_rng(0).uniform(1, 2, (200, 3, 12, 10)).astype(np.float32)


def augmented(*wanted: Augment, seed: int = 0) -> Any:
    return np.asarray(augment_images(wanted, {"x": jnp.asarray(IMAGES)}, jax.random.key(seed))["x"])


def test_a_crop_is_a_window_of_the_padded_image_and_all_windows_occur() -> None:
    padded, seen = np.pad(IMAGES, ((0, 0), (0, 0), (4, 4), (4, 4))), set()
    for image, cropped in zip(padded, augmented(Augment.crop), strict=True):
        windows = [
            (row, column)
            for row in range(9)
            for column in range(9)
            if np.array_equal(image[:, row : row + 12, column : column + 10], cropped)
        ]
        assert len(windows) == 1
        seen.update(windows)
    assert {row for row, _ in seen} == {column for _, column in seen} == set(range(9))


def test_half_of_the_images_are_flipped() -> None:
    flipped = augmented(Augment.flip)
    turned = [np.array_equal(a, b[..., ::-1]) for a, b in zip(flipped, IMAGES, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    assert 70 < sum(turned) < 130
    assert sum(turned) + sum(same) == 200


def test_cutout_blanks_a_rectangle_of_half_the_size_in_all_channels() -> None:
    cut = augmented(Augment.cutout)
    blank = cut == 0
    np.testing.assert_array_equal(cut[~blank], IMAGES[~blank])
    assert (blank == blank[:, :1]).all()
    rows, columns = blank[:, 0].any(axis=2).sum(axis=1), blank[:, 0].any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(blank[:, 0].sum(axis=(1, 2)), rows * columns)
    assert rows.max() == 6
    assert columns.max() == 5
    assert min(rows.min(), columns.min()) < 4, "it never reaches over the edge"


def test_augmentations_follow_each_other_and_change_with_the_key() -> None:
    both = augmented(Augment.cutout, Augment.flip)
    assert (both == 0).any()
    assert not np.array_equal(both, augmented(Augment.cutout))
    np.testing.assert_array_equal(both, augmented(Augment.flip, Augment.cutout))
    assert not np.array_equal(both, augmented(Augment.flip, Augment.cutout, seed=1))


# --- What does not go together ---


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"optimizer": "adm"}, "did you mean adam"),
        ({"augment": "crop,turn"}, "augment is 'turn'; choose crop, flip, cutout"),
        ({"augment": 3}, "give names, with commas"),
        ({"patience": 2}, "--patience looks at validation samples; add --validation 0.1"),
        ({"keep": "best"}, "--keep best looks at validation samples; add --validation 0.1"),
        ({"warmup": "soon"}, "warmup is 'soon'; give a number of steps"),
        ({"warmup": "-1 epochs"}, "warmup is"),
        ({"warmup": -1}, "warmup is -1"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"validation": 1.5}, "validation is 1.5"),
    ],
)
def test_options_that_are_wrong_are_one_clear_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(CimcError) as caught:
        cimc.TrainingOptions(**wrong)
    assert said in str(caught.value)
