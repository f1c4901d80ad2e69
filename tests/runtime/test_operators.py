"""Every digital operator computes what onnxruntime computes, whatever its attributes."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cimc.operators import DIGITAL_OPERATORS, FAKE_QUANTIZE
from runtime.network.load import load_network
from runtime.network.operators import OPERATORS
from runtime.network.run import run_nodes
from tests.networks import run_only

Floats = npt.NDArray[np.float32]


def no_product(*_: object) -> jax.Array:
    raise AssertionError("a network without crossbar layers asks for no product")


def values(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Floats:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def model_of(operator: str, x: Floats, constants: Sequence[Any], attributes: Mapping[str, Any], first: bool) -> bytes:
    """A network of one operator; `x` is its first input, or its last. None leaves an optional input out."""
    names = ["" if constant is None else f"c{index}" for index, constant in enumerate(constants)]
    node = helper.make_node(operator, ["x", *names] if first else [*names, "x"], ["y"], name="node", **attributes)
    # The runtime stops before a final Softmax, which the identity prevents.
    graph = helper.make_graph(
        [node, helper.make_node("Identity", ["y"], ["z"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(constant), name)
            for name, constant in zip(names, constants, strict=True)
            if constant is not None
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


def onnxruntime_output(model: bytes, x: Floats) -> Floats:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def check(operator: str, x: Floats, *constants: Any, first: bool = True, **attributes: Any) -> None:
    model = model_of(operator, x, constants, attributes, first)
    expected = onnxruntime_output(model, x)
    network = load_network(model)
    parameters: dict[str, Any] = {
        name: network.initializers[name] for name in (*network.trainable, *network.statistics)
    }

    @jax.jit  # one program, not one an operation
    def output(x: jax.Array) -> jax.Array:
        # The output itself: what is trained stands before its activation.
        values, _ = run_nodes(network, {network.input: x}, no_product, parameters, {})
        return jax.numpy.asarray(values[network.outputs[0]])

    computed = output(x)
    assert computed.shape == expected.shape
    np.testing.assert_allclose(computed, expected, rtol=2e-5, atol=2e-6)


def test_the_table_holds_every_operator_that_the_compiler_lets_through() -> None:
    assert set(OPERATORS) | {"BatchNormalization", "Dropout"} == DIGITAL_OPERATORS | {FAKE_QUANTIZE}
    assert not {"BatchNormalization", "Dropout"} & set(OPERATORS)


@pytest.mark.parametrize("operator", ["Identity", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Softmax", "LogSoftmax"])
def test_activations(operator: str) -> None:
    check(operator, values(3, 4, 5))
    x = values(6, 7, low=-90, high=90)
    x[0, :3] = 0, -0.0, 89
    check(operator, x)


@pytest.mark.parametrize("alpha", [0.0, 0.3, -0.5, 2.0])
def test_leaky_relu_slopes(alpha: float) -> None:
    check("LeakyRelu", values(3, 7), alpha=alpha)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax_axes(operator: str, axis: int) -> None:
    check(operator, values(3, 4, 5, low=-20, high=20), axis=axis)


@pytest.mark.parametrize("first", [True, False], ids=["x first", "x last"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1), (1, 4, 5), (3, 1, 1), (2, 3, 4, 5)])
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_broadcasts(operator: str, shape: tuple[int, ...], first: bool) -> None:
    check(operator, values(3, 4, 5, low=0.5), values(*shape, seed=1, low=0.5), first=first)


@pytest.mark.parametrize("limits", [(-0.5, 1.0), (None, 0.5), (0.0, None), (), (0.0, 6.0), (1.0, -1.0)])
def test_clip_limits(limits: tuple[float | None, ...]) -> None:
    check("Clip", values(3, 7, low=-8, high=8), *(None if v is None else np.float32(v) for v in limits))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4, -1, -4])
def test_flatten_axes(axis: int) -> None:
    check("Flatten", values(2, 3, 4, 5), axis=axis)


def test_flatten_default() -> None:
    check("Flatten", values(2, 3, 4, 5))


@pytest.mark.parametrize(
    "shape", [(2, 12), (-1,), (0, -1), (0, 0, 4), (4, -1, 2), (0, 4, -1), (1, 2, 3, 4, 1), (-1, 0)]
)
def test_reshape_shapes(shape: tuple[int, ...]) -> None:
    check("Reshape", values(2, 3, 4), np.array(shape, np.int64))


def test_reshape_allowzero() -> None:
    check("Reshape", values(2, 3, 4), np.array((4, 6), np.int64), allowzero=1)
    check("Reshape", np.zeros((0, 3), np.float32), np.array((3, 0), np.int64), allowzero=1)


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2), (-1,), (-2, 0), None])
def test_squeeze_axes(axes: tuple[int, ...] | None) -> None:
    x = values(1, 1, 3) if axes == (-2, 0) else values(1, 3, 1)
    check("Squeeze", x, *([] if axes is None else [np.array(axes, np.int64)]))


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 2), (-1,), (0, -1), (3, 0, 1)])
def test_unsqueeze_axes(axes: tuple[int, ...]) -> None:
    check("Unsqueeze", values(3, 4), np.array(axes, np.int64))


@pytest.mark.parametrize("perm", [None, (0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_transpose_permutations(perm: tuple[int, ...] | None) -> None:
    attributes: dict[str, Any] = {} if perm is None else {"perm": perm}
    check("Transpose", values(2, 3, 4), **attributes)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("first", [True, False])
def test_concat_axes(axis: int, first: bool) -> None:
    shape = [2, 3, 4]
    shape[axis] = 5
    check("Concat", values(2, 3, 4), values(*shape, seed=1), values(2, 3, 4, seed=2), first=first, axis=axis)


@pytest.mark.parametrize("keepdims", [None, 0, 1])
@pytest.mark.parametrize("axes", [None, (0,), (1, 2), (-1,), (-1, 0), (0, 1, 2)])
def test_reduce_mean_axes(axes: tuple[int, ...] | None, keepdims: int | None) -> None:
    attributes: dict[str, Any] = {} if keepdims is None else {"keepdims": keepdims}
    check("ReduceMean", values(2, 3, 4), *([] if axes is None else [np.array(axes, np.int64)]), **attributes)


@pytest.mark.parametrize(("axes", "noop"), [(None, 0), (None, 1), ((), 1)])
def test_reduce_mean_without_axes_is_over_all_or_none(axes: tuple[int, ...] | None, noop: int) -> None:
    constants = [] if axes is None else [np.array(axes, np.int64)]
    check("ReduceMean", values(2, 3, 4), *constants, noop_with_empty_axes=noop)


@pytest.mark.parametrize("spatial", [(5,), (4, 6), (3, 2, 4), (1, 1)])
@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(operator: str, spatial: tuple[int, ...]) -> None:
    check(operator, values(2, 3, *spatial))


# --- Pools ---

POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [2, 0, 1, 1]},
    {"kernel_shape": [2, 2], "dilations": [2, 3]},
    {"kernel_shape": [2, 3], "dilations": [3, 1], "pads": [1, 2, 0, 1], "strides": [2, 2]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 3], "strides": [1, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 3], "strides": [1, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 4], "strides": [3, 3], "auto_pad": "SAME_LOWER"},
]


@pytest.mark.parametrize("attributes", POOLS, ids=lambda a: "-".join(f"{k[:4]}{v}" for k, v in a.items()))
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pool_windows(operator: str, attributes: dict[str, Any]) -> None:
    # Negative everywhere: a pad taken for a value would show.
    check(operator, values(2, 3, 7, 6, low=-3, high=-1), **attributes)
    check(operator, values(1, 2, 8, 8), **attributes)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pools_of_one_and_three_axes(operator: str) -> None:
    check(operator, values(2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 0])
    check(operator, values(2, 2, 4, 5, 6), kernel_shape=[2, 2, 2], strides=[2, 1, 2])
    check(operator, values(2, 2, 4, 6, 6), kernel_shape=[2, 3, 2], strides=[2, 3, 2])


CEIL_POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1]},
    {"kernel_shape": [1, 2], "strides": [2, 3]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 2]},
]


@pytest.mark.parametrize("attributes", CEIL_POOLS, ids=lambda a: "-".join(f"{k[:4]}{v}" for k, v in a.items()))
@pytest.mark.parametrize("count_include_pad", [None, 0, 1])
def test_pools_in_ceil_mode(attributes: dict[str, Any], count_include_pad: int | None) -> None:
    for spatial in ((7, 7), (8, 5)):
        x = values(2, 2, *spatial, low=1, high=3)
        if count_include_pad is None:
            check("MaxPool", -x, ceil_mode=1, **attributes)
        else:
            check("AveragePool", x, ceil_mode=1, count_include_pad=count_include_pad, **attributes)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_average_pools_that_count_their_pads(auto_pad: str) -> None:
    pads: dict[str, Any] = {"pads": [1, 0, 2, 1]} if auto_pad == "NOTSET" else {}
    check(
        "AveragePool",
        values(2, 2, 6, 7, low=1, high=3),
        kernel_shape=[3, 2],
        strides=[2, 2],
        auto_pad=auto_pad,
        count_include_pad=1,
        **pads,
    )


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_pools_of_any_window(data: st.DataObject) -> None:
    size, kernel, stride, dilation = (data.draw(st.integers(1, top)) for top in (8, 4, 4, 2))
    span = (kernel - 1) * dilation + 1
    begin, end = (data.draw(st.integers(0, kernel - 1)) for _ in range(2))
    assume(size >= span)  # no window lies in the pads alone
    operator = data.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    attributes: dict[str, Any] = {
        "kernel_shape": [kernel],
        "strides": [stride],
        "pads": [begin, end],
        "dilations": [dilation],
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    if operator == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    check(operator, values(1, 2, size, low=1, high=3), **attributes)


# --- Normalisation and dropout ---


@pytest.mark.parametrize("epsilon", [None, 1e-5, 0.1])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_batch_normalisation_in_inference(shape: tuple[int, ...], epsilon: float | None) -> None:
    statistics = values(3, seed=1), values(3, seed=2), values(3, seed=3), values(3, seed=4, low=0.01)
    attributes: dict[str, Any] = {} if epsilon is None else {"epsilon": epsilon}
    check("BatchNormalization", values(*shape), *statistics, **attributes)


def test_batch_normalisation_in_training_uses_the_batch_and_updates_the_statistics() -> None:
    x = values(6, 3, 4)
    constants = values(3, seed=1), values(3, seed=2), values(3, seed=3), values(3, seed=4, low=0.01)
    network = load_network(model_of("BatchNormalization", x, constants, {"momentum": 0.8, "epsilon": 1e-3}, True))
    assert (network.trainable, network.statistics) == (("c0", "c1"), ("c2", "c3"))
    scale, bias, mean, variance = constants
    digital: dict[str, Any] = {"c0": scale, "c1": bias}
    statistics: dict[str, Any] = {"c2": mean, "c3": variance}
    y, updated = run_only(network, jax.numpy.asarray(x), no_product, digital, statistics, train=True)
    axes = (0, 2)
    standard = (x - x.mean(axes)[:, None]) / np.sqrt(x.var(axes)[:, None] + 1e-3)
    np.testing.assert_allclose(y, standard * scale[:, None] + bias[:, None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(updated["c2"], 0.8 * mean + 0.2 * x.mean(axes), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated["c3"], 0.8 * variance + 0.2 * x.var(axes), rtol=1e-5)
    assert statistics["c2"] is mean, "the given statistics are not changed"


@pytest.mark.parametrize(
    ("shape", "kernel", "attributes"),
    [
        ((2, 3, 7), (4, 3, 3), {"dilations": [2], "pads": [2, 1]}),
        ((2, 4, 7, 6), (6, 2, 3, 2), {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}),
        ((2, 4, 7, 6), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((2, 2, 6, 6), (3, 2, 2, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
        ((2, 2, 6, 6), (3, 2, 2, 2), {"auto_pad": "VALID"}),
        ((1, 2, 4, 5, 4), (3, 2, 2, 2, 2), {"pads": [1, 0, 0, 0, 1, 0]}),
    ],
)
def test_convolutions(shape: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any]) -> None:
    x = values(*shape)
    check("Conv", x, values(*kernel, seed=1), **attributes)
    check("Conv", x, values(*kernel, seed=1), values(kernel[0], seed=2), **attributes)


@pytest.mark.parametrize("ratio", [None, 0.0, 0.9])
def test_dropout_in_inference_passes_its_input(ratio: float | None) -> None:
    check("Dropout", values(3, 7), *([] if ratio is None else [np.float32(ratio)]))


@pytest.mark.parametrize("ratio", [None, 0.2])
def test_dropout_in_training_drops_that_share_and_keeps_the_mean(ratio: float | None) -> None:
    x = np.ones((100, 1000), np.float32)
    network = load_network(model_of("Dropout", x, [] if ratio is None else [np.float32(ratio)], {}, True))
    expected = 0.5 if ratio is None else ratio

    def run(key: jax.Array | None, train: bool) -> npt.NDArray[np.float32]:
        return np.asarray(run_only(network, jax.numpy.asarray(x), no_product, {}, {}, key, train)[0])

    y = run(jax.random.key(0), True)
    assert (y == 0).mean() == pytest.approx(expected, abs=0.01)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - expected)], rtol=1e-6)
    np.testing.assert_array_equal(run(jax.random.key(0), False), x)
    np.testing.assert_array_equal(run(None, True), x)
