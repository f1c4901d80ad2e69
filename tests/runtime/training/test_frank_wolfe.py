"""Frank-Wolfe: three steps by hand for each set, NumPy's sets, and no target outside of the window."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import CimcError
from cimc.options import Constraint, Optimizer
from runtime.training import frank_wolfe
from runtime.training.frank_wolfe import FrankWolfe, vertex
from runtime.training.options import Policy, TrainingOptions
from runtime.training.vectors import pack, packing, unpack

SETS = pytest.mark.parametrize("constraint", list(Constraint))


def walk(
    options: FrankWolfe, start: npt.ArrayLike, gradients: Sequence[npt.ArrayLike], weight_range: float, rate: float
) -> list[npt.NDArray[np.float32]]:
    """The weights of one layer after each step."""
    weights = {"layer": jnp.asarray(start, jnp.float32)}
    packed, course = packing(weights), []
    theta, memory = pack(packed, weights), frank_wolfe.init(pack(packed, weights))
    for gradient in gradients:
        g = pack(packed, {"layer": jnp.asarray(gradient, jnp.float32)})
        ranges = {"layer": jnp.float32(weight_range)}
        steps, memory = frank_wolfe.update(options, packed, g, memory, theta, ranges, jnp.float32(rate))
        theta = tuple(t + step for t, step in zip(theta, steps, strict=True))
        course.append(np.asarray(unpack(packed, theta)["layer"]))
    return course


# Two weights of 0.5 and -1 in a window of +-2, rate 1/4, each new gradient half of the average. Gradients (4, 1),
# (-8, 1), (2, -6) make the averages (2, 0.5), (-3, 0.75), (-0.5, -2.625).
GRADIENTS = [np.array([[4.0], [1.0]]), np.array([[-8.0], [1.0]]), np.array([[2.0], [-6.0]])]
R = np.sqrt(2) * 2  # of the ball: radius 1, two weights
BY_HAND = {
    # goals (-2, -2), (2, -2), (2, 2)
    Constraint.box: [(-0.125, -1.25), (0.40625, -1.4375), (0.8046875, -0.578125)],
    # goals (-2, 0), (2, 0), (0, 2): one of the two weights
    Constraint.k_sparse: [(-0.125, -0.75), (0.40625, -0.5625), (0.3046875, 0.078125)],
    Constraint.l2_ball: [
        (0.375 - R / 4 * 2 / np.hypot(2, 0.5), -0.75 - R / 4 * 0.5 / np.hypot(2, 0.5)),
        (
            0.75 * (0.375 - R / 4 * 2 / np.hypot(2, 0.5)) + R / 4 * 3 / np.hypot(3, 0.75),
            0.75 * (-0.75 - R / 4 * 0.5 / np.hypot(2, 0.5)) - R / 4 * 0.75 / np.hypot(3, 0.75),
        ),
    ],
}


@SETS
def test_three_steps_are_those_made_by_hand(constraint: Constraint) -> None:
    options = FrankWolfe(constraint, density=0.5, averaging=0.5)
    wanted = BY_HAND[constraint]
    if constraint is Constraint.l2_ball:
        x, y = wanted[1]
        length = np.hypot(0.5, 2.625)
        wanted = [*wanted, (0.75 * x + R / 4 * 0.5 / length, 0.75 * y + R / 4 * 2.625 / length)]
    found = walk(options, np.array([[0.5], [-1.0]]), GRADIENTS, 2.0, 0.25)
    np.testing.assert_allclose([step[:, 0] for step in found], wanted, rtol=1e-5)


def test_the_average_falls_with_the_steps_by_default_and_begins_at_the_first_gradient() -> None:
    options = FrankWolfe(Constraint.l2_ball)
    found = walk(options, np.zeros((2, 1)), GRADIENTS[:2], 1.0, 1.0)
    d = GRADIENTS[0]
    for number, gradient in enumerate(GRADIENTS[:2]):
        share = 4 / (number + 8) ** (2 / 3)
        d = (1 - share) * d + share * gradient
        unit = np.clip(-np.sqrt(2) * d / np.linalg.norm(d), -1, 1)
        np.testing.assert_allclose(found[number], unit, rtol=1e-5)


@SETS
def test_a_vertex_is_in_its_set_and_no_point_of_the_set_lies_farther(constraint: Constraint) -> None:
    """Against random points of the set, ranges a column among them."""
    random = np.random.default_rng(0)
    d, w = random.normal(size=(6, 4)), random.uniform(0.5, 2, 4)
    options = FrankWolfe(constraint, radius=0.5, density=0.25)
    s = np.asarray(vertex(options, jnp.asarray(d, jnp.float32), jnp.asarray(w, jnp.float32)), np.float64)
    points = random.normal(size=(2000, 6, 4))
    if constraint is Constraint.l2_ball:
        points *= w * 0.5 * np.sqrt(24) / np.linalg.norm(points, axis=(1, 2), keepdims=True)
        assert np.linalg.norm(s / w) == pytest.approx(0.5 * np.sqrt(24), rel=1e-5)
    else:
        points = np.clip(points, -1, 1) * w * 0.5
        assert np.max(np.abs(s / w)) == pytest.approx(0.5)
        if constraint is Constraint.k_sparse:
            dropped = np.argsort(random.uniform(size=(2000, 24)), axis=1) >= 6
            points[dropped.reshape(points.shape)] = 0
            assert np.count_nonzero(s) == 6
    assert np.sum(s * d) <= np.min(np.sum(points * d, axis=(1, 2))) + 1e-5


def test_equal_gradients_move_no_more_weights_than_the_density_says() -> None:
    s = vertex(FrankWolfe(Constraint.k_sparse, density=0.3), jnp.ones((5, 4)), jnp.float32(1))
    assert np.count_nonzero(s) == 6


@SETS
def test_without_a_gradient_weights_shrink_and_stay_numbers(constraint: Constraint) -> None:
    (after,) = walk(FrankWolfe(constraint), np.full((3, 2), 0.5), [np.zeros((3, 2))], 1.0, 0.25)
    np.testing.assert_allclose(after, 0.375)


@settings(max_examples=60, deadline=None)
@given(
    constraint=st.sampled_from(list(Constraint)),
    rate=st.floats(0, 3),
    radius=st.floats(0, 20),
    averaging=st.one_of(st.none(), st.floats(0, 1)),
    scale=st.floats(-30, 30),
    seed=st.integers(0, 2**31),
)
def test_no_target_ever_leaves_the_window(
    constraint: Constraint, rate: float, radius: float, averaging: float | None, scale: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    most = radius if constraint is Constraint.l2_ball else min(radius, 1)
    options = FrankWolfe(constraint, radius=most, averaging=averaging)
    gradients = [10**scale * random.standard_cauchy((4, 3)) for _ in range(4)]
    w = random.uniform(0.1, 3)
    for weights in walk(options, random.uniform(-w, w, (4, 3)), gradients, w, rate):
        assert np.all(np.abs(weights) <= np.float32(w) * (1 + 1e-6))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"constraint": "cube"}, "constraint is 'cube'; choose box, l2-ball, k-sparse"),
        ({"radius": 2}, "--radius is 2, not a finite number in its range; give one from 0 to 1"),
        ({"density": -0.1}, "--density is -0.1"),
        ({"averaging": "much"}, "--averaging is 'much'"),
        ({"constraint": "l2-ball", "radius": float("inf")}, "--radius is inf"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(CimcError, match=message):
        FrankWolfe(**given)


def test_layers_packed_together_keep_sets_of_their_own() -> None:
    """The count of k-sparse and the length of the ball are those of a layer, not of the vector that it lies in."""
    weights = {"a": jnp.zeros((4, 4)), "b": jnp.zeros((2, 3))}
    packed = packing(weights)
    assert len(packed) == 1
    g = pack(packed, {"a": jnp.full((4, 4), 100.0), "b": jnp.ones((2, 3))})
    ranges = {"a": jnp.float32(1), "b": jnp.asarray([1.0, 2.0, 3.0])}
    options = FrankWolfe(Constraint.k_sparse, density=0.5, averaging=1.0)
    theta = pack(packed, weights)
    step = jax.jit(
        lambda: frank_wolfe.update(options, packed, g, frank_wolfe.init(theta), theta, ranges, jnp.float32(1))
    )
    moved = {name: np.count_nonzero(array) for name, array in unpack(packed, step()[0]).items()}
    assert moved == {"a": 8, "b": 3}


def test_rules_that_pulse_by_the_gradient_take_no_frank_wolfe_steps() -> None:
    with pytest.raises(CimcError, match="--update agad pulses by the gradient and takes no steps of --optimizer"):
        TrainingOptions(policy=Policy(method="agad"), optimizer=Optimizer.frank_wolfe)
    TrainingOptions(policy=Policy(method="sign"), optimizer=Optimizer.frank_wolfe)
