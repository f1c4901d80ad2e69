"""The cheap Gaussian: how near it is to the normal law, and that its draws are independent."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from scipy import special, stats

from runtime.crossbar.keys import mix, new_key
from runtime.crossbar.normal import normal

Floats = npt.NDArray[np.float64]

CHUNK, CHUNKS = 1 << 22, 6  # 25 million draws
draw = jax.jit(normal, static_argnums=1)


def sum_values() -> Floats:
    """The value of a draw for each sum of twelve bytes, 0 to 3060 (polynomial of Teichroew 1953)."""
    r = (np.arange(12 * 255 + 1) - 6 * 255) / 1024
    coefficients = (3.949846138, 0.252408784, 0.076542912, 0.008355968, 0.029899776)
    return np.sum([a * r ** (2 * k + 1) for k, a in enumerate(coefficients)], axis=0)


def sum_law() -> Floats:
    """The probability of each sum of twelve independent uniform bytes."""
    law = np.ones(1)
    for _ in range(12):
        law = np.convolve(law, np.full(256, 1 / 256))
    return law


@cache
def histogram() -> npt.NDArray[np.int64]:
    """How often each value was drawn."""
    values = sum_values()
    edges = (values[1:] + values[:-1]) / 2
    counts = np.zeros(len(values), np.int64)
    for chunk in range(CHUNKS):
        z = np.asarray(draw(jax.random.fold_in(new_key(11), chunk), (CHUNK,)))
        place = np.searchsorted(edges, z)
        assert np.abs(values[place] - z).max() < 1e-5, "every draw is the value of a sum of bytes"
        counts += np.bincount(place, minlength=len(values))
    return counts


def quantile_error(law: Floats, largest: float) -> float:
    """The largest deviation of a value from the normal quantile of its (mid-)probability, up to `largest`."""
    values = sum_values()
    inside = (values < 0) & (values >= -largest)
    middle = np.cumsum(law)[inside] - law[inside] / 2
    return float(np.abs(special.ndtri(middle) - values[inside]).max())


def test_the_law_has_normal_moments_up_to_the_fourth() -> None:
    values, law = sum_values(), sum_law()
    assert values @ law == pytest.approx(0, abs=1e-12)
    assert values**2 @ law == pytest.approx(1, abs=2e-4)
    assert values**3 @ law == pytest.approx(0, abs=1e-12)
    assert values**4 @ law == pytest.approx(3, rel=1e-3)


def test_the_law_has_normal_quantiles() -> None:
    law = sum_law()
    for largest, error in ((1, 2e-5), (2, 2e-4), (3, 2e-3), (4, 1.1e-2), (5, 3.5e-2), (6, 5e-2)):
        assert quantile_error(law, largest) < error
    # The values are discrete: steps of 0.004 sigma in the middle, 0.006 at 5 sigma; the last is 8.6 sigma.
    values = sum_values()
    assert np.diff(values)[np.abs(values[1:]) < 5].max() < 0.0062
    assert values[-1] == pytest.approx(8.56, abs=0.01)


def test_the_law_has_normal_tails() -> None:
    values, law = sum_values(), sum_law()
    for sigmas, error in ((1, 0.003), (2, 0.004), (3, 0.007), (4, 0.05), (5, 0.2), (6, 0.35)):
        tail = law[np.abs(values) > sigmas].sum()
        assert tail / (2 * special.ndtr(-sigmas)) == pytest.approx(1, abs=error)


def test_draws_follow_the_law() -> None:
    counts, law = histogram(), sum_law()
    total = counts.sum()
    assert total >= 20_000_000
    expected = law * total
    common = expected >= 20
    rare_low, rare_high = (~common & (np.arange(len(law)) < 1530)), (~common & (np.arange(len(law)) > 1530))
    observed = np.append(counts[common], [counts[rare_low].sum(), counts[rare_high].sum()])
    wanted = np.append(expected[common], [expected[rare_low].sum(), expected[rare_high].sum()])
    chi_square = float(np.sum((observed - wanted) ** 2 / wanted))
    assert 1e-4 < stats.chi2.sf(chi_square, len(wanted) - 1) < 1 - 1e-4


def test_draws_have_normal_moments_and_tails() -> None:
    counts, values = histogram(), sum_values()
    total = counts.sum()
    moments = [float(values**k @ counts) / total for k in (1, 2, 3, 4)]
    errors = [np.sqrt(variance / total) for variance in (1, 2, 15, 96)]
    for moment, expected, error, bias in zip(moments, (0, 1, 0, 3), errors, (0, 2e-4, 0, 3e-3), strict=True):
        assert abs(moment - expected) < 4 * error + bias
    for sigmas, bias in ((1, 0.003), (2, 0.004), (3, 0.007), (4, 0.05), (5, 0.2)):
        expected = 2 * special.ndtr(-sigmas) * total
        assert abs(counts[np.abs(values) > sigmas].sum() - expected) < 4 * np.sqrt(expected) + bias * expected


def test_draws_pass_kolmogorov_smirnov_and_runs_tests() -> None:
    z = np.asarray(draw(new_key(3), (1 << 18,)), np.float64)
    assert stats.kstest(z[:100_000], "norm").pvalue > 1e-3
    signs = z[z != 0] > 0
    n = len(signs)
    ups = int(signs.sum())
    runs = 1 + int(np.sum(signs[1:] != signs[:-1]))
    mean = 2 * ups * (n - ups) / n + 1
    assert abs(runs - mean) / np.sqrt((mean - 1) * (mean - 2) / (n - 1)) < 4
    # The longest run of one sign grows as log2 of the length.
    changes = np.flatnonzero(np.diff(signs.astype(np.int8)))
    assert 13 <= np.diff(changes).max() <= 32


@pytest.mark.parametrize("power", [1, 2])
def test_draws_of_one_key_are_uncorrelated_at_every_lag(power: int) -> None:
    z = np.asarray(draw(new_key(4), (1 << 21,)), np.float64) ** power
    z = (z - z.mean()) / z.std()
    lags = [*range(1, 33), 63, 64, 65, 128, 255, 256, 257, 576, 784, 1024, 4096, 65536, 1 << 20]
    scores = np.array([np.sum(z[lag:] * z[:-lag]) / np.sqrt(len(z) - lag) for lag in lags])
    assert np.abs(scores).max() < 4.5
    assert 0.6 < scores.std() < 1.5


def test_pairs_of_neighbours_fill_the_plane_evenly() -> None:
    z = np.asarray(draw(new_key(5), (1 << 21,)), np.float64)
    edges = special.ndtri(np.arange(1, 12) / 12)
    place = np.searchsorted(edges, z)
    for first, second in ((place[0::2], place[1::2]), (place[:1000000], place[1000000:2000000])):
        table = np.bincount(first * 12 + second, minlength=144).reshape(12, 12)
        assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("width", [16, 64, 256, 4096])
def test_sums_over_rows_and_columns_have_the_variance_of_independent_draws(width: int) -> None:
    z = np.asarray(draw(new_key(6), ((1 << 20) // width, width)), np.float64)
    for axis in (0, 1):
        sums = z.sum(axis=axis)
        variance = np.mean(sums**2) / z.shape[axis]
        assert abs(variance - 1) < 4.5 * np.sqrt(2 / len(sums)) + 2e-4


def test_columns_of_a_batch_are_uncorrelated() -> None:
    z = np.asarray(draw(new_key(7), (1 << 14, 64)), np.float64)
    correlation = np.asarray(np.corrcoef(z.T))[np.triu_indices(64, 1)] * np.sqrt(len(z))
    assert np.abs(correlation).max() < 5
    assert 0.9 < correlation.std() < 1.1


def test_steps_and_keys_are_uncorrelated() -> None:
    """Keys as training makes them: one folded per step, then one per layer, and the halves of a split."""
    base = new_key(0)
    keys = [jax.random.fold_in(base, step) for step in range(40)]
    keys += [jax.random.fold_in(keys[0], layer) for layer in range(8)]
    keys += list(jax.random.split(keys[1], 8))
    keys += [new_key(seed) for seed in range(1, 9)]
    z = np.asarray(jax.jit(jax.vmap(lambda key: normal(key, (1 << 15,))))(jnp.stack(keys)), np.float64)
    correlation = np.asarray(np.corrcoef(z))[np.triu_indices(len(z), 1)] * np.sqrt(z.shape[1])
    assert np.abs(correlation).max() < 5
    assert 0.9 < correlation.std() < 1.1
    means = z.mean(axis=1) * np.sqrt(z.shape[1])
    assert np.abs(means).max() < 4.5
    assert 0.7 < means.std() < 1.3


def test_keys_whose_counters_overlap_are_uncorrelated(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 2^32 counters two keys of a long run start at the same place now and then; their other words differ."""
    words = np.random.default_rng(0).integers(0, 2**32, (24, 4), dtype=np.uint64).astype(np.uint32)
    words[:, 0] = words[0, 0]
    current: list[jax.Array] = []
    monkeypatch.setattr(jax.random, "bits", lambda *_: current[-1])

    @jax.jit
    def from_words(row: jax.Array) -> jax.Array:
        current.append(row)
        return normal(new_key(0), (1 << 16,))

    z = np.stack([np.asarray(from_words(row), np.float64) for row in words])
    correlation = np.asarray(np.corrcoef(z))[np.triu_indices(len(z), 1)] * 256
    assert np.abs(correlation).max() < 5
    assert 0.85 < correlation.std() < 1.15


