"""The processes of `soak.py`: a forked one becomes a command, is waited for, and ends."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

BEING_WRITTEN = (".cimc-part", "-journal")  # the second is SQLite's
HANGS = 999  # in place of an exit status


def command(arguments: Sequence[str]) -> list[str]:
    """The command line of a `cimc` command."""
    return [sys.executable, "-m", "cimc", *arguments]


def become(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: tuple[Path, Path], *, anew: bool
) -> NoReturn:
    """Of a forked process: be the command, and end with its status."""
    os.environ.update(environment)
    os.chdir(folder)
    for number, place in enumerate(streams, 1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # What a shell starts in the background ignores Ctrl-C, and its children would.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if anew:
        os.execv(sys.executable, command(arguments))
    sys.argv = ["cimc", *arguments]
    status = 0
    try:
        from cimc.__main__ import main

        main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def status_of(process: int, seconds: float) -> int:
    """The exit status of a process, negative: of a signal; `HANGS` where it does not end in time."""
    end = time.monotonic() + seconds
    while not _ended(process):
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return HANGS
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_for(process: int, seconds: float, folder: Path) -> bool:
    """Wait until a process has used so much processor time, or begins to write; whether it still runs."""
    before = _files(folder)
    while not _ended(process):
        if seconds < 0:
            if any(name.endswith(BEING_WRITTEN) for name in _files(folder) - before):
                time.sleep(-seconds)
                return not _ended(process)
        else:
            with Path(f"/proc/{process}/stat").open() as stat:
                fields = stat.read().rpartition(")")[2].split()
            if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds:
                return not _ended(process)
        time.sleep(0.002 if seconds < 0 else 0.01)
    return False


def _files(folder: Path) -> set[str]:
    """The paths of all files and folders below one, also while they come and go."""
    return {f"{top}/{name}" for top, folders, files in os.walk(folder) for name in (*folders, *files)}
