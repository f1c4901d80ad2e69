"""Joins the processes of one training, on one host or on several, by `jax.distributed`."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cimc.errors import CimcError

AUTO = "auto"


def join(where: str) -> int:
    """Wait until all processes are there; from then on JAX sees the devices of all. To be called before JAX computes.

    Args:
        where: `HOST:PORT,PROCESSES,INDEX`: an address that process 0 listens on, how many there are, and which this is;
            or `auto`, where JAX finds that out itself: of Slurm, Open MPI, Kubernetes and TPUs.

    Returns:
        The index of this process.

    Raises:
        CimcError: `where` is not that, or the others do not come.
    """
    address, _, numbers = where.partition(",")
    processes, _, index = numbers.partition(",")
    known = (":" in address and processes.isdecimal() and index.isdecimal()) and int(index) < int(processes)
    if where != AUTO and not known:
        raise CimcError(f"{where!r} is not HOST:PORT,PROCESSES,INDEX with indices from 0, nor auto")
    import jax
    from jax.experimental import multihost_utils

    # Of CPUs; other devices have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        with _stdout_closed():
            if where == AUTO:
                jax.distributed.initialize()
            else:
                jax.distributed.initialize(address, int(processes), int(index))
            multihost_utils.sync_global_devices("cimc")  # connects them
            return jax.process_index()
    except (RuntimeError, ValueError) as error:
        raise CimcError(f"the processes of --distributed {where} did not come together: {error}") from None


@contextmanager
def _stdout_closed() -> Iterator[None]:
    """Gloo says on stdout whom it has found, where a command's JSON is to stand alone."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
