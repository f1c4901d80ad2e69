"""How functions are compiled: the options that the crossbar products rely on, barriers, and the cache on disk."""

import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax
from jax import Array

from cimc.xla_cache import limit_cache, xla_cache

T = TypeVar("T")

GROWS_BYTES = 2**30
_grown_from: int | None = None  # bytes
kept_programs: list[Callable[[], None]] = []  # what forgets those that are kept beside JAX's own


def _known(options: dict[str, bool]) -> dict[str, bool]:
    """The options, if this release of XLA knows them, else none."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # no such compile option
        return {}
    return options


# XLA's CPU compiler drops optimisation barriers before it fuses, and then computes a shared intermediate again for each
# of its users. Kept, they do what `once` and `rounded` say: a training step of LeNet-5 takes a third of the time.
# Vectors of 512 bits, where the machine has them, take a twentieth less than the default 256.
_CPU_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander", "xla_cpu_prefer_vector_width": 512}
# Its older way to make code of merged operations takes two thirds of the time to compile, to code as fast. Newer
# releases may drop it.
_OLD_EMITTERS = {"xla_cpu_use_fusion_emitters": False}

# `jax.jit` for functions that are called from Python; those called from a jitted function stay plain.
jit = partial(
    jax.jit, compiler_options=_CPU_OPTIONS | _known(_OLD_EMITTERS) if jax.default_backend() == "cpu" else None
)

# Elsewhere JAX rounds the factors of float32 products to 10 bits of mantissa and fewer, which moves codes.
if jax.default_backend() != "cpu":
    jax.config.update("jax_default_matmul_precision", "highest")


def has_grown() -> bool:
    """Whether the process has grown by `GROWS_BYTES` since it last dropped its programs, or since this first asked."""
    global _grown_from
    held = _resident_bytes()
    if _grown_from is None:
        _grown_from = held
    return held > _grown_from + GROWS_BYTES


def drop_old_programs() -> None:
    """Drop all compiled functions where the process `has_grown`.

    JAX keeps them, and what it traced, of networks that are gone: about 40 MB a training. What is still needed is
    compiled again, or found in the cache on disk.
    """
    global _grown_from
    if has_grown():
        for forget in kept_programs:
            forget()
        jax.clear_caches()
        gc.collect()
        _grown_from = _resident_bytes()


def _resident_bytes() -> int:
    """Of the memory that this process holds; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def use_compilation_cache() -> None:
    """Keep compiled functions in the user's cache folder (`cimc.xla_cache`), within its limit.

    A folder that cannot be written, or a user without a home, is no error: JAX then compiles anew each time.
    """
    drop_old_programs()
    try:
        limit_cache()
        jax.config.update("jax_compilation_cache_dir", str(xla_cache()))
    except RuntimeError:  # no HOME, and no entry of the user's, as in containers
        return
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def once(x: T) -> T:
    """`x`, written once.

    Else XLA computes an intermediate again for each of its users: a DAC code for every patch that holds it, a draw for
    every value that uses it. Derivatives are written once too.
    """
    return jax.lax.optimization_barrier(x)


def rounded(x: Array) -> Array:
    """`x`, rounded to float32 here.

    Else XLA merges neighbouring products and sums, which rounds otherwise than the exported ONNX network does.
    """
    return jax.lax.optimization_barrier(x)
