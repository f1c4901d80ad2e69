"""Tasks on processes of this machine (`cimc.api.run_tasks`), each with its share of the cores.

Processes are started anew: a fork of one that runs JAX hangs. Each has a pipe of its own, so that one that dies, of a
signal or for want of memory, ends its pipe and nothing else. They end with this process, however that ends.
This module is imported first in them and loads neither NumPy nor JAX, which read the number of threads once.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from types import ModuleType
from typing import Any

from cimc.errors import CimcError

ATTEMPTS = 3  # of a task whose worker dies


@dataclass(frozen=True, eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection

    def send(self, content: bytes) -> None:
        """A worker that has died is noticed where it answers."""
        with suppress(OSError):
            self.pipe.send_bytes(content)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_on_processes(
    function: Callable[[Any, Any], Any], tasks: Sequence[Any], *, shared: Any, workers: int
) -> Iterator[tuple[int, Any]]:
    """As `cimc.api.run_tasks.run_tasks`."""
    workers = min(workers, len(tasks))
    sent, threads = pickle.dumps((function, shared)), max(_cores() // max(workers, 1), 1)
    waiting, lost = deque(range(len(tasks))), [0] * len(tasks)
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, int]] = {}
    ready: list[tuple[int, Any]] = []
    try:
        idle += _start(workers, sent, threads)
        while waiting or busy or ready:
            while waiting and idle:
                worker, number = idle.pop(), waiting.popleft()
                busy[worker.pipe] = worker, number
                worker.send(pickle.dumps(tasks[number]))
            yield from ready  # while the workers are at their next tasks
            ready = []
            for pipe in wait(list(busy)) if busy else ():
                worker, number = busy.pop(pipe)  # type: ignore[call-overload]
                try:
                    result, error = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.end()
                    lost[number] += 1
                    if lost[number] == ATTEMPTS:
                        raise _given_up(worker.process.exitcode) from None
                    waiting.appendleft(number)
                    idle += _start(1, sent, threads)
                    continue
                idle.append(worker)
                if error is not None:
                    raise error
                ready.append((number, result))
    finally:
        for worker in (*idle, *(worker for worker, _ in busy.values())):
            worker.end()


def _start(count: int, sent: bytes, threads: int) -> list[_Worker]:
    """New workers, with what all tasks share on its way to them."""
    context = multiprocessing.get_context("spawn")
    started = []
    with _no_main_module(), _no_interrupts():
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, threads), daemon=True)
            process.start()
            theirs.close()  # theirs alone: it closes when they end
            started.append(_Worker(process, ours))
    for worker in started:
        worker.send(sent)
    return started


def _given_up(status: int | None) -> CimcError:
    how = f"signal {signal.Signals(-status).name}" if status is not None and status < 0 else f"status {status}"
    return CimcError(
        f"a worker process ended {ATTEMPTS} times at the same task ({how}); if memory is short, give fewer --workers"
    )


def _cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _no_main_module() -> Iterator[None]:
    """A new process would run the caller's script once more, which may not be guarded; tasks need none of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal: workers inherit that it is blocked, and end with this one."""
    resource_tracker.ensure_running()  # of all spawned processes; its start would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, threads: int) -> None:
    """The life of a worker: function and what is shared, then task after task until nobody sends one."""
    Thread(target=_end_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):  # the last is what XLA reads
        os.environ.setdefault(name, str(threads))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several share a GPU
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # said in the process that started this one
    with suppress(EOFError, OSError):
        sent, made = pipe.recv_bytes(), None
        while True:
            task = pipe.recv_bytes()
            try:
                made = made or pickle.loads(sent)
                function, shared = made
                answer = pickle.dumps((function(shared, pickle.loads(task)), None))
            except Exception as error:
                answer = pickle.dumps((None, _sendable(error)))
            pipe.send_bytes(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error with the place where it was raised, as one that can be sent."""
    if not isinstance(error, CimcError):
        error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
