"""Tasks on worker processes and on a dask cluster: what one worker's death, an error or Ctrl-C does to the results."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cimc.api.run_tasks import run_tasks
from cimc.errors import CimcError

WANTED = [(number, 100 + number, True) for number in range(6)]


def add(shared: dict[str, Any], task: int) -> tuple[int, bool]:
    """A sum, and whether it was made in a process with its share of the threads; one task kills its worker at first."""
    if "no_seven" in shared and task == 7:
        raise CimcError("seven is not to be had")
    if "always" in shared and task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if "once" in shared and task == 3 and not shared["once"].exists():
        shared["once"].touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return shared["base"] + task, "NPROC" in os.environ


def divide(shared: int, task: int) -> float:
    """A function that raises something of its own."""
    return shared / task


def in_order(results: Iterator[tuple[int, tuple[int, bool]]]) -> list[tuple[int, int, bool]]:
    return sorted((number, *result) for number, result in results)


def test_in_this_process_tasks_come_in_their_order() -> None:
    assert list(run_tasks(add, [5, 1], shared={"base": 1})) == [(0, (6, False)), (1, (2, False))]


def test_a_worker_process_that_dies_is_replaced_and_loses_nothing(tmp_path: Path) -> None:
    died = tmp_path / "died"
    assert in_order(run_tasks(add, range(6), shared={"base": 100, "once": died}, workers=2)) == WANTED
    assert died.exists()


def test_a_task_whose_workers_keep_dying_ends_with_one_line() -> None:
    with pytest.raises(CimcError, match=r"ended 3 times at the same task \(signal SIGKILL\).*fewer --workers"):
        list(run_tasks(add, range(6), shared={"base": 0, "always": True}, workers=2))


def test_errors_of_workers_are_raised_here_and_say_where() -> None:
    with pytest.raises(CimcError, match=r"^seven is not to be had$"):
        list(run_tasks(add, [6, 7], shared={"base": 0, "no_seven": True}, workers=2))
    with pytest.raises(ZeroDivisionError) as caught:
        list(run_tasks(divide, [1, 0], shared=1, workers=2))
    assert "in divide" in caught.value.__notes__[0]


# As scripts are written: nothing guards the call, which workers would run again.
_SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.path[:0] = {path!r}
from cimc.commands import signals
signals.listen()
from cimc.api.run_tasks import run_tasks
print("started", flush=True)
from test_run_tasks import sleep
for number, seconds in run_tasks(sleep, [0, 0, 60, 60], shared=None, workers=2):
    print(seconds, flush=True)
"""


def sleep(shared: None, task: int) -> int:
    """So many seconds."""
    time.sleep(task)
    return task


def test_ctrl_c_ends_the_workers_too_and_says_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    command = [sys.executable, str(script)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert [process.stdout.readline() for _ in range(2)] == ["0\n"] * 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes of the group
        output, errors = process.communicate(timeout=20)  # returns once the workers have closed theirs, too
    assert (process.returncode, output, errors) == (130, "", "interrupted\n")


def test_workers_and_cluster_are_two_ways() -> None:
    with pytest.raises(CimcError, match="--workers and --cluster were both given"):
        run_tasks(add, [1], shared={}, workers=2, cluster="tcp://localhost:1")
