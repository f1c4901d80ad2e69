"""Keys: no two derivations give the same one, and what is drawn with them is independent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from scipy import stats

from runtime.crossbar.keys import new_key
from runtime.crossbar.normal import normal

COUNT = 1 << 16
# One program each, not one for each of its operations.
new_keys: Any = jax.jit(jax.vmap(new_key))  # of an array of seeds
draws: Any = jax.jit(jax.vmap(lambda key: normal(key, (4096,))))
folded_into: Any = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))


def words(keys: jax.Array) -> npt.NDArray[np.uint64]:
    """Keys as 64-bit numbers."""
    data = np.asarray(jax.random.key_data(keys)).astype(np.uint64).reshape(-1, 2)
    return data[:, 0] << np.uint64(32) | data[:, 1]


def folded(key: jax.Array, count: int) -> jax.Array:
    return folded_into(key, np.arange(count))


def test_no_two_ways_of_deriving_keys_meet() -> None:
    key = new_key(0)
    families = [
        folded(key, COUNT),
        jax.random.split(key, COUNT),
        folded(jax.random.fold_in(key, 1), COUNT),
        jax.random.split(jax.random.fold_in(key, 1), COUNT),
        new_keys(jnp.arange(COUNT)),
    ]
    every = np.concatenate([words(family) for family in families])
    # Among 2^18.3 numbers of 64 bits two are equal with a probability of 3e-9.
    assert len(np.unique(every)) == len(every)


def test_deriving_a_key_loses_none() -> None:
    """One number folded into keys that differ in one half: a bijection, so that chains of derivations do not narrow."""
    halves = jnp.arange(COUNT, dtype=jnp.uint32)
    for data in (jnp.stack([halves, halves * 0 + 7], 1), jnp.stack([halves * 0 + 7, halves], 1)):
        keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(new_key(0)))
        derived = words(jax.vmap(lambda key: jax.random.fold_in(key, 3))(keys))
        assert len(np.unique(derived)) == COUNT


def test_the_bits_of_a_key_change_with_every_bit_of_its_origin() -> None:
    start = np.asarray(jax.random.key_data(new_key(5)))
    impl = jax.random.key_impl(new_key(5))
    drawn = jax.jit(lambda data: jax.random.bits(jax.random.wrap_key_data(data, impl=impl), (512,), jnp.uint32))
    before = np.asarray(drawn(start))
    for word in range(2):
        for bit in range(32):
            other = start.copy()
            other[word] ^= np.uint32(1 << bit)
            changed = np.unpackbits((np.asarray(drawn(other)) ^ before).view(np.uint8)).mean()
            assert abs(changed - 0.5) < 5 * 0.5 / np.sqrt(512 * 32)


def test_bits_are_uniform_of_every_width() -> None:
    for dtype in (jnp.uint8, jnp.uint16, jnp.uint32):
        drawn = np.asarray(jax.random.bits(new_key(2), (1 << 18,), dtype))
        top = drawn >> (8 * drawn.itemsize - 8)
        assert stats.chisquare(np.bincount(top, minlength=256)).pvalue > 1e-4
        assert stats.chisquare(np.bincount(drawn & 255, minlength=256)).pvalue > 1e-4
    assert abs(float(jnp.mean(jax.random.bernoulli(new_key(3), 0.3, (1 << 18,)))) - 0.3) < 5e-3


def test_draws_of_neighbouring_numbers_seeds_and_splits_are_uncorrelated() -> None:
    count, size = 256, 4096
    root = new_key(1)
    for keys in (
        folded(root, count),
        jax.random.split(root, count),
        new_keys(jnp.arange(count)),
        folded(jax.random.fold_in(root, 2), count),
    ):
        z = np.asarray(draws(keys), np.float64)
        assert z.shape == (count, size)
        for power in (1, 2):
            values = z**power
            values = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
            scores = (values @ values.T / np.sqrt(size))[np.triu_indices(count, 1)]
            assert np.abs(scores).max() < 5.5
            assert 0.97 < scores.std() < 1.03
        # And shifted against each other, as draws of overlapping counters would be.
        for lag in (1, 2, 64):
            scores = np.sum(z[:-1, lag:] * z[1:, :-lag], axis=1) / np.sqrt(size - lag)
            assert np.abs(scores).max() < 4.5


def test_bits_and_keys_of_one_key_do_not_meet() -> None:
    key = new_key(4)
    bits = np.asarray(jax.random.bits(key, (COUNT,), jnp.uint32)).astype(np.float64)
    for family in (folded(key, COUNT), jax.random.split(key, COUNT)):
        for half in np.asarray(jax.random.key_data(family)).astype(np.float64).T:
            assert abs(np.corrcoef(bits, half)[0, 1]) < 5 / np.sqrt(COUNT)


def test_all_bits_of_a_seed_count() -> None:
    """Seeds below 2^32 as ever, and none above it the key of another, or one that is derived from it."""
    seeds = [0, 1, 2**32, 2**32 + 1, 2**33, 2**62]
    keys = [new_key(seed) for seed in seeds] + [jax.random.fold_in(new_key(0), number) for number in range(4)]
    words = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(words) == len(keys)
    low = jax.random.key(7, impl=jax.random.key_impl(new_key(0)))
    assert (jax.random.key_data(new_key(7)) == jax.random.key_data(low)).all()
