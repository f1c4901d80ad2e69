"""Compile mutated networks and open mutated files of every kind: each must work or be refused in one line.

    python -m tests.benchmarks.fuzz [--files] [--cases 20000] [--first 0] [--workers 2]

A worker process takes one seeded case after another: networks are compiled (read, lower, map, verify, write, read
again); with --files it is the other files (chips, devices, packages, `.cim`, NPZ, IDX, measurements, fault maps,
sweeps). What counts as a fault: another exception than CimcError, a message of several lines, the death of the process,
more than 60 s, memory that grows by more than 1 GB (for --files), and a file opened outside the folder of the model
(there lies a pipe, on which whoever opens it waits for ever).
"""

import argparse
import contextlib
import gc
import io
import resource
import selectors
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SECONDS = 60
STARTS = 600  # seconds until a worker has imported what it needs, beside all else that the machine does
MEMORY = 6 * 2**30
GROWS_MB = 1024
LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"
CHIP = "brram-256x64"
LONGEST_MESSAGE = 1000


def run_network(seed: int, folder: Path) -> str:
    """Compile case `seed`; "done" or "refused", or "FAULT" and a description."""
    from cimc.api.compile import compile_model
    from cimc.artifact import read_artifact
    from tests.mutations import mutated_artifact, mutated_network, trap

    trap(folder)
    artifact = folder / "out.cim"
    what = ""

    def use() -> None:
        nonlocal what
        if seed % 8 == 7:
            good = folder / "good.cim"
            if not good.exists():
                compile_model(LENET1, CHIP, output=good)
            content, what = mutated_artifact(seed, good.read_bytes())
            artifact.write_bytes(content)
        else:
            path, what = mutated_network(seed, folder)
            artifact.unlink(missing_ok=True)
            compile_model(path, CHIP, output=artifact)
        read_artifact(artifact)

    result = judged(use)
    return f"{result} ({what})" if result.startswith("FAULT") else result


def judged(use: Callable[[], object]) -> str:
    """Read or compile a file: "done" or "refused", or "FAULT" and why."""
    from cimc.errors import CimcError

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        use()
        result = "done"
    except CimcError as error:
        message = str(error)
        fine = message.isprintable() and len(message) < LONGEST_MESSAGE
        result = "refused" if fine else f"FAULT message {message[:80]!r}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAULT {type(error).__name__}: {str(error).splitlines()[:1]} in {Path(where.filename).name}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    return result if grown < GROWS_MB else f"FAULT {grown} MB of memory"


def work(first: int, step: int, last: int, *, files: bool) -> None:
    """A worker: run cases and print a line before and after each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import cimc.api.compile  # noqa: F401  # what it imports is then out of the way of the collector

    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as name:
        run = file_cases(Path(name)) if files else lambda seed: run_network(seed, Path(name))
        for seed in range(first, last, step):
            print(f"{seed} start", flush=True)
            with contextlib.redirect_stderr(io.StringIO()):
                result = run(seed)
            print(f"{seed} {result}".encode("ascii", "backslashreplace").decode(), flush=True)


def file_cases(folder: Path) -> Callable[[int], str]:
    """What reads the mutated file of a seed, and says how that ended, as `run_network` does."""
    from tests.mutated_files import make_good, mutated_file

    good = make_good(folder)

    def run(seed: int) -> str:
        what, use = mutated_file(seed, folder, good)
        result = judged(use)
        return f"{result} ({what})" if result.startswith("FAULT") else result

    return run


def drive(first: int, step: int, last: int, *, files: bool = False) -> Counter[str]:
    """Run cases in a worker, start another where one dies or hangs, print every fault, and count the results."""
    counts: Counter[str] = Counter()
    while first < last:
        running, end = _until_it_stops(first, step, last, counts, files=files)
        if running is None and end < last:
            raise RuntimeError(f"a worker does not start at case {first}")
        if running is not None:
            counts["FAULT"] += 1
            print(f"{running} FAULT: the process died or took more than {SECONDS} s", flush=True)
        first = end
    return counts


def _until_it_stops(first: int, step: int, last: int, counts: Counter[str], *, files: bool) -> tuple[int | None, int]:
    """Run one worker; the case in which it was stopped, if any, and the case to go on with."""
    command = [sys.executable, "-m", "tests.benchmarks.fuzz", "--work", str(first), str(step), str(last)]
    command += ["--files"] if files else []
    running, end = None, first
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        selector = selectors.DefaultSelector()
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(SECONDS if running is not None else STARTS) and (line := process.stdout.readline()):
            seed, _, result = line.strip().partition(" ")
            end = int(seed) + step
            running = int(seed) if result == "start" else None
            if running is None:
                counts[result.split(" ")[0]] += 1
            if result.startswith("FAULT"):
                print(line.strip(), flush=True)
        process.kill()
    return running, end


def fuzz(first: int, cases: int, workers: int, *, files: bool = False) -> Counter[str]:
    """Run cases first .. first + cases - 1; how many were "done", "refused" and "FAULT"."""
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda k: drive(first + k, workers, first + cases, files=files), range(workers))
        return sum(parts, Counter())


def main() -> None:
    """Run the cases on several workers and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--files", action="store_true", help="other files than networks")
    parser.add_argument("--work", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work, files=options.files)
        return
    total = fuzz(options.first, options.cases, options.workers, files=options.files)
    print(f"{total.total()} cases: " + ", ".join(f"{count} {name}" for name, count in sorted(total.items())))
    sys.exit(1 if total["FAULT"] else 0)


if __name__ == "__main__":
    main()
