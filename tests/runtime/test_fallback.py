"""Operators without an implementation run in onnxruntime, node by node, and refuse only to be trained through."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.errors import CimcError
from passes.pipeline import lower
from passes.verify import run
from runtime.network.load import load_network
from runtime.network.network import Network
from tests.networks import network, run_only, weights


def with_det(before: bool) -> tuple[ir.Model, Network]:
    """A layer before or after a determinant, which the runtime does not implement."""
    layer = helper.make_node("MatMul", ["m", "w"] if before else ["d", "w"], ["y"], name="fc")
    det = helper.make_node("Det", ["s"], ["d"], name="volume")
    if before:
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["s"], name="fc"),
            det,
            helper.make_node("Unsqueeze", ["d", "axis"], ["y"]),
        ]
        constants, out = {"w": weights(3, 3), "axis": np.array([1])}, 1
    else:
        nodes = [
            helper.make_node("Det", ["x"], ["v"], name="volume"),
            helper.make_node("Unsqueeze", ["v", "axis"], ["d"]),
            layer,
        ]
        constants, out = {"w": weights(1, 4), "axis": np.array([1])}, 4
    model = network(nodes, {"x": ["N", 3, 3]}, {"y": ["N", out]}, constants)
    return model, load_network(ir.to_proto(lower(model)).SerializeToString())


@pytest.mark.parametrize("before", [True, False])
def test_the_node_computes_what_onnxruntime_computes(before: bool) -> None:
    model, loaded = with_det(before)
    x = weights(5, 3, 3, seed=1)
    weight = loaded.initializers["fc.weight"]

    @jax.jit
    def outputs(x: jax.Array) -> jax.Array:
        return run_only(loaded, x, lambda name, x, key: jnp.tensordot(weight.T, x, 1), {}, {})[0]

    expected: Any = run(model, {"x": x})[0]
    np.testing.assert_allclose(outputs(x), expected, rtol=1e-5, atol=1e-6)


def test_training_is_refused_only_where_the_gradient_must_pass_through() -> None:
    for before in (True, False):
        _, loaded = with_det(before)

        def loss(weight: jax.Array, loaded: Network = loaded) -> jax.Array:
            x = jnp.asarray(weights(2, 3, 3, seed=1))
            return jnp.sum(run_only(loaded, x, lambda name, x, key: jnp.tensordot(weight.T, x, 1), {}, {})[0])

        weight = jnp.asarray(loaded.initializers["fc.weight"])
        if before:
            with pytest.raises(CimcError, match=r"Det 'volume' runs in onnxruntime and passes no gradient"):
                jax.grad(loss)(weight)
        else:
            assert np.isfinite(jax.grad(loss)(weight)).all()


def test_sizes_that_depend_on_data_are_refused() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Unique", ["h"], ["y"], name="unique")]
    model = network(nodes, {"x": ["N", 3]}, {"y": ["M"]}, {"w": weights(3, 3)})
    with pytest.raises(CimcError, match=r"Unique 'unique'.*depends on the data"):
        load_and_run(model)


def load_and_run(model: ir.Model) -> None:
    loaded = load_network(ir.to_proto(lower(model)).SerializeToString())
    run_only(loaded, jnp.ones((2, 3)), lambda name, x, key: jnp.tensordot(weights(3, 3).T, x, 1), {}, {})
