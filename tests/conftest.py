"""What keeps a whole run of tests short: one compilation cache, neighbours in one worker, and workers that stay small.

tests/README.md says where the time goes.
"""

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

GROWN_BYTES = 2**30  # of a worker since it last shrank: what it has compiled is dropped; most is in the cache on disk
_small = [2**30]  # bytes of the worker after it last shrank


def pytest_configure(config: pytest.Config) -> None:
    """Set the cache before JAX is imported; the workers of pytest-xdist and all commands inherit it."""
    settings.register_profile("cimc", deadline=None)  # other work on the machine is no fault of the tool
    settings.load_profile("cimc")
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="cimc-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_CACHE_HOME"] = folder.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder.name}/cimc/xla"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # The code is the same; cut into parts that are compiled beside each other it takes a tenth longer in all. (XLA ends
    # a process that gives it a flag which it does not know: drop this then.)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_parallel_codegen_split_count=1".strip()


@pytest.hookimpl(optionalhook=True)  # only with pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker takes half of the files and gives up some when the other is done: `-n` alone deals out single tests.

    So a file's fixtures are made once, and its tests find what the others of the file have compiled.
    """
    from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped, unused-ignore]

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_finish() -> None:
    """What importing leaves, a million objects, stays: no collection need look at it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files: what is left is out of the way of the garbage collector, and a worker that has grown shrinks.

    A full collection, as `verify_mapping` asks for, takes seconds where millions of objects are kept.
    """
    if nextitem is None or nextitem.path == item.path:
        return
    grown = _resident_bytes() > _small[0] + GROWN_BYTES
    if grown:
        import jax

        gc.unfreeze()
        jax.clear_caches()
    gc.collect()
    gc.freeze()
    if grown:
        _small[0] = _resident_bytes()


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0
