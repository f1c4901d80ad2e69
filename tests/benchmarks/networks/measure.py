"""One command as a process of its own: wall time, processor time, peak memory, what it said."""

import json
import os
import resource
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
    processor_s: of all its threads, which other work on the machine changes little; None in records of before.
    """

    status: int
    seconds: float
    peak_mb: int
    figures: dict[str, Any]
    said: str
    processor_s: float | None = None

    def write(self, path: Path) -> None:
        """Keep it as a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def read_measured(path: Path) -> Measured:
    """What `Measured.write` wrote."""
    return Measured(**json.loads(path.read_text(encoding="utf-8")))


def measure(command: list[str], *, limit_s: float, limit_mb: int, folder: Path) -> Measured:
    """Run a command in a folder, for `limit_s` seconds and with `limit_mb` of memory at most."""
    start, used = time.monotonic(), _processor_s()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, start_new_session=True)
        peak, over = 0, ""
        while process.poll() is None:
            peak = max(peak, _peak_mb(process.pid))
            over = over or _over(time.monotonic() - start, peak, limit_s=limit_s, limit_mb=limit_mb)
            if over:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(LOOK_S)
        seconds = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        printed = out.read().decode(errors="replace")
        lines = err.read().decode(errors="replace").strip().splitlines()
    said = over or _last(lines)
    if process.returncode < 0 and not over:
        said = f"ended by {signal.Signals(-process.returncode).name} {said}".strip()
    used = round(_processor_s() - used, 1)
    return Measured(process.returncode, round(seconds, 1), peak, _object(printed), said, used)


def _processor_s() -> float:
    """What the processes that were started here and have ended have used."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _peak_mb(process: int) -> int:
    """The most memory that a process has had. What `wait4` says counts the parent's own, before the command began."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0  # it has ended
    return max((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), default=0)


def _over(seconds: float, peak_mb: int, *, limit_s: float, limit_mb: int) -> str:
    """Which limit a command is over, if any."""
    if seconds > limit_s:
        return f"not done in {limit_s:.0f} s"
    return f"over {limit_mb} MB" if peak_mb > limit_mb else ""


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
