"""Keys of random draws, as JAX handles them (`jax.random.split`, `fold_in`, `bits`), derived by a hash.

JAX's own derivation, Threefry, is a loop of twenty rounds: the forty keys of a training step took half of its separate
operations. Here a key is 64 bits and each derivation a few multiplications, which XLA merges into the draw itself.
For simulated noise, not for secrets.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import define_prng_impl

_GOLDEN = 0x9E3779B9  # 2^32 / the golden ratio: keeps small integers apart
_SPLIT, _BITS = 0x85EBCA6B, 0xC2B2AE35  # each use of a key starts from another constant


def mix(x: Array) -> Array:
    """Bijective mixing of 32-bit words (the two-multiply xorshift construction with the constants of C. Wellons)."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def new_key(seed: int | Array) -> Array:
    """The key of a seed; all bits of an integer count."""
    if isinstance(seed, Array) or seed < 2**32:
        return jax.random.key(seed, impl=_HASH)
    low, high = seed & 0xFFFFFFFF, seed >> 32
    # As `_from_seed`, which is given the low word alone.
    words = _derive(jnp.uint32(low), jnp.uint32(high), jnp.uint32(0))
    return jax.random.wrap_key_data(jnp.stack(words), impl=_HASH)


def derive(key: Array, number: int | Array) -> Array:
    """The key of that number below `key`; of a vector of keys, each one's."""
    return jax.vmap(lambda one: jax.random.fold_in(one, number))(key) if key.ndim else jax.random.fold_in(key, number)


def _derive(first: Array, second: Array, number: Array) -> tuple[Array, Array]:
    """Another key: a bijection of the key for each number, and of the number for each key."""
    first = mix(first ^ mix(number + jnp.uint32(_GOLDEN)))
    return first, mix(second + mix(first ^ jnp.uint32(_GOLDEN)))


def _from_seed(seed: Array) -> Array:
    return jnp.stack(_derive(seed.astype(jnp.uint32), jnp.uint32(0), jnp.uint32(0)))


def _fold_in(key: Array, number: int) -> Array:
    return jnp.stack(_derive(key[0], key[1], jnp.asarray(number).astype(jnp.uint32)))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    number = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return jnp.stack(_derive(key[0] ^ jnp.uint32(_SPLIT), key[1], number), axis=-1)


def _bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    if width == 64:
        raise ValueError("64-bit draws are not needed here")
    number = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    first, second = _derive(key[0] ^ jnp.uint32(_BITS), key[1], number)
    return (first ^ second).astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[width])


_HASH = define_prng_impl(
    key_shape=(2,), seed=_from_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="hash", tag="hash"
)
