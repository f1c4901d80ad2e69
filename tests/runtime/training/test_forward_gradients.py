"""Forward gradients against the backward pass, finite differences and NumPy; what has none is refused."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.errors import CimcError
from cimc.options import Backward, Gradient, Loss
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.network.run import run_network
from runtime.network.scan import Product
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System, build_system, initial_state
from runtime.training.gradients import ForwardPass, Parameters, check_gradient, find_gradients, signs
from runtime.training.losses import OutputLoss, total_loss
from tests.networks import network, weights

SAMPLES = 5
SOC = load_chip("brram-soc")
CLASSES = (OutputLoss("y", Loss.cross_entropy),)


def convolutional() -> ir.Model:
    """A convolution, pooling and a dense layer, with biases: 3 classes of images [N, 1, 6, 6]."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="dense"),
    ]
    constants = {"w1": weights(2, 1, 3, 3), "b1": weights(2), "w2": weights(8, 3, seed=1), "b2": weights(3)}
    return network(nodes, {"x": ["N", 1, 6, 6]}, {"y": ["N", 3]}, constants)


def branched() -> ir.Model:
    """Two dense outputs of one hidden layer, one weight used twice on the way, and a digital slope."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="once"),
        helper.make_node("PRelu", ["a", "slope"], ["h"]),
        helper.make_node("MatMul", ["h", "w1"], ["b"], name="twice"),
        helper.make_node("Tanh", ["b"], ["t"]),
        helper.make_node("Gemm", ["t", "w2", "b2"], ["y"], name="classes"),
        helper.make_node("Gemm", ["t", "w3"], ["z"], name="numbers"),
    ]
    constants = {
        "w1": weights(4, 4),
        "slope": np.array([0.25], np.float32),
        "w2": weights(4, 3, seed=1),
        "b2": weights(3),
    }
    constants["w3"] = weights(4, 2, seed=2)
    return network(nodes, {"x": ["N", 4]}, {"y": ["N", 3], "z": ["N", 2]}, constants)


def recurrent() -> ir.Model:
    """The last state of an RNN [N, 3] over sequences [N, 4, 2]."""
    constants = {"w": weights(1, 3, 2), "r": weights(1, 3, 3, seed=1), "b": weights(1, 6), "axis": np.array([0])}
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("RNN", ["xt", "w", "r", "b"], ["", "h"], name="rnn", hidden_size=3),
        helper.make_node("Squeeze", ["h", "axis"], ["y"]),
    ]
    return network(nodes, {"x": ["N", 4, 2]}, {"y": ["N", 3]}, constants)


def normalised() -> ir.Model:
    constants = {"w": weights(2, 1, 6, 6), "s": weights(2), "b": weights(2), "m": weights(2), "v": weights(2) ** 2}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("BatchNormalization", ["r", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Flatten", ["n"], ["y"]),
    ]
    return network(nodes, {"x": ["N", 1, 6, 6]}, {"y": ["N", 2]}, constants)


def sequential() -> ir.Model:
    """A dense layer on each place of a sequence [N, 4, 3]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="places"),
        helper.make_node("ReduceMean", ["h", "axes"], ["y"], keepdims=0),
    ]
    constants = {"w": weights(3, 3), "axes": np.array([1])}
    return network(nodes, {"x": ["N", 4, 3]}, {"y": ["N", 3]}, constants)


@cache
def system_of(network: Callable[[], ir.Model]) -> tuple[System, State]:
    lowered = lower(network())
    mapping = map_network(lowered, SOC, options=MappingOptions(input_range=(-1.0, 1.0)))
    system = build_system(load_network(lowered), mapping, SOC)
    state = initial_state(system)
    return system, {**state, "input_range": dict.fromkeys(state["input_range"], jnp.float32(2))}


class Case(NamedTuple):
    """A network whose gradients are looked for; what is compiled for a case is kept for all tests that look at it.

    noise: seed of the read noise; None: no noise.
    """

    network: Callable[[], ir.Model]
    way: Callable[[System, State], Product] = exact_product
    losses: tuple[OutputLoss, ...] = CLASSES
    samples: int = SAMPLES
    noise: int | None = None


