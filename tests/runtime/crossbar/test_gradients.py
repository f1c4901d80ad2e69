"""Derivatives of a layer on arrays: backward digitally and by a transposed read, and forward."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Chip
from cimc.units import count_scale, dac_step, device_targets
from cimc.window import Window, output_sizes
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.layer import transposed_read
from runtime.crossbar.unfold import unfold
from runtime.crossbar.xla import jit
from tests import reference
from tests.networks import weights
from tests.runtime.crossbar.cases import (
    CHIPS,
    by_image,
    by_mvm,
    crossbar,
    differentiable_sums,
    inputs,
    small_chip,
    sums,
    without_adc,
)

GRADIENT_WINDOW = Window((2, 2), (1, 2), (1, 0, 0, 1), (1, 1))


def gradient_case(chip: Chip, backward: str) -> tuple[Crossbar, Any, Any, Any, Any]:
    layer = crossbar(chip, True, 12, 4, GRADIENT_WINDOW, backward=backward)
    weight = weights(12, 3)
    x = inputs(np.random.default_rng(2), (2, 3, 4, 3), 0.9, True)
    g = device_targets(weight, np.float32(1.5), chip)
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
    applied = reference.dac_codes(x, 0.9, chip) * float(dac_step(np.float32(0.9), chip, True))
    scale = count_scale(np.float32(1.5), np.float32(0.9), chip, True)
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
    g = device_targets(weight, np.float32(2), chip)
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
    g = device_targets(weight, np.float32(1), chip)
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
