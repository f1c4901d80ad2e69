"""The read against the plain model of `tests/reference.py`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.units import device_targets
from cimc.window import Window, output_sizes
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.unfold import fold_output, unfold
from runtime.crossbar.xla import jit
from runtime.network.load import load_network
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System, build_system, gain_name, initial_state
from tests import reference
from tests.networks import network, weights
from tests.runtime.crossbar.cases import (
    CHIPS,
    assert_same_sums,
    by_image,
    crossbar,
    differentiable_sums,
    inputs,
    jitted_sums,
    small_chip,
)

# (chip, rows, columns, array rows, row split, kernel size, signed): matrix products in one to five row blocks.
PRODUCTS = [
    ("brram-256x64", 12, 3, 12, "channel", 1, False),
    ("brram-256x64", 23, 4, 9, "flat", 1, True),
    ("brram-256x64", 18, 2, 10, "channel", 3, False),
    ("brram-256x64", 18, 2, 10, "flat", 3, True),
    ("brram-soc", 41, 3, 20, "channel", 1, False),
    ("brram-soc", 31, 2, 8, "flat", 4, True),
    ("brram-soc", 1, 1, 64, "channel", 1, True),
    ("ideal", 17, 3, 5, "flat", 1, True),
    ("ideal", 12, 2, 7, "channel", 2, False),
]


@pytest.mark.parametrize(("name", "rows", "columns", "array_rows", "split", "kernel", "signed"), PRODUCTS)
def test_every_sum_of_a_matrix_product_is_that_of_the_plain_model(
    name: str, rows: int, columns: int, array_rows: int, split: str, kernel: int, signed: bool
) -> None:
    chip = small_chip(name, array_rows, row_split=split)
    bounds = reference.row_bounds(rows, kernel, chip)
    layer = crossbar(chip, signed, rows, kernel)

    @settings(deadline=None, max_examples=6)
    @given(
        seed=st.integers(0, 2**32 - 1),
        input_range=st.floats(0.0078125, 128, width=32),
        weight_range=st.floats(0.0078125, 128, width=32),
    )
    def check(seed: int, input_range: float, weight_range: float) -> None:
        random = np.random.default_rng(seed)
        weight = (random.uniform(-1, 1, (rows, columns)) * weight_range).astype(np.float32)
        x = inputs(random, (3, rows), input_range, signed)
        g = device_targets(weight, np.float32(weight_range), chip)
        d = jitted_sums(layer, x, g, np.float32(input_range), None)
        u = reference.vectors(reference.dac_codes(x, input_range, chip), None)
        assert_same_sums(d, reference.sums(chip, u, g, bounds, signed, None), chip)

    check()


# (chip, channels, columns, array rows, split, signed, spatial, window)
CONVOLUTIONS = [
    ("brram-256x64", 2, 3, 12, "channel", False, (5, 5), Window((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))),
    ("brram-256x64", 3, 2, 20, "channel", True, (6, 4), Window((3, 2), (2, 1), (1, 0, 2, 1), (1, 2))),
    ("brram-256x64", 3, 2, 20, "flat", False, (6, 4), Window((3, 2), (2, 1), (1, 0, 2, 1), (1, 2))),
    ("brram-soc", 4, 2, 20, "channel", False, (4, 5), Window((3, 3), (1, 2), (1, 1, 1, 1), (1, 1))),
    ("brram-soc", 2, 1, 5, "channel", True, (9,), Window((3,), (2,), (2, 0), (2,))),
    ("brram-soc", 3, 2, 7, "channel", True, (3, 3, 3), Window((1, 2, 2), (1, 1, 2), (0, 1, 0, 0, 0, 1), (1, 1, 1))),
    ("ideal", 2, 3, 9, "channel", True, (5, 5), Window((2, 3), (1, 1), (0, 1, 1, 0), (1, 1))),
]


@pytest.mark.parametrize(
    ("name", "channels", "columns", "array_rows", "split", "signed", "spatial", "window"), CONVOLUTIONS
)
def test_every_sum_of_a_convolution_is_that_of_the_plain_model(
    name: str,
    channels: int,
    columns: int,
    array_rows: int,
    split: str,
    signed: bool,
    spatial: tuple[int, ...],
    window: Window,
) -> None:
    kernel = int(np.prod(window.kernel))
    rows = channels * kernel
    chip = small_chip(name, array_rows, row_split=split)
    bounds = reference.row_bounds(rows, kernel, chip)
    layer = crossbar(chip, signed, rows, kernel, window)
    plain_window = reference.ConvWindow(window.kernel, window.strides, window.pads, window.dilations)

    @settings(deadline=None, max_examples=4)
    @given(seed=st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        random = np.random.default_rng(seed)
        weight = random.uniform(-1, 1, (rows, columns)).astype(np.float32)
        x = inputs(random, (2, channels, *spatial), 2.0, signed)
        g = device_targets(weight, np.float32(1), chip)
        d = jitted_sums(layer, x, g, np.float32(2), None)
        u = reference.vectors(reference.dac_codes(x, 2.0, chip), plain_window)
        assert_same_sums(d, reference.sums(chip, u, g, bounds, signed, None), chip)

    check()


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_patches_are_those_of_plain_loops(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 2))

    def each(low: int, high: int, count: int = axes) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(count))

    window = Window(each(1, 3), each(1, 3), each(0, 2, 2 * axes), each(1, 2))
    least = [
        max((k - 1) * dilation + 1 - window.pads[a] - window.pads[axes + a], 1)
        for a, (k, dilation) in enumerate(zip(window.kernel, window.dilations, strict=True))
    ]
    spatial = tuple(low + data.draw(st.integers(0, 3)) for low in least)
    x = np.arange(1, 1 + 2 * 2 * np.prod(spatial), dtype=np.float32).reshape(2, 2, *spatial)
    expected = reference.vectors(x, reference.ConvWindow(window.kernel, window.strides, window.pads, window.dilations))
    np.testing.assert_array_equal(by_image(unfold(jnp.moveaxis(jnp.asarray(x), 0, -1), window), 2), expected)
    assert int(np.prod(output_sizes(spatial, window))) == expected.shape[2]


def test_outputs_are_folded_back_to_the_axes_of_the_input() -> None:
    y = jnp.arange(2 * 6 * 3.0).reshape(2, 18)
    window = Window((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    np.testing.assert_array_equal(fold_output(y, (5, 3, 4, 3), window), y.reshape(2, 2, 3, 3))
    np.testing.assert_array_equal(fold_output(y, (7, 3, 6), None), y.reshape(2, 3, 6))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 255), st.floats(0, 70)), min_size=1, max_size=12))
def test_accumulating_and_halving_bit_currents_is_the_current_of_the_code(cells: list[tuple[int, float]]) -> None:
    chip = load_chip("brram-256x64")
    codes, conductance = zip(*cells, strict=True)
    at_once = reference.column_current(codes, conductance, chip, None)
    assert reference.bit_serial_current(codes, conductance, chip) == pytest.approx(at_once, rel=1e-12, abs=1e-12)


def test_the_adc_saturates_at_its_largest_code() -> None:
    chip = small_chip("brram-256x64", 64)
    layer = crossbar(chip, False, 64)
    weight = np.stack([np.ones(64), -np.ones(64)], axis=1).astype(np.float32)
    g = device_targets(weight, np.float32(1), chip)
    # 64 cells of 70 uS and 64 of 10 uS at the largest input: 446 uA and 63.7 uA in a range of 70 uA.
    d = jitted_sums(layer, np.ones((1, 64), np.float32), g, np.float32(1), None)
    low = round(64 * 10 * 0.1 * 255 / 256 / (70 / 255))
    np.testing.assert_array_equal(d[:, 0, 0], [255 - low, low - 255])
    idle = np.full_like(g, chip.cell.conductance_max_uS)
    idle[1] = 0
    np.testing.assert_array_equal(jitted_sums(layer, np.ones((1, 64), np.float32), idle, np.float32(1), None), 255.0)


def test_inputs_beyond_the_range_are_clipped_and_negative_ones_of_an_unsigned_layer_not_wrapped() -> None:
    chip = small_chip("brram-256x64", 8)
    weight = np.full((1, 1), 1.0, np.float32)
    g = device_targets(weight, np.float32(1), chip)
    x = np.array([[1.0], [1.7], [-1.0], [-9.0]], np.float32)
    d = jitted_sums(crossbar(chip, True, 1), x, g, np.float32(1), None)[0, :, 0]
    assert d[0] == d[1] == -d[2] == -d[3] > 0


def test_each_group_of_a_convolution_is_a_crossbar_of_its_own() -> None:
    """Values and gradients of a grouped layer are those of its groups, each read alone with its own inputs."""
    chip = small_chip("brram-256x64", 4)
    x = np.abs(weights(2, 6, 4, 4))
    window = Window((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    weight = weights(2 * 4, 9, seed=1)  # three groups of two channels and three columns
    g = device_targets(weight, np.float32(1), chip)
    grouped = Crossbar(chip, 4, 3, signed=False, window=window, groups=3)
    single = Crossbar(chip, 4, 3, signed=False, window=window)

    bar = jnp.asarray(np.random.default_rng(0).random((9, 2, 9), np.float32))

    def total(layer: Crossbar, x: Any, weight: Any, g: Any) -> Any:
        d = differentiable_sums(layer, x, weight, g, jnp.float32(1), jnp.float32(1), None)
        return jnp.sum(d * bar), d

    (_, d), (x_bar, weight_bar) = jax.value_and_grad(partial(total, grouped), (0, 1), has_aux=True)(x, weight, g)
    assert d.shape == (9, 2, 9)
    for group in range(3):
        channels, columns = slice(2 * group, 2 * group + 2), slice(3 * group, 3 * group + 3)
        alone = differentiable_sums(
            single, x[:, channels], weight[:, columns], g[..., columns], np.float32(1), np.float32(1), None
        )
        np.testing.assert_array_equal(d[columns], alone)
        _, pull = jax.vjp(
            lambda x, w, g=g[..., columns]: differentiable_sums(single, x, w, g, jnp.float32(1), jnp.float32(1), None),
            x[:, channels],
            weight[:, columns],
        )
        for whole, part in zip((x_bar[:, channels], weight_bar[:, columns]), pull(bar[columns]), strict=True):
            np.testing.assert_allclose(whole, part, rtol=1e-5, atol=1e-5)
    noisy = differentiable_sums(grouped, x, weight, g, np.float32(1), np.float32(1), jax.random.key(0))
    assert not np.array_equal(noisy, d)


# --- The product of a layer: scales, gain, bias, and the mapping it comes from ---


def system_of(model: ir.Model, chip: Chip, input_range: tuple[float, float]) -> tuple[System, State]:
    lowered = lower(model)
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=input_range))
    system = build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip)
    return system, initial_state(system)


CONV = helper.make_node(
    "Conv", ["x", "w", "b"], ["y"], name="layer", kernel_shape=[2, 2], strides=[2, 1], pads=[1, 0, 0, 1]
)
GEMM = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer")
MATMUL = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize(
    ("node", "x_shape", "y_shape", "w_shape", "bias", "low"),
    [
        (CONV, (3, 5, 4), (4, 3, 4), (4, 3, 2, 2), 4, 0.0),
        (GEMM, (15,), (3,), (15, 3), 3, -1.0),
        (MATMUL, (4, 9), (4, 2), (9, 2), 0, 0.0),
    ],
    ids=["conv", "gemm", "matmul"],
)
def test_array_product_is_that_of_the_plain_model(
    name: str,
    node: Any,
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    bias: int,
    low: float,
) -> None:
    constants = {"w": weights(*w_shape), **({"b": weights(bias, seed=1)} if bias else {})}
    model = network([node], {"x": ["N", *x_shape]}, {"y": ["N", *y_shape]}, constants)
    chip = small_chip(name, 7, 6)
    system, state = system_of(model, chip, (low, 1.0))
    signed = low < 0
    assert system.crossbars["layer"].signed == signed
    state["input_range"]["layer"] = jnp.float32(0.8)
    state["digital"][gain_name("layer")] = jnp.float32(1.25)
    x = inputs(np.random.default_rng(3), (2, *x_shape), 0.8, signed)
    # Channels or rows come first in the product and, for a convolution, images last.
    ours, onnx_order = ((0, -1), (-1, 0)) if node is CONV else ((-1, 0), (0, -1))
    y = jit(lambda x: array_product(system, state)("layer", x, None))(np.moveaxis(x, *ours))
    y = jnp.moveaxis(y, *onnx_order)
    assert y.shape == (2, *y_shape)

    window = reference.ConvWindow((2, 2), (2, 1), (1, 0, 0, 1), (1, 1)) if node is CONV else None
    weight_range = np.abs(constants["w"]).max()
    u = reference.vectors(reference.dac_codes(x, 0.8, chip), window)
    matrix = constants["w"].reshape(4, -1).T if node is CONV else constants["w"]
    g = device_targets(matrix, weight_range, chip)
    expected = reference.sums(
        chip, u, g, reference.row_bounds(len(matrix), 4 if node is CONV else 1, chip), signed, None
    )
    assert not expected.ties.any()
    values = reference.layer(expected.d, weight_range, 0.8, 1.25, constants.get("b"), chip)
    values = values.swapaxes(0, 1).reshape(y.shape) if node is CONV else values[:, :, 0].T.reshape(y.shape)
    np.testing.assert_allclose(y, values, rtol=1e-5, atol=1e-5)


def test_exact_product_ignores_the_devices_and_the_gain_scales_it() -> None:
    constants = {"w": weights(15, 3), "b": weights(3, seed=1)}
    model = network([GEMM], {"x": ["N", 15]}, {"y": ["N", 3]}, constants)
    system, state = system_of(model, small_chip("brram-soc", 7, 6), (-1.0, 1.0))
    state["conductance"]["layer"] = state["conductance"]["layer"] * 0
    state["digital"][gain_name("layer")] = jnp.float32(-0.5)
    x = weights(4, 15, seed=2)
    y = exact_product(system, state)("layer", jnp.asarray(x).T, None).T
    np.testing.assert_allclose(y, -0.5 * (x @ constants["w"]) + constants["b"], atol=1e-5)