@cache
def forward_of(case: Case) -> tuple[ForwardPass, Parameters]:
    """The forward pass of random samples, and the parameters."""
    system, state = system_of(case.network)
    random, ((name, sizes),) = np.random.default_rng(0), system.network.inputs.items()
    shape = (case.samples, *(size or 1 for size in sizes[1:]))
    feeds = {name: jnp.asarray(random.uniform(-1, 1, shape), jnp.float32)}
    targets = {"y": jnp.asarray(random.integers(0, 2, case.samples), jnp.int32)}
    targets["z"] = jnp.asarray(random.uniform(-1, 1, (case.samples, 2)), jnp.float32)
    key = None if case.noise is None else new_key(case.noise)

    def product(parameters: Parameters) -> Product:
        return case.way(system, {**state, **parameters})

    def run(parameters: Parameters, product: Product) -> Any:
        return run_network(system.network, feeds, product, parameters["digital"], state["statistics"], key, train=True)

    forward = ForwardPass(system, product, run, lambda outputs: total_loss(case.losses, outputs, targets), case.samples)
    return forward, {group: state[group] for group in ("weight", "digital")}


def loss_of(forward: ForwardPass) -> Callable[[Parameters], jax.Array]:
    """The loss of parameters, compiled."""
    return jax.jit(lambda parameters: forward.loss(forward.run(parameters, forward.product(parameters))[0]))


@cache
def finder(gradient: Gradient, tangents: int, case: Case) -> Callable[..., Any]:
    """Loss, statistics and gradients of a key, compiled."""
    forward, parameters = forward_of(case)
    return jax.jit(lambda key: find_gradients(gradient, tangents, forward, parameters, key))


def found(gradient: Gradient, tangents: int, case: Case) -> Any:
    return finder(gradient, tangents, case)(new_key(0))


def flat(parameters: Parameters) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(parameters)])


TWO_LOSSES = (*CLASSES, OutputLoss("z", Loss.mse))
NETWORKS = pytest.mark.parametrize(("model", "losses"), [(convolutional, CLASSES), (branched, TWO_LOSSES)])
WAYS = pytest.mark.parametrize("way", [exact_product, array_product])


def test_one_tangent_gives_the_finite_difference_along_it() -> None:
    case = Case(convolutional)
    forward, parameters = forward_of(case)
    estimate = found(Gradient.weights, 1, case)[2]
    # The estimate is c u, with u of signs: c is its magnitude, u its signs, up to a sign of both.
    (c,) = np.unique(np.abs(flat(estimate)))
    direction = jax.tree.map(np.sign, estimate)
    step, loss = np.float32(1e-3), loss_of(forward)
    ends = [jax.tree.map(lambda p, u, s=s: np.asarray(p) + s * step * u, parameters, direction) for s in (1, -1)]
    slope = (float(loss(ends[0])) - float(loss(ends[1]))) / (2 * step)
    assert slope == pytest.approx(c, rel=5e-3)


@NETWORKS
@WAYS
def test_each_tangent_counts_as_much_as_the_gradient_along_it(model: Any, losses: Any, way: Any) -> None:
    """With the noise of the arrays on: both see the same read."""
    case = Case(model, way, losses, noise=3)
    loss, _, true = found(Gradient.backward, 1, case)
    find = finder(Gradient.weights, 1, case)
    for seed in range(3):
        at, _, estimate = find(new_key(seed))
        np.testing.assert_allclose(at, loss, rtol=1e-6)
        signs = np.sign(flat(estimate))
        np.testing.assert_allclose(flat(estimate), np.dot(flat(true), signs) * signs, rtol=1e-3, atol=1e-5)


def test_the_recurrent_layers_of_a_loop_take_tangents_too() -> None:
    case = Case(recurrent, array_product)
    true = flat(found(Gradient.backward, 1, case)[2])
    estimate = flat(found(Gradient.weights, 1, case)[2])
    np.testing.assert_allclose(estimate, np.dot(true, np.sign(estimate)) * np.sign(estimate), rtol=1e-3, atol=1e-5)


@WAYS
def test_weight_tangents_are_unbiased_with_the_variance_of_signs(way: Any) -> None:
    case = Case(convolutional, way)
    true = flat(found(Gradient.backward, 1, case)[2])
    tangents = 4096
    error = flat(found(Gradient.weights, tangents, case)[2]) - true
    variance = (np.sum(true**2) - true**2) / tangents
    assert np.max(np.abs(error) / np.sqrt(variance)) < 5
    assert np.mean(error**2 / variance) == pytest.approx(1, abs=0.6)


