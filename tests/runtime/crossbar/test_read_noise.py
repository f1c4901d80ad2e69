"""Noise of a read: its variance, its independence, and that it follows its key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from cimc.chip import Chip
from cimc.device_time import Flicker, StateLaw
from cimc.units import device_targets
from cimc.window import Window
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.xla import jit
from tests import reference
from tests.networks import weights
from tests.runtime.crossbar.cases import crossbar, jitted_sums, small_chip, sums, without_adc


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
    g = device_targets(random.uniform(-1, 1, (6, 3)).astype(np.float32), np.float32(1), chip)
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
    g = device_targets(weight, np.float32(1), chip)
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
    g = device_targets(weight, np.float32(1), chip)
    one, two = (jitted_sums(crossbar(chip, True, 6), x, g, np.float32(1), key) for key in (None, jax.random.key(0)))
    np.testing.assert_array_equal(one, two)


# --- Noise that follows the state ---

BY_STATE: dict[str, dict[str, Any]] = {
    "polynomial": {"read_noise_uS": 0.4, "read_noise_polynomial_uS": (0.5, -1.0, 3.0)},
    "1/f": {"flicker": Flicker(q=StateLaw(scale=0.01, power=-0.65, most=0.2), read_s=250e-9, after_s=20.0)},
    "1/f in uS": {"flicker": Flicker(q_uS=StateLaw(constant=0.1, log=0.05), read_s=1e-6, after_s=1.0)},
}


def chip_by_state(noise: str) -> Chip:
    """4 rows an array; without an ADC."""
    chip = without_adc(small_chip("brram-256x64", 4))
    cell = chip.cell.model_copy(update={"read_noise_uS": 0.0, **BY_STATE[noise]})
    return chip.model_copy(update={"cell": cell})


@pytest.mark.parametrize("noise", BY_STATE)
def test_noise_that_follows_the_state_has_the_exact_variance_in_every_column(noise: str) -> None:
    """u^2 @ sigma^2(G) over both devices of a pair, row blocks and phases; held states beyond the window too."""
    chip = chip_by_state(noise)
    random = np.random.default_rng(2)
    u = random.integers(-255, 256, (2, 6)).astype(np.float64)
    g = random.uniform(5, 80, (2, 6, 3)).astype(np.float32)
    d = draws(crossbar(chip, True, 6, 3), u, g, 40_000)[..., 0]
    sd = np.array([[[reference.read_sd(float(cell), chip) for cell in row] for row in device] for device in g])
    expected = np.einsum("nr,krc->cn", u**2, sd**2)
    assert expected.max() > 1.5 * expected.min()
    np.testing.assert_allclose(d.var(axis=0), expected, rtol=6 * np.sqrt(2 / len(d)))
    mean = np.einsum("nr,rc->cn", u, (g[0] - g[1]).astype(np.float64))
    assert (np.abs(d.mean(axis=0) - mean) < 5 * np.sqrt(expected / len(d))).all()


def test_a_polynomial_of_one_number_is_the_constant_noise() -> None:
    """The same draws too: what follows the state takes another way only to the sd of a column."""
    chip = without_adc(small_chip("brram-256x64", 4))
    flat = chip.model_copy(
        update={"cell": chip.cell.model_copy(update={"read_noise_uS": 0.0, "read_noise_polynomial_uS": (1.2,)})}
    )
    u, g = np.arange(8.0).reshape(2, 4), np.full((2, 4, 2), 30, np.float32)
    constant, state = (draws(crossbar(one, False, 4, 2), u, g, 4) for one in (chip, flat))
    np.testing.assert_allclose(state, constant, rtol=1e-5, atol=1e-3)


def test_codes_of_cells_whose_noise_follows_the_state_have_the_statistics_of_each_cell_drawn_alone() -> None:
    chip = small_chip("hermes", 8)
    random = np.random.default_rng(3)
    u = random.integers(0, 256, (2, 8)).astype(np.float64)
    g = random.uniform(0, 20.7, (2, 8, 2)).astype(np.float32)
    d = draws(crossbar(chip, False, 8, 2), u, g, 10_000)[..., 0]
    bounds = reference.row_bounds(8, 1, chip)
    cells = np.stack([reference.sums(chip, u.T[:, :, None], g, bounds, False, random).d[..., 0] for _ in range(2000)])
    spread = np.sqrt(d.var(axis=0) / len(d) + cells.var(axis=0) / len(cells))
    assert (np.abs(d.mean(axis=0) - cells.mean(axis=0)) / spread).max() < 5
    np.testing.assert_allclose(d.var(axis=0), cells.var(axis=0), rtol=6 * np.sqrt(2 / len(cells)))
