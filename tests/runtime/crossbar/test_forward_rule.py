"""Forward derivatives: a network on arrays has a tangent in every direction, and it is that of the backward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import Chip
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit
from runtime.network.load import load_network
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System, build_system, gain_name, initial_state
from tests.networks import network, run_only, weights
from tests.runtime.crossbar.cases import small_chip

Parameters = dict[str, Any]


def pooled_network() -> ir.Model:
    """Convolutions with a bias and with groups, pooling whose windows meet, overlap and leave a rest, and a product."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="grouped", kernel_shape=[2, 2], group=2),
        helper.make_node("MaxPool", ["c2"], ["p2"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["p2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="last"),
    ]
    constants = {
        "w1": weights(4, 2, 3, 3),
        "b1": weights(4, seed=1),
        "w2": weights(6, 2, 2, 2, seed=2),
        "b2": weights(6, seed=3),
        "w3": weights(54, 3, seed=4),
        "b3": weights(3, seed=5),
    }
    return network(nodes, {"x": ["N", 2, 9, 9]}, {"y": ["N", 3]}, constants)


def system_on(chip: Chip, backward: Any) -> tuple[System, State]:
    lowered = lower(pooled_network())
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0)))
    system = build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip, backward)
    state = initial_state(system)
    for index, name in enumerate(system.crossbars):
        state["input_range"][name] = jnp.float32(1.5 + index)
        state["digital"][gain_name(name)] = jnp.float32(0.8 + 0.3 * index)
    return system, state


def outputs(system: System, state: State, key: jax.Array | None) -> Callable[[Parameters], jax.Array]:
    """The network's output as a function of its input, weights and digital parameters."""

    def run(parameters: Parameters) -> jax.Array:
        trial = {**state, "weight": parameters["weight"], "digital": parameters["digital"]}
        product = array_product(system, trial)
        return run_only(system.network, parameters["x"], product, trial["digital"], state["statistics"], key)[0]

    return run


def parameters_of(state: State) -> Parameters:
    return {"x": jnp.asarray(weights(2, 2, 9, 9, seed=6)), "weight": state["weight"], "digital": state["digital"]}


def direction(like: Any, seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape), jnp.float32), like)


def dot(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(np.vdot(np.asarray(x, np.float64), np.asarray(y, np.float64))) for x, y in pairs)


@pytest.mark.parametrize(
    ("name", "backward"),
    [("brram-256x64", "digital"), ("brram-soc", "digital"), ("ideal", "digital"), ("ideal", "analog")],
)
def test_the_tangent_of_a_network_and_its_gradient_are_transposes(name: str, backward: str) -> None:
    """<v, J u> = <J^T v, u>; of an analog backward pass without converters, which lose small gradients, and noise."""
    system, state = system_on(small_chip(name, 20), backward)
    key = new_key(0)
    run, parameters = outputs(system, state, key), parameters_of(state)
    along = direction(parameters, 1)
    bar = direction(jnp.zeros((2, 3)), 2)

    @jit
    def both(parameters: Parameters) -> Any:
        again, pull = jax.vjp(run, parameters)
        return jax.jvp(run, (parameters,), (along,)), again, pull(bar)[0]

    (y, y_dot), again, gradient = both(parameters)
    np.testing.assert_array_equal(y, again)
    scale = np.sqrt(dot(bar, bar) * dot(y_dot, y_dot))
    assert abs(dot(bar, y_dot) - dot(gradient, along)) < 1e-5 * scale
    assert scale > 1


def test_the_tangent_on_ideal_arrays_is_that_of_the_exact_network() -> None:
    system, state = system_on(small_chip("ideal", 20), "digital")
    parameters = parameters_of(state)
    along = direction(parameters, 3)

    def exact(parameters: Parameters) -> jax.Array:
        trial = {**state, "weight": parameters["weight"], "digital": parameters["digital"]}
        product = exact_product(system, trial)
        return run_only(system.network, parameters["x"], product, trial["digital"], state["statistics"])[0]

    (_, ours), (_, expected) = (
        jit(lambda p, run=run: jax.jvp(run, (p,), (along,)))(parameters)
        for run in (outputs(system, state, None), exact)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * float(jnp.abs(expected).max()))


def test_several_directions_are_taken_at_once() -> None:
    system, state = system_on(small_chip("brram-256x64", 20), "digital")
    run, parameters = outputs(system, state, None), parameters_of(state)
    first, second = direction(parameters, 4), direction(parameters, 5)

    def push(along: Parameters) -> jax.Array:
        return jax.jvp(run, (parameters,), (along,))[1]

    together = jit(jax.vmap(push))(jax.tree.map(lambda a, b: jnp.stack([a, b]), first, second))
    for one, along in zip(together, (first, second), strict=True):
        expected = jit(push)(along)
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max()))


def test_devices_and_ranges_have_no_tangent() -> None:
    system, state = system_on(small_chip("ideal", 20), "digital")
    parameters = parameters_of(state)

    def run(held: dict[str, jax.Array], ranges: dict[str, jax.Array]) -> jax.Array:
        return outputs(system, {**state, "conductance": held, "weight_range": ranges}, None)(parameters)

    held = state["conductance"], state["weight_range"]
    _, y_dot = jit(lambda held: jax.jvp(run, held, direction(held, 6)))(held)
    np.testing.assert_array_equal(y_dot, 0)