@NETWORKS
@WAYS
def test_activity_tangents_are_unbiased(model: Any, losses: Any, way: Any) -> None:
    """Weights used twice, biases, gains, slopes and several outputs among them: means of 64 independent estimates."""
    case = Case(model, way, losses)
    loss, _, true = found(Gradient.backward, 1, case)
    find = finder(Gradient.activities, 256, case)
    draws = [find(key) for key in jax.random.split(new_key(1), 64)]
    np.testing.assert_allclose(draws[0][0], loss, rtol=1e-6)
    estimates = np.stack([flat(draw[2]) for draw in draws])
    sd = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(draws))
    moved = sd > 0
    np.testing.assert_allclose(estimates[0][~moved], flat(true)[~moved], atol=1e-7)
    assert moved.mean() > 0.7
    assert np.max(np.abs(estimates.mean(axis=0) - flat(true))[moved] / sd[moved]) < 5


def test_activity_tangents_vary_less_than_weight_tangents_where_samples_are_many() -> None:
    case = Case(convolutional, samples=64)
    true = flat(found(Gradient.backward, 1, case)[2])
    errors = []
    for kind in (Gradient.weights, Gradient.activities):
        find = finder(kind, 1, case)
        errors.append(np.mean([np.sum((flat(find(new_key(n))[2]) - true) ** 2) for n in range(8)]))
    assert errors[1] < errors[0] / 2, errors


def test_the_projection_is_the_least_squares_solution_of_numpy() -> None:
    case = Case(convolutional)
    true = flat(found(Gradient.backward, 1, case)[2])
    tangents = 6
    drawn = jax.jit(signs, static_argnums=1)
    rows = np.stack(
        [np.concatenate([np.ravel(drawn(jax.random.fold_in(key, n), leaf.shape)) for n, leaf in enumerate(leaves)])
         for leaves in [jax.tree.leaves(forward_of(case)[1])] for key in jax.random.split(new_key(0), tangents)]
    )  # fmt: skip
    wanted, *_ = np.linalg.lstsq(rows.astype(np.float64), rows @ true.astype(np.float64), rcond=None)
    estimate = flat(found(Gradient.projected, tangents, case)[2])
    np.testing.assert_allclose(estimate, wanted, rtol=1e-3, atol=1e-5)


def test_the_projection_on_more_tangents_than_parameters_is_the_gradient() -> None:
    case = Case(convolutional)
    true = flat(found(Gradient.backward, 1, case)[2])
    estimate = flat(found(Gradient.projected, 2 * true.size, case)[2])
    np.testing.assert_allclose(estimate, true, rtol=1e-2, atol=1e-4)


def test_signs_are_balanced_and_independent() -> None:
    drawn = np.asarray(signs(new_key(5), (64, 4096)))
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.max(np.abs(drawn.mean(axis=1))) < 5 / np.sqrt(4096)
    products = np.tril(drawn @ drawn.T / 4096, -1)
    assert np.max(np.abs(products)) < 5.5 / np.sqrt(4096)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (recurrent, "--gradient activities does not know loops such as Scan"),
        (normalised, "BatchNormalization 'norm' takes its statistics from all of a batch"),
    ],
)
def test_what_has_no_activity_gradient_is_refused_in_one_line(model: Any, message: str) -> None:
    system, _ = system_of(model)
    with pytest.raises(CimcError, match=message) as caught:
        check_gradient(Gradient.activities, Backward.digital, system)
    assert "\n" not in str(caught.value)
    check_gradient(Gradient.weights, Backward.digital, system)


def test_a_layer_that_sees_several_vectors_of_a_sample_is_refused_for_activities() -> None:
    case = Case(sequential)
    with pytest.raises(CimcError, match=r"needs a vector or an image of each sample in every layer, and \S+ has more"):
        found(Gradient.activities, 1, case)
    found(Gradient.weights, 1, case)


def test_forward_gradients_leave_no_transposed_read() -> None:
    system, _ = system_of(convolutional)
    with pytest.raises(CimcError, match="has no backward pass that --backward analog could read"):
        check_gradient(Gradient.weights, Backward.analog, system)
