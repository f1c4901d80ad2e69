"""Kill train, compile, export, report, sweep at random moments, on full disks too: nothing lost, nothing half written.

    python -m tests.benchmarks.soak [--kills 500] [--full 20] [--seed 0] [--jobs sweep ...]

Each attempt is a process of its own (one in seven starts an interpreter, others are forked when the libraries are
imported), stopped by SIGKILL, SIGTERM or SIGINT after a random share of the processor time that the command takes, or
just when its output is being written. Every few kills the command runs to its end (`train` with --resume), which must
give the bytes of a run that nobody disturbed (`sweep`: the same rows, none of them computed twice), and leave no other
file. What counts as a fault: an output that is neither the old one nor a new one that `cimc.verify` finds whole, one
that is gone, a traceback, an internal error, exit 0 without a result, another exit than the signal's, and 60 s without
an end. The full disks are file systems in memory of a few kB to a few hundred kB, which only root can mount.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random

from tests.benchmarks.soak_files import digest, is_whole, small_disk, write_inputs
from tests.benchmarks.soak_process import HANGS, become, status_of, wait_for
from tests.benchmarks.soak_sweep import Rows, rows_of, wrong_rows

ROOT = Path(__file__).parents[2]
SECONDS = 60  # until a process must have ended, after a signal or with a full disk (times the processes beside it)
KILLS_IN_A_ROW = 10
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ANEW = 0.15  # share of the attempts with an interpreter of its own; others fork one that has imported the libraries
IMPORTS = 1.5  # seconds of processor time
# What commands import, but for what starts threads, which do not survive a fork.
IMPORTED = (
    "jax",
    "optax",
    "onnxruntime",
    "cimc.api.compile",
    "cimc.api.verify",
    "cimc.report.page",
    "cimc.commands.main",
)


@dataclass(frozen=True)
class Job:
    """A command: its arguments by variant, and the name of its output. weight: its share of the kills.

    resumes: a run goes on where the last one ended. rows: the output is a sweep's folder, judged by its rows.
    """

    name: str
    variants: tuple[tuple[str, ...], ...]
    output: str
    weight: int
    resumes: bool = False
    rows: bool = False


JOBS = (
    Job("compile", (("compile", "net.onnx"), ("compile", "net.onnx", "--chip", "isaac")), "out.cim", 6),
    Job(
        "train",
        (("train", "base.cim", "--data", "data.npz", "--epochs", "3", "--batch-size", "8", "--resume"),),
        "run.cim",
        5,
        resumes=True,
    ),
    Job(
        "export",
        tuple(("export", "trained.cim", "--data", "data.npz", "--seed", seed) for seed in ("0", "1")),
        "package",
        4,
    ),
    Job("report", (("report", "trained.cim"), ("report", "base.cim")), "page.html", 5),
    Job(
        "sweep",
        (
            (
                *("sweep", "net.onnx", "--data", "data.npz"),
                *("--vary", "adc.bits=6,8", "--vary", "cell.read_noise_uS=0,1", "--vary", "chip=brram-256x64"),
            ),
        ),
        "sweep",
        5,
        resumes=True,
        rows=True,
    ),
)
FULL = ("No space left", "disk is full")  # the second is SQLite's


@dataclass
class Found:
    """What the attempts came to, and the faults in words."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds from a signal to the end

    def fault(self, text: str) -> None:
        """Note a fault and print it."""
        self.faults.append(text)
        print(f"FAULT {text}", flush=True)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    output: str
    errors: str
    signalled: bool
    seconds: float  # from the signal on


