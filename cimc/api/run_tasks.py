"""Independent tasks: in this process, or on processes of this machine."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

from cimc.errors import CimcError

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")
_held: dict[str, Any] = {}


def run_tasks(
    function: Callable[[Shared, Task], Result],
    tasks: Sequence[Task],
    *,
    shared: Shared,
    workers: int = 1,
    cluster: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Results as they are ready, each with the number of its task; `shared` is sent once to each worker.

    Args:
        function: of a module (picklable); called with `shared` and a task.
        tasks: what it is called with.
        shared: what all tasks need.
        workers: local processes; 1: this process, one after the other.
        cluster: address of a dask scheduler (extra `cluster`).
    """
    if cluster is not None:
        raise CimcError("--cluster needs an extra: pip install 'cimc[cluster]'")
    if workers == 1:
        yield from ((number, function(shared, task)) for number, task in enumerate(tasks))
        return
    context = multiprocessing.get_context("spawn")  # JAX has threads
    with ProcessPoolExecutor(workers, context, _hold, (function, shared)) as pool:
        futures = {pool.submit(_call, task): number for number, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _hold(function: Any, shared: Any) -> None:
    _held.update(function=function, shared=shared)


def _call(task: Any) -> Any:
    return _held["function"](_held["shared"], task)
