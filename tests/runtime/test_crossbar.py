"""The crossbar product against the plain model of `tests/reference.py`, its noise, and its gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.units import count_scale, dac_step, pair_targets
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from runtime.crossbar.product import Crossbar, counts, layer_output, transposed_read
from runtime.crossbar.unfold import Window, fold_output, output_sizes, unfold
from runtime.crossbar.xla import jit
from runtime.network.load import load_network
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System, build_system, gain_name, initial_state
from tests import reference
from tests.networks import network, weights

CHIPS = ("brram-256x64", "brram-soc", "ideal")


def channels_first(layer: Crossbar, x: Any) -> jax.Array:
    """Inputs in the order of ONNX, [N, C, *spatial] or [N, rows], as a layer takes them."""
    x = jnp.asarray(x)
    return jnp.moveaxis(x, 0, -1) if layer.window else x.T


def by_image(values: jax.Array, images: int) -> jax.Array:
    """[.., MVMs] -> [.., images, positions], the order of the plain model."""
    return jnp.swapaxes(values.reshape(*values.shape[:-1], -1, images), -1, -2)


def by_mvm(values: Any) -> jax.Array:
    """[.., images, positions] -> [.., MVMs]."""
    return jnp.swapaxes(jnp.asarray(values), -1, -2).reshape(*np.shape(values)[:-2], -1)


def sums(layer: Crossbar, x: Any, g: Any, input_range: Any, key: jax.Array | None) -> jax.Array:
    """`counts` [columns, images, positions] of inputs in the order of ONNX."""
    return by_image(counts(layer, channels_first(layer, x), g, input_range, key), len(x))


jitted_sums = jit(sums, static_argnums=0)


def differentiable_sums(
    layer: Crossbar, x: Any, weight: Any, g: Any, weight_range: Any, input_range: Any, key: jax.Array | None
) -> jax.Array:
    """`layer_output` with the gain that makes the sums themselves its output."""
    gain = 1 / count_scale(weight_range, input_range, layer.chip)
    y = layer_output(layer, channels_first(layer, x), weight, gain, None, g, weight_range, input_range, key)
    return by_image(y, len(x))


def small_chip(name: str, rows: int, columns: int = 64, row_split: str = "channel", **cell: float) -> Chip:
    chip = load_chip(name)
    array = chip.array.model_copy(update={"rows": rows, "columns": columns})
    cells = chip.cell.model_copy(update=cell)
    return chip.model_copy(update={"array": array, "row_split": row_split, "cell": cells})


def quiet(chip: Chip, **adc: float | None) -> Chip:
    """The chip without noise of its ADC, apart from what is given."""
    return chip.model_copy(update={"adc": chip.adc.model_copy(update={"noise_lsb": 0.0, **adc})})


def without_adc(chip: Chip) -> Chip:
    return quiet(chip, bits=None, range_uA=None)


def crossbar(chip: Chip, signed: bool, rows: int, kernel: int = 1, window: Window | None = None, **kw: Any) -> Crossbar:
    start, stop = reference.row_bounds(rows, kernel, chip)[0]
    return Crossbar(chip, stop - start, chip.array.columns // 2, signed, window, **kw)


def inputs(
    random: np.random.Generator, shape: tuple[int, ...], input_range: float, signed: bool
) -> npt.NDArray[np.float32]:
    """Inputs up to 1.2 times the range, none near a rounding tie of an 8-bit DAC."""
    codes = random.integers(-306 if signed else 0, 307, shape) * (random.random(shape) < 0.8)
    return ((codes + random.uniform(-0.4, 0.4, shape) * (signed | (codes > 0))) * input_range / 255).astype(np.float32)


def assert_same_sums(d: npt.ArrayLike, expected: reference.Sums, chip: Chip) -> None:
    """Equal codes one by one (a conversion on a rounding tie may differ by one); without an ADC to rounding."""
    difference = np.abs(np.asarray(d, np.float64) - expected.d)
    if chip.adc.bits is None:
        assert difference.max() <= 1e-5 * max(1.0, float(np.abs(expected.d).max()))
    else:
        assert (difference <= expected.ties).all()
        assert expected.ties.sum() <= 4, "the comparison would mean little"


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
        g = pair_targets(weight, np.float32(weight_range), chip)
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
        g = pair_targets(weight, np.float32(1), chip)
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
    g = pair_targets(weight, np.float32(1), chip)
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
    g = pair_targets(weight, np.float32(1), chip)
    x = np.array([[1.0], [1.7], [-1.0], [-9.0]], np.float32)
    d = jitted_sums(crossbar(chip, True, 1), x, g, np.float32(1), None)[0, :, 0]
    assert d[0] == d[1] == -d[2] == -d[3] > 0


def test_each_group_of_a_convolution_is_a_crossbar_of_its_own() -> None:
    """Values and gradients of a grouped layer are those of its groups, each read alone with its own inputs."""
    chip = small_chip("brram-256x64", 4)
    x = np.abs(weights(2, 6, 4, 4))
    window = Window((2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    weight = weights(2 * 4, 9, seed=1)  # three groups of two channels and three columns
    g = pair_targets(weight, np.float32(1), chip)
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
    mapping = map_network(lowered, chip, input_range)
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
    g = pair_targets(matrix, weight_range, chip)
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


# --- Noise ---


def draws(layer: Crossbar, u: npt.ArrayLike, g: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """d of `count` noisy MVMs of DAC codes u: [count, columns, images, positions]."""
    x = jnp.asarray(u, jnp.float32)

    @jit
    def run(keys: jax.Array) -> jax.Array:
        one = lambda key: sums(layer, x, jnp.asarray(g), jnp.float32(255), key)  # noqa: E731
        return jax.vmap(one)(keys)

    keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(5), index))(jnp.arange(count))
    return np.asarray(run(keys), np.float64)


@pytest.fixture(scope="module")
def analog_draws() -> tuple[Chip, npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Many MVMs of a chip without an ADC: inputs of 2 images x 3 patches in three row blocks, 3 columns."""
    chip = without_adc(small_chip("brram-256x64", 4))
    random = np.random.default_rng(0)
    u = random.integers(-255, 256, (2, 2, 5)).astype(np.float64)
    window = Window((3,), (1,), (0, 0), (1,))
    g = pair_targets(random.uniform(-1, 1, (6, 3)).astype(np.float32), np.float32(1), chip)
    layer = crossbar(chip, True, 6, 3, window)
    vectors = reference.vectors(u, reference.ConvWindow((3,), (1,), (0, 0), (1,)))
    return chip, vectors, g, draws(layer, u, g, 40_000)