class Bench:
    """The files that the commands read, and what each writes undisturbed."""

    def __init__(self, folder: Path, jobs: Sequence[Job]):
        self.folder, self.inputs, self.jobs = folder, folder / "inputs", jobs
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
        }
        for place in (self.inputs, folder / "tmp"):
            place.mkdir()
        write_inputs(self.inputs)
        self._run_first("compile", "net.onnx", "-o", str(self.inputs / "base.cim"))
        train = next(job for job in JOBS if job.name == "train").variants[0]
        self._run_first(*train, "-o", str(self.inputs / "trained.cim"))
        self.wanted: dict[tuple[str, int], str] = {}
        self.rows: Rows = {}  # of the sweep
        self.processor: dict[str, float] = {}
        for job in jobs:
            for number, variant in enumerate(job.variants):
                place = folder / "first" / job.output
                place.parent.mkdir(exist_ok=True)
                start = os.times()
                self._run_first(*variant, "-o", str(place))
                end = os.times()
                self.processor[job.name] = end[2] + end[3] - start[2] - start[3]
                self.wanted[job.name, number] = digest(place)
                if job.rows:
                    self.rows = rows_of(place)
                shutil.rmtree(place.parent)

    def _run_first(self, *arguments: str) -> None:
        done = self.run(arguments)
        if done.status:
            raise SystemExit(f"{' '.join(arguments)}: {done.errors.strip()}")

    def run(
        self,
        arguments: Sequence[str],
        kill: tuple[signal.Signals, float, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        anew: bool = False,
    ) -> Ended:
        """Run a command; kill: the signal, after how much processor time in s (negative: when its file is being
        written), and the folder of its output. anew: an interpreter of its own, which imports everything.
        """
        output, errors = self.folder / "output", self.folder / "errors"
        known = {**self.environment, **(environment or {})}
        process = os.fork()
        if process == 0:
            become(arguments, self.inputs, known, (output, errors), anew=anew)
        signalled, start = kill is not None and wait_for(process, kill[1], kill[2]), time.monotonic()
        if kill is not None and signalled:
            os.kill(process, kill[0])
        # Compiling, and all else that the machine has to do: what hangs does so for ever.
        status = status_of(process, SECONDS if signalled else 20 * SECONDS)
        return Ended(status, output.read_text(), errors.read_text(), signalled, time.monotonic() - start)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def check(job: Job, place: Path, before: str, ended: Ended, sent: signal.Signals | None, wanted: str) -> str:
    """What is wrong after an attempt; empty: nothing."""
    if ended.status == HANGS:
        return f"no end after {SECONDS} s"
    if sent is not None and _before_it_listened(ended, sent) and digest(place) == before:
        return ""
    for word in ("Traceback", "internal error", "RuntimeWarning"):
        if word in ended.errors + ended.output:
            return f"{word}: {ended.errors[-300:]!r}"
    after = digest(place)
    if ended.status == 0 and not (after and after == wanted and ended.output):
        return "exit 0 without the result"
    if ended.status == 1 and (ended.errors.count("error:") != 1 or not any(word in ended.errors for word in FULL)):
        return f"exit 1: {ended.errors[-300:]!r}"
    if sent is not None and ended.status == -int(sent) and after == wanted and ended.output:
        return ""  # all was done, and Python about to end
    allowed = {0, 1} if sent is None else {0, 1, -int(sent)} if sent == signal.SIGKILL else {0, 1, 130}
    if ended.status not in allowed:
        return f"exit {ended.status}: {ended.errors[-300:]!r}"
    if before and not after:
        return "the old output is gone"
    if after and after not in (before, wanted) and not job.rows:
        return is_whole(place) if job.resumes else "neither the old output nor the new one"
    return ""


def _before_it_listened(ended: Ended, sent: signal.Signals) -> bool:
    """Whether the signal came before the command's first line, and Python or the system ended the process for it."""
    return not ended.output and (ended.status == -int(sent) or "KeyboardInterrupt" in ended.errors)


def leftovers(folder: Path, output: str) -> list[str]:
    """Files beside the output."""
    return sorted(_names(folder) - {output, "ballast"})


def kill_often(bench: Bench, kills: int, random: Random, found: Found, folder: Path) -> None:
    """Kill the jobs so many times, each in rows that end with a run to the end."""
    while found.counts["kills"] < kills:
        job = random.choices(bench.jobs, [job.weight for job in bench.jobs])[0]
        place = folder / job.output
        if random.random() < 0.1:
            shutil.rmtree(bench.folder / "cache", ignore_errors=True)  # compiled anew, and killed meanwhile
        for other in bench.jobs:
            if other is not job or job.resumes or random.random() < 0.5:  # else what is there is the old output
                _remove(folder / other.output)
        number = random.randrange(len(job.variants))
        arguments, wanted = (*job.variants[number], "-o", str(place)), bench.wanted[job.name, number]
        for _ in range(min(KILLS_IN_A_ROW, kills - found.counts["kills"])):
            sent, before = random.choice(SIGNALS), digest(place)
            rows = rows_of(place) if job.rows else {}
            if rows and len(rows) == len(bench.rows):  # nothing is left to be computed
                _remove(place)
                rows, before = {}, ""
            moment = -random.uniform(0, 0.02) if random.random() < 0.3 else _moment(bench, job, random)
            anew = random.random() < ANEW
            if anew and moment > 0:
                moment += IMPORTS * random.random()
            ended = bench.run(arguments, (sent, moment, folder), anew=anew)
            found.counts["of them with an interpreter of its own"] += anew and ended.signalled
            found.counts["kills" if ended.signalled else "ended before"] += 1
            found.counts[f"{job.name} {sent.name}"] += ended.signalled
            found.slowest = max(found.slowest, ended.seconds if ended.signalled else 0)
            found.counts["of them while writing"] += ended.signalled and moment < 0
            found.counts["of them before the command listened"] += (
                _before_it_listened(ended, sent) and sent != SIGNALS[0]
            )
            wrong = check(job, place, before, ended, sent, wanted)
            if job.rows:
                found.counts["sweep: of them with some rows, not all"] += 0 < len(rows_of(place)) < len(bench.rows)
                wrong = wrong or wrong_rows(rows, place, bench.rows)
            if wrong:
                found.fault(f"{' '.join(arguments)}, {sent.name} at {moment:.3f} s: {wrong}")
        finish(bench, job, arguments, wanted, found, folder)
        print(f"{found.counts['kills']} kills, {len(found.faults)} faults, {job.name}", flush=True)


def finish(bench: Bench, job: Job, arguments: Sequence[str], wanted: str, found: Found, folder: Path) -> None:
    """Run a job to its end: the bytes of an undisturbed run, and nothing beside it."""
    place = folder / job.output
    rows = rows_of(place) if job.rows else {}
    ended = bench.run(arguments)
    found.counts["runs to the end"] += 1
    wrong = check(job, place, "", ended, None, wanted)
    if not wrong and job.rows:
        wrong = wrong_rows(rows, place, bench.rows)
    if not wrong and ended.status:
        wrong = f"exit {ended.status}: {ended.errors[-300:]!r}"
    if not wrong and leftovers(folder, job.output):
        wrong = f"leaves {leftovers(folder, job.output)}"
    if wrong:
        found.fault(f"{' '.join(arguments)}, to its end: {wrong}")
        shutil.rmtree(folder)
        folder.mkdir()


def _moment(bench: Bench, job: Job, random: Random) -> float:
    """Seconds of processor time, mostly after the imports."""
    return bench.processor[job.name] * random.uniform(0.05, 1.05)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def fill_disks(bench: Bench, disks: int, random: Random, found: Found) -> None:
    """Run jobs on disks that are too small for the output, the compilation cache or temporary files."""
    for number in range(disks):
        job = bench.jobs[number % len(bench.jobs)]
        what = ("output", "output", "output", "cache", "temporary files")[number // len(bench.jobs) % 5]
        wanted, variant = bench.wanted[job.name, 0], job.variants[0]
        with small_disk(bench.folder / "disk", size := random.choice((4, 8, 16, 32, 64, 128, 256))) as disk:
            if disk is None:
                print("no full disks: a small file system can only be mounted by root")
                return
            folder = bench.folder / "beside"
            folder.mkdir(exist_ok=True)
            place = (disk if what == "output" else folder) / job.output
            if what != "output":
                (disk / "ballast").write_bytes(bytes(size * 1024 - 4096))
            arguments = (*variant, "-o", str(place))
            where = {} if what == "output" else {"XDG_CACHE_HOME" if what == "cache" else "TMPDIR": str(disk)}
            ended = bench.run(arguments, environment=where)
            found.counts["full disks"] += 1
            found.counts[f"full disk of the {what}: {'went on' if ended.status == 0 else 'refused in one line'}"] += 1
            wrong = check(job, place, "", ended, None, wanted)
            if not wrong and job.rows:
                wrong = wrong_rows({}, place, bench.rows)
            if not wrong and ended.status and what == "output" and leftovers(disk, job.output):
                wrong = f"leaves {leftovers(disk, job.output)}"
            if wrong:
                found.fault(f"{' '.join(arguments)}, {size} kB for {what}: {wrong}")
            _remove(folder)
            print(f"{found.counts['full disks']} full disks, {len(found.faults)} faults, {what}", flush=True)


def main() -> None:
    """Run the soak and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--full", type=int, default=20, help="full disks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=[job.name for job in JOBS], help="these alone")
    options = parser.parse_args()
    for name in IMPORTED:
        import_module(name)
    random, found, start = Random(options.seed), Found(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cimc-soak-") as temporary:
        jobs = [job for job in JOBS if options.jobs is None or job.name in options.jobs]
        bench = Bench(Path(temporary), jobs)
        print(f"ready after {time.monotonic() - start:.0f} s; processor time: {bench.processor}", flush=True)
        fill_disks(bench, options.full, random, found)
        folder = Path(temporary) / "work"
        folder.mkdir()
        kill_often(bench, options.kills, random, found, folder)
        kept = _names(Path(temporary) / "tmp")
    print("| what | number |\n|---|---|")
    for name, count in [*sorted(found.counts.items()), ("faults", len(found.faults))]:
        print(f"| {name} | {count} |")
    print(f"| left in the folder of temporary files | {len(kept)} |")
    print(f"| longest time from a signal to the end, s | {found.slowest:.1f} |")
    print(f"| minutes | {(time.monotonic() - start) / 60:.0f} |")
    sys.exit(1 if found.faults else 0)


if __name__ == "__main__":
    main()
