"""One command as a process of its own: wall time, peak memory, what it said."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What one command did. status: its exit status; -9 where the time limit ended it. peak_mb: of the whole process.

    figures: the JSON object that it printed, if any. said: the last line of its standard error.
    """

    status: int
    seconds: float
    peak_mb: int
    figures: dict[str, Any]
    said: str

    def write(self, path: Path) -> None:
        """Keep it as a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def read_measured(path: Path) -> Measured:
    """What `Measured.write` wrote."""
    return Measured(**json.loads(path.read_text(encoding="utf-8")))


def measure(command: list[str], *, limit_s: float, folder: Path) -> Measured:
    """Run a command in a folder, for `limit_s` seconds at most."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, start_new_session=True)
        alarm = threading.Timer(limit_s, os.killpg, (process.pid, signal.SIGKILL))
        alarm.start()
        _, waited, usage = os.wait4(process.pid, 0)  # the memory of this process alone, not of all before it
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(waited)
        seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        printed = out.read().decode(errors="replace")
        lines = err.read().decode(errors="replace").strip().splitlines()
    return Measured(process.returncode, round(seconds, 1), usage.ru_maxrss // 1024, _object(printed), _last(lines))


def _last(lines: list[str]) -> str:
    return lines[-1].strip() if lines else ""


def _object(text: str) -> dict[str, Any]:
    try:
        figures = json.loads(text)
    except ValueError:
        return {}
    return figures if isinstance(figures, dict) else {}
