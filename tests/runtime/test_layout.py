"""Values with images last, and pooling before activation: what onnxruntime computes, and gradients of plain loops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from passes.pipeline import lower
from passes.verify import run
from runtime.network.load import load_network
from runtime.network.operators import OPERATORS
from runtime.network.operators.pooling import POOLS
from tests.networks import network, plain_product, run_only, weights


def conv(x: str, w: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], **attributes)


def pool(operator: str, x: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, [x], [y], name=y, **attributes)


def node(operator: str, inputs: list[str], y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [y], name=y, **attributes)


TWO = {"kernel_shape": [2, 2], "strides": [2, 2]}
BEFORE = [conv("x", "w1", "c"), node("Relu", ["c"], "r")]
# From r [N, 4, 7, 6] to y.
ENDS: dict[str, list[onnx.NodeProto]] = {
    "flatten": [pool("MaxPool", "r", "p", **TWO), node("Flatten", ["p"], "f"), node("MatMul", ["f", "w36"], "y")],
    "reshape to [0, -1]": [
        pool("MaxPool", "r", "p", **TWO),
        node("Reshape", ["p", "rows"], "f"),
        node("MatMul", ["f", "w36"], "y"),
    ],
    "reshape to [-1, 36]": [
        pool("MaxPool", "r", "p", **TWO),
        node("Reshape", ["p", "images"], "f"),
        node("Gemm", ["f", "w36", "b"], "y"),
    ],
    "flatten of another axis": [
        pool("MaxPool", "r", "p", **TWO),
        node("Flatten", ["p"], "f", axis=2),
        node("MatMul", ["f", "w9"], "y"),
    ],
    "reshape that mixes images": [
        pool("MaxPool", "r", "p", **TWO),
        node("Reshape", ["p", "mixed"], "f"),
        node("MatMul", ["f", "w9"], "y"),
    ],
    "rows after the channels": [node("MatMul", ["r", "w6"], "y")],
    "residual": [
        conv("r", "w2", "d"),
        node("Add", ["d", "r"], "s"),
        pool("AveragePool", "s", "p", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1], ceil_mode=1),
        pool("GlobalAveragePool", "p", "g"),
        node("Flatten", ["g"], "f"),
        node("MatMul", ["f", "w4"], "m"),
        node("Relu", ["m"], "a"),
        node("MatMul", ["a", "w5"], "y"),
    ],
    "a constant a channel": [node("Mul", ["r", "scales"], "s"), pool("GlobalMaxPool", "s", "y")],
    "activation used twice": [
        pool("MaxPool", "r", "p", **TWO),
        pool("MaxPool", "r", "q", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]),
        node("Add", ["p", "q"], "y"),
    ],
    "clip": [node("Clip", ["c", "low", "high"], "k"), pool("MaxPool", "k", "y", **TWO)],
    "normalised": [
        node("BatchNormalization", ["r", "n", "n", "n", "n"], "k"),
        pool("MaxPool", "k", "y", **TWO),
    ],
    "softmax over channels": [node("Softmax", ["r"], "k", axis=1), conv("k", "w2", "y")],
    "grouped": [conv("r", "w_group", "y", group=2)],
}
CONSTANTS = {
    "w1": weights(4, 3, 3, 3),
    "w2": weights(4, 4, 3, 3, seed=1),
    "w_group": weights(4, 2, 3, 3, seed=1),
    **{f"w{rows}": weights(rows, 5, seed=rows) for rows in (4, 5, 6, 9, 36)},
    "b": weights(5, seed=2),
    "n": np.abs(weights(4, seed=3)) + 0.5,
    "scales": weights(1, 4, 1, 1, seed=4),
    "low": np.float32(-0.25),
    "high": np.float32(0.5),
    "rows": np.array([0, -1]),
    "images": np.array([-1, 36]),
    "mixed": np.array([-1, 9]),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_network_computes_what_onnxruntime_computes(name: str) -> None:
    nodes = [*BEFORE, *ENDS[name]]
    used = {input for end in nodes for input in end.input}
    constants = {key: value for key, value in CONSTANTS.items() if key in used}
    model = network(nodes, {"x": ["N", 3, 7, 6]}, {"y": SHAPES.get(name, ["N", 5])}, constants)
    x = weights(2, 3, 7, 6, seed=9)
    loaded = load_network(ir.to_proto(lower(model)).SerializeToString())
    parameters: dict[str, Any] = {key: loaded.initializers[key] for key in loaded.trainable}
    statistics: dict[str, Any] = {key: loaded.initializers[key] for key in loaded.statistics}
    computed, _ = jax.jit(lambda x: run_only(loaded, x, plain_product(loaded), parameters, statistics))(x)
    expected: Any = run(model, {"x": x})[0]
    assert computed.shape == expected.shape
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5)
    order = [node.operator for node in loaded.nodes]
    swapped = (
        name in ("flatten", "reshape to [0, -1]", "reshape to [-1, 36]", "clip") or "another" in name or "mixes" in name
    )
    if "MaxPool" in order:
        activation = order.index("Clip" if name == "clip" else "Relu")
        assert (order.index("MaxPool") < activation) == swapped, order


SHAPES: dict[str, list[Any]] = {
    "flatten of another axis": ["M", 5],
    "reshape that mixes images": ["M", 5],
    "rows after the channels": ["N", 4, 7, 5],
    "a constant a channel": ["N", 4, 1, 1],
    "activation used twice": ["N", 4, 3, 3],
    "clip": ["N", 4, 3, 3],
    "normalised": ["N", 4, 3, 3],
    "softmax over channels": ["N", 4, 7, 6],
    "grouped": ["N", 4, 7, 6],
}


def largest_gradient(x: np.ndarray, bar: np.ndarray, size: int, stride: int) -> np.ndarray:
    """The gradient of the sum of bar times the maxima of windows: to the first largest of each, axis by axis."""
    result = np.zeros_like(x)
    for image in np.ndindex(x.shape[:-2]):
        for row, column in np.ndindex(bar.shape[-2:]):
            part = x[image][row * stride : row * stride + size, column * stride : column * stride + size]
            across = int(np.argmax(part.max(axis=0)))
            down = int(np.argmax(part[:, across]))
            result[image][row * stride + down, column * stride + across] += bar[image][row, column]
    return result


@settings(deadline=None, max_examples=20)
@given(
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    extra=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    ties=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_gradient_of_max_pooling_is_that_of_plain_loops(
    size: int, stride: int, extra: tuple[int, int], ties: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    shape = (2, 3, size + extra[0], size + extra[1])
    x = (random.integers(0, 3, shape) if ties else random.permutation(int(np.prod(shape))).reshape(shape)) / np.float32(
        4
    )
    attributes = {"kernel_shape": [size, size], "strides": [stride, stride]}
    bar = random.random((*shape[:2], *((rows - size) // stride + 1 for rows in shape[2:]))).astype(np.float32)

    @jax.jit  # one program for both layouts
    def pooled(x: jax.Array, bar: jax.Array) -> tuple[jax.Array, ...]:
        y, pull = jax.vjp(lambda x: OPERATORS["MaxPool"]([x], attributes), x)
        last, pull_last = jax.vjp(lambda x: POOLS["MaxPool"]([x], attributes, 1), jnp.moveaxis(x, 0, -1))
        (gradient,), (gradient_last,) = pull(bar), pull_last(jnp.moveaxis(bar, 0, -1))
        return y, gradient, jnp.moveaxis(last, -1, 0), jnp.moveaxis(gradient_last, -1, 0)

    y, gradient, last, gradient_last = pooled(x.astype(np.float32), bar)
    np.testing.assert_allclose(gradient, largest_gradient(x, bar, size, stride), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(last, y)
    np.testing.assert_array_equal(gradient_last, gradient)