def test_draws_depend_on_the_key_alone_and_run_through_the_shape() -> None:
    key = new_key(8)
    flat = np.asarray(normal(key, (60,)))
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(draw(key, (60,)), flat, err_msg="another with jit")
    np.testing.assert_array_equal(draw(key, (3, 4, 5)), flat.reshape(3, 4, 5))
    np.testing.assert_array_equal(draw(key, (7,)), flat[:7])
    assert draw(key, ()) == flat[0]
    assert draw(key, (0, 3)).shape == (0, 3)
    assert (np.asarray(draw(new_key(9), (60,))) != flat).mean() > 0.9


def test_the_hash_mixes_every_bit_and_loses_none() -> None:
    words = np.random.default_rng(1).integers(0, 2**32, 1 << 14, dtype=np.uint64).astype(np.uint32)
    hashed = np.asarray(jax.jit(mix)(jnp.asarray(words)))
    x = words.astype(object)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = (x ^ (x >> shift)) * factor % 2**32
    np.testing.assert_array_equal(hashed.astype(object), x)
    run = np.asarray(jax.jit(mix)(jnp.arange(1 << 20, dtype=jnp.uint32)))
    assert len(np.unique(run)) == len(run), "bijective"
    for bit in range(32):
        flipped = np.asarray(jax.jit(mix)(jnp.asarray(words ^ np.uint32(1 << bit)))) ^ hashed
        changed = np.unpackbits(flipped.view(np.uint8)).reshape(len(words), 32).mean(axis=0)
        assert np.abs(changed - 0.5).max() < 0.05
