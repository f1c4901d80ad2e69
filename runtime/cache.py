"""XLA's compilation cache on disk: the second run of a command starts at once."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keep compiled functions in the user's cache folder (`$XDG_CACHE_HOME`, else ~/.cache), in cimc/xla.

    A folder that cannot be written is no error: JAX then compiles anew each time.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(root / "cimc" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
