"""What keeps a whole run of tests short: one compilation cache, neighbours in one worker, and workers that stay small.

tests/README.md says where the time goes.
"""

import gc
import importlib
import os
import sys
import tempfile
from functools import cache
from typing import Any

import pytest
from hypothesis import settings


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
    # Cut into parts that are compiled beside each other, the same code takes a tenth longer in all. (XLA ends a process
    # that gives it a flag which it does not know: drop it then.)
    # Machine code that is not optimised saves a tenth of processor time: most programs of a test run a few times.
    flags = "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's second thread spins while it waits, and the core is wanted


@pytest.hookimpl(optionalhook=True)  # only with pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker takes half of the files and gives up some when the other is done: `-n` alone deals out single tests.

    So a file's fixtures are made once, and its tests find what the others of the file have compiled.
    """
    from xdist.scheduler import WorkStealingScheduling  # type: ignore[import-untyped, unused-ignore]

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_finish() -> None:
    """What importing leaves, a million objects, stays: no collection need look at it. The digits are drawn once."""
    importlib.import_module("cimc.data.load").digits = drawn_once  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()


@cache
def drawn_once() -> tuple[Any, ...]:
    """`cimc.data.digits.digits()`, which takes a second, in arrays that no test can change."""
    drawn = importlib.import_module("cimc.data.digits").digits()
    for array in drawn:
        array.flags.writeable = False
    return drawn


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files: what is left is out of the way of the garbage collector, and a worker that has grown shrinks.

    A full collection, as `verify_mapping` asks for, takes seconds where millions of objects are kept.
    """
    if nextitem is None or nextitem.path == item.path:
        return
    xla = sys.modules.get("runtime.crossbar.xla")
    if xla is not None and xla.has_grown():
        gc.unfreeze()
        xla.drop_old_programs()
    gc.collect()
    gc.freeze()