def test_read_noise_of_a_column_has_the_variance_of_the_sum_over_its_cells(analog_draws: Any) -> None:
    chip, u, g, d = analog_draws
    # Both devices of a pair, all row blocks and both phases add their own noise: 2 sigma^2 sum u^2.
    sd = chip.cell.read_noise_uS * np.sqrt(2 * np.sum(u * u, axis=0))
    mean = np.einsum("rnp,rc->cnp", u, (g[0] - g[1]).astype(np.float64))
    z = (d.mean(axis=0) - mean) / (sd / np.sqrt(len(d)))
    assert np.abs(z).max() < 5
    variance = d.var(axis=0) / sd**2
    assert np.abs(variance - 1).max() < 6 * np.sqrt(2 / len(d))


def test_noise_of_columns_positions_images_and_keys_is_independent(analog_draws: Any) -> None:
    *_, d = analog_draws
    flat = d.reshape(len(d), -1)
    limit = 6 / np.sqrt(len(d))
    off_diagonal = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(off_diagonal).max() < limit
    z = (flat - flat.mean(axis=0)) / flat.std(axis=0)
    for lag in (1, 2, 3, 16):  # between keys
        assert np.abs(z[:-lag].T @ z[lag:] / len(z)).max() < limit
    # Squares too: independent, not merely uncorrelated.
    assert np.abs(np.corrcoef((z * z).T) - np.eye(flat.shape[1])).max() < 1.5 * limit


def test_noise_of_both_devices_and_of_row_blocks_is_drawn_separately() -> None:
    """Noise shared by the devices of a pair or by row blocks would leave sums of another variance than one block's."""
    chip = without_adc(small_chip("brram-256x64", 2))
    g = np.zeros((2, 6, 1), np.float32)
    sigma = chip.cell.read_noise_uS
    for rows in (2, 6):
        u = np.full((1, rows), 100.0)
        d = draws(crossbar(chip, False, rows), u, g[:, :rows], 20_000)
        expected = sigma**2 * 100**2 * rows * 2
        assert d.var() / expected == pytest.approx(1, abs=6 * np.sqrt(2 / len(d)))


