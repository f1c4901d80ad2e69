"""One compilation cache for a whole run of tests: what one test or worker compiles, the others find."""

import os
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Set the cache before JAX is imported; the workers of pytest-xdist and all commands inherit it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="cimc-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_CACHE_HOME"] = folder.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder.name}/cimc/xla"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
