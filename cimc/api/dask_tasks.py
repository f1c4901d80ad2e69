"""Tasks on a dask cluster (`cimc.api.run_tasks`): its scheduler gives the tasks of a worker that dies to others."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from cimc.errors import CimcError

CONNECT_S = 10.0  # for a scheduler, and for a worker of it
ATTEMPTS = 3  # to send what is shared, where all workers that had it have died
_ONE = threading.Lock()


def run_on_cluster(
    function: Callable[[Any, Any], Any], tasks: Sequence[Any], *, shared: Any, cluster: str
) -> Iterator[tuple[int, Any]]:
    """As `cimc.api.run_tasks.run_tasks`."""
    with _connected(cluster) as client:
        from dask.distributed import CancelledError, KilledWorker, as_completed

        missing, run = set(range(len(tasks))), uuid4().hex
        for attempt in range(ATTEMPTS):
            _check_workers(client, cluster)
            try:
                # To one worker, from which others fetch it: a broadcast waits for ever for one that dies meanwhile.
                sent = client.scatter(shared, hash=False)
            except OSError:  # the workers have gone meanwhile, and may come back
                continue
            futures = {
                client.submit(_call, function, sent, tasks[number], key=f"cimc-{run}-{attempt}-{number}"): number
                for number in sorted(missing)
            }
            for future in as_completed(list(futures), loop=client.loop):
                try:
                    result = future.result()
                except CancelledError:
                    continue  # what is shared was on workers that have all died
                except KilledWorker:
                    raise CimcError(
                        f"workers of {cluster} keep dying at the same task; their logs say why (memory is short?)"
                    ) from None
                number = futures.pop(future)  # which lets the result go
                missing.remove(number)
                yield number, result
            if not missing:
                return
        raise CimcError(f"all workers of {cluster} died, {ATTEMPTS} times; their logs say why (memory is short?)")


def check_cluster(cluster: str) -> None:
    """Raises CimcError where no scheduler answers, it has no workers, or one has other versions than are here."""
    with _connected(cluster) as client:
        _check_workers(client, cluster)


def _connected(cluster: str) -> Any:
    try:
        from dask.distributed import Client
    except ImportError:
        raise CimcError("a cluster needs dask.distributed; install it with: pip install 'cimc[cluster]'") from None
    logging.getLogger("distributed").setLevel(logging.ERROR)  # its lines would stand between ours
    try:
        return Client(cluster, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise CimcError(f"no dask scheduler at {cluster} ({error}); start one with: dask scheduler") from None


def _call(function: Callable[[Any, Any], Any], shared: Any, task: Any) -> Any:
    """A task on a worker; its threads take turns, because one task uses all cores of a process."""
    with _ONE:
        return function(shared, task)


def _check_workers(client: Any, cluster: str) -> None:
    """Raises CimcError where there are no workers, or one has other versions than are here."""

    def versions() -> dict[str, str]:  # inside: sent as it is, to workers that may lack cimc
        from importlib.metadata import version

        from cimc.version import __version__

        return {"cimc": __version__, **{name: version(name) for name in ("jax", "jaxlib", "numpy")}}

    here, found = versions(), {}
    with suppress(OSError):  # a time that is over is one
        client.wait_for_workers(1, timeout=CONNECT_S)
        found = client.run(versions, on_error="return")
    if not found:
        raise CimcError(f"the scheduler at {cluster} has no workers; start some with: dask worker {cluster}")
    for worker, there in found.items():
        if isinstance(there, Exception):
            raise CimcError(f"worker {worker} cannot load cimc ({there}); install cimc {here['cimc']} there")
        for name, version in here.items():
            if there[name] != version:
                raise CimcError(f"worker {worker} has {name} {there[name]}, here is {version}; install the same there")