@pytest.mark.parametrize("name", ["brram-256x64", "brram-soc"])
def test_noisy_codes_have_the_statistics_of_cell_by_cell_noise(name: str) -> None:
    """With clipping at both ends: MVMs near zero current, within the range of the ADC, and at its end."""
    chip = small_chip(name, 10)
    u = np.array([[2, 0, 1, 0, 3, 0, 9, 0, 0, 4, 5], [90, 0, 80, 130, 7, 200, 31, 0, 0, 9, 99], [255] * 11], np.float64)
    g = np.zeros((2, 11, 2), np.float32)
    g[0, :, 0], g[1, :, 0] = 70, 10
    g[0, :, 1], g[1, :, 1] = 30, 45
    assert chip.adc.range_uA is not None
    g *= chip.adc.range_uA / 70
    d = draws(crossbar(chip, False, 11), u, g, 20_000)[..., 0]
    random = np.random.default_rng(1)
    bounds = reference.row_bounds(11, 1, chip)
    assert bounds == [(0, 10), (10, 11)]
    cells = np.stack([reference.sums(chip, u.T[:, :, None], g, bounds, False, random).d[..., 0] for _ in range(2000)])
    assert np.sum(cells.std(axis=0) > 0.1) >= 5
    spread = np.sqrt(d.var(axis=0) / len(d) + cells.var(axis=0) / len(cells)) + 1e-9
    assert (np.abs(d.mean(axis=0) - cells.mean(axis=0)) / spread).max() < 5
    fourth = np.mean((d - d.mean(axis=0)) ** 4, axis=0) - d.var(axis=0) ** 2
    error = np.sqrt(fourth * (1 / len(cells) + 1 / len(d))) + 1e-9
    assert (np.abs(d.var(axis=0) - cells.var(axis=0)) / error).max() < 6


def test_noise_repeats_with_its_key_and_ends_without_one() -> None:
    chip = small_chip("brram-256x64", 8)
    layer = crossbar(chip, False, 8)
    weight = weights(8, 16)
    g = pair_targets(weight, np.float32(1), chip)
    x = np.abs(weights(4, 8, seed=1))

    def run(key: jax.Array | None) -> npt.NDArray[np.float32]:
        return np.asarray(jitted_sums(layer, x, g, np.float32(1), key))

    first, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    np.testing.assert_array_equal(run(None), run(None))
    assert (first != run(None)).mean() > 0.5


def test_a_chip_without_noise_gives_the_same_with_a_key() -> None:
    chip = small_chip("ideal", 4)
    weight, x = weights(6, 2), weights(3, 6, seed=1)
    g = pair_targets(weight, np.float32(1), chip)
    one, two = (jitted_sums(crossbar(chip, True, 6), x, g, np.float32(1), key) for key in (None, jax.random.key(0)))
    np.testing.assert_array_equal(one, two)


# --- Gradients ---

GRADIENT_WINDOW = Window((2, 2), (1, 2), (1, 0, 0, 1), (1, 1))


def gradient_case(chip: Chip, backward: str) -> tuple[Crossbar, Any, Any, Any, Any]:
    layer = crossbar(chip, True, 12, 4, GRADIENT_WINDOW, backward=backward)
    weight = weights(12, 3)
    x = inputs(np.random.default_rng(2), (2, 3, 4, 3), 0.9, True)
    g = pair_targets(weight, np.float32(1.5), chip)
    positions = int(np.prod(output_sizes(x.shape[2:], GRADIENT_WINDOW)))
    d_bar = weights(3, len(x), positions, seed=4)
    return layer, x, weight, g, d_bar


def gradients(layer: Crossbar, x: Any, weight: Any, g: Any, d_bar: Any, key: jax.Array | None = None) -> Any:
    @jit
    def run(x: jax.Array, weight: jax.Array) -> Any:
        return jax.grad(
            lambda x, w: jnp.sum(d_bar * differentiable_sums(layer, x, w, g, jnp.float32(1.5), jnp.float32(0.9), key)),
            (0, 1),
        )(x, weight)

    return run(x, weight)


@pytest.mark.parametrize("name", CHIPS)
def test_digital_gradients_are_those_of_the_exact_product_of_the_applied_inputs(name: str) -> None:
    chip = small_chip(name, 7)
    layer, x, weight, g, d_bar = gradient_case(chip, "digital")
    applied = reference.dac_codes(x, 0.9, chip) * float(dac_step(np.float32(0.9), chip))
    scale = count_scale(np.float32(1.5), np.float32(0.9), chip)
    assert scale == pytest.approx(reference.output_scale(1.5, 0.9, chip), rel=1e-6)

    def exact(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(
            d_bar
            * jnp.einsum("rnp,rc->cnp", by_image(unfold(jnp.moveaxis(x, 0, -1), GRADIENT_WINDOW), len(x)), w)
            / scale
        )

    expected = jax.grad(exact, (0, 1))(jnp.asarray(applied, jnp.float32), jnp.asarray(weight))
    for computed, value in zip(gradients(layer, x, weight, g, d_bar), expected, strict=True):
        np.testing.assert_allclose(computed, value, rtol=1e-4, atol=1e-5 * float(jnp.abs(value).max()))


def test_digital_gradients_use_the_digital_copy_and_not_the_devices() -> None:
    layer, x, weight, g, d_bar = gradient_case(small_chip("brram-soc", 7), "digital")
    before = gradients(layer, x, weight, g, d_bar)
    after = gradients(layer, x, weight, g * 0, d_bar, jax.random.key(0))
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)


