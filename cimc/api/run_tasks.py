"""Independent tasks: in this process, on processes of this machine, or on a dask cluster.

A result depends on nothing but what all tasks share and its own task, so that a task can be repeated anywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from cimc.api.dask_tasks import check_cluster, run_on_cluster
from cimc.api.local_workers import run_on_processes
from cimc.errors import CimcError

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Shared, Task], Result],
    tasks: Sequence[Task],
    *,
    shared: Shared,
    workers: int = 1,
    cluster: str | None = None,
) -> Iterator[tuple[int, Result]]:
    """Results as they are ready, each with the number of its task; `shared` is sent once to each worker.

    A worker that dies loses nothing: its tasks are done again, a bounded number of times, with the same results.

    Args:
        function: of a module that workers can import; called with `shared`, which it must not change, and a task.
        tasks: what it is called with.
        shared: what all tasks need.
        workers: local processes; 1: this process, one task after the other.
        cluster: address of a dask scheduler, such as tcp://host:8786 (extra `cluster`); its workers do the tasks.

    Raises:
        CimcError: no cluster or none that fits, a task whose workers keep dying, or what the function raises.
    """
    _require_one(workers, cluster)
    if cluster is not None:
        return run_on_cluster(function, tasks, shared=shared, cluster=cluster)
    if workers > 1:
        return run_on_processes(function, tasks, shared=shared, workers=workers)
    return ((number, function(shared, task)) for number, task in enumerate(tasks))


def check_workers(workers: int, cluster: str | None) -> None:
    """Find out whether tasks could run before they are prepared. Raises CimcError as `run_tasks`."""
    _require_one(workers, cluster)
    if cluster is not None:
        check_cluster(cluster)


def _require_one(workers: int, cluster: str | None) -> None:
    if cluster is not None and workers != 1:
        raise CimcError("--workers and --cluster were both given: the one are processes here, the other has its own")
