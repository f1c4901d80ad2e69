"""One command as a process of its own: wall time, peak memory, what it said."""

import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOOK_S = 0.02


@dataclass(frozen=True)
class Measured:
    """What one command did. status: its exit status; -9 where a limit ended it. peak_mb: of the whole process.

    figures: the JSON object that it printed, if any. said: the last words on its standard error, or which limit.
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


def measure(command: list[str], *, limit_s: float, limit_mb: int, folder: Path) -> Measured:
    """Run a command in a folder, for `limit_s` seconds and with `limit_mb` of memory at most."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, start_new_session=True)
        ended, over, waited, usage = 0, "", 0, None
        while not ended:
            time.sleep(LOOK_S)
            ended, waited, usage = os.wait4(process.pid, os.WNOHANG)  # the memory of this process alone
            over = over or _over(process.pid, time.monotonic() - start, limit_s=limit_s, limit_mb=limit_mb)
            if not ended and over:
                os.killpg(process.pid, signal.SIGKILL)
        process.returncode = os.waitstatus_to_exitcode(waited)
        seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        printed = out.read().decode(errors="replace")
        lines = err.read().decode(errors="replace").strip().splitlines()
    assert usage is not None
    said = over if process.returncode == -signal.SIGKILL and over else _last(lines)
    return Measured(process.returncode, round(seconds, 1), usage.ru_maxrss // 1024, _object(printed), said)


def _over(process: int, seconds: float, *, limit_s: float, limit_mb: int) -> str:
    """Which limit a process is over, if any."""
    if seconds > limit_s:
        return f"not done in {limit_s:.0f} s"
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return ""  # it has ended
    return f"over {limit_mb} MB" if pages * os.sysconf("SC_PAGESIZE") > limit_mb * 2**20 else ""


def _last(lines: list[str]) -> str:
    """The last line with words: usage errors stand in a box."""
    worded = [line.strip(" │|") for line in lines if any(letter.isalpha() for letter in line)]
    return worded[-1] if worded else ""


def _object(text: str) -> dict[str, Any]:
    try:
        figures = json.loads(text)
    except ValueError:
        return {}
    return figures if isinstance(figures, dict) else {}