def test_analog_backward_of_an_ideal_chip_is_the_digital_one() -> None:
    chip = small_chip("ideal", 7, 4)
    digital = gradients(*gradient_case(chip, "digital"))
    analog = gradients(*gradient_case(chip, "analog"))
    for one, two in zip(analog, digital, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * float(jnp.abs(two).max()))


@pytest.mark.parametrize("name", ["brram-256x64", "brram-soc"])
def test_analog_backward_reads_the_devices_and_not_the_digital_copy(name: str) -> None:
    chip = small_chip(name, 7, 4)
    layer, x, weight, g, d_bar = gradient_case(chip, "analog")
    x_bar, _ = gradients(layer, x, weight, g, d_bar)
    same, _ = gradients(layer, x, weight * 0, g, d_bar)
    np.testing.assert_array_equal(x_bar, same)
    assert (gradients(layer, x, weight, g[::-1], d_bar)[0] != x_bar).any()


@pytest.mark.parametrize(("name", "array_columns"), [("brram-256x64", 4), ("brram-256x64", 64), ("brram-soc", 6)])
def test_a_transposed_read_is_that_of_the_plain_model(name: str, array_columns: int) -> None:
    chip = small_chip(name, 7, array_columns)
    random = np.random.default_rng(6)
    weight = random.uniform(-1, 1, (5, 9)).astype(np.float32)
    g = pair_targets(weight, np.float32(2), chip)
    codes = random.integers(-255, 256, (9, 2, 3))
    codes[0, 0, 0] = 255
    y_bar = (codes * 0.003).astype(np.float32)
    read = jit(transposed_read, static_argnums=0)
    computed = by_image(read(crossbar(chip, True, 5), by_mvm(y_bar), g, np.float32(2), None), 2)
    expected, ties = reference.input_gradient(chip, y_bar, g, array_columns // 2, 2.0)
    one_code = reference.output_scale(2.0, float(np.abs(y_bar).max()), chip)
    error = np.abs(np.asarray(computed) - expected)
    assert (error <= ties * one_code * 1.001 + 1e-4 * one_code).all()
    assert (ties == 0).mean() > 0.9
    digital = np.einsum("cnp,rc->rnp", y_bar, weight)
    assert np.corrcoef(np.asarray(computed).ravel(), digital.ravel())[0, 1] > 0.98


def test_analog_backward_with_noise_is_unbiased_within_the_range_of_the_adc() -> None:
    chip = small_chip("brram-256x64", 7)
    random = np.random.default_rng(7)
    weight = random.uniform(-1, 1, (4, 6)).astype(np.float32)
    g = pair_targets(weight, np.float32(1), chip)
    codes = random.choice([-1, 1], (6, 1, 3)) * random.integers(100, 256, (6, 1, 3))
    codes[0, 0, 0] = 255
    y_bar = (codes / 255).astype(np.float32)
    layer = crossbar(chip, True, 4)
    keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(5), index))(jnp.arange(20_000))
    one = jax.vmap(lambda key: transposed_read(layer, by_mvm(y_bar), jnp.asarray(g), jnp.float32(1), key))
    computed = np.asarray(by_image(jit(one)(keys), 1), np.float64)
    exact = np.einsum("cnp,rc->rnp", codes / 255, (g[0] - g[1]).astype(np.float64) / 60)
    z = (computed.mean(axis=0) - exact) / (computed.std(axis=0) / np.sqrt(len(keys)))
    assert computed.std(axis=0).min() > 2 * reference.output_scale(1.0, 1.0, chip)
    assert np.abs(z).max() < 5


def test_forward_and_backward_noise_of_one_key_are_independent() -> None:
    chip = without_adc(small_chip("brram-256x64", 8))
    layer = Crossbar(chip, 3, 32, False)
    g = jnp.zeros((2, 3, 3), jnp.float32)
    ones = jnp.full((1, 3), 255.0)

    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        forward = sums(layer, ones, g, jnp.float32(255), key)
        return forward, transposed_read(layer, jnp.ones((3, 1)), g, jnp.float32(1), key)

    keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(9), index))(jnp.arange(20_000))
    forward, backward = (np.asarray(a).reshape(len(keys), -1) for a in jit(jax.vmap(both))(keys))
    cross = np.corrcoef(forward.T, backward.T)[:3, 3:]
    assert np.abs(cross).max() < 6 / np.sqrt(len(keys))
