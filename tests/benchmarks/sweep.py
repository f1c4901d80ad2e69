"""A sweep of a trained LeNet-1: 27 points on all of MNIST's test images, its time; killed at random, and on a dask
cluster of two workers of which one is killed: the same table.

python -m tests.benchmarks.sweep --data-dir DIR [--workers N] [--trained FILE]
"""

import argparse
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distributed import LocalCluster

ROOT = Path(__file__).parents[2]
VARY = ("cell.read_noise_uS=0.4,0.8,1.6", "cell.programming.error_sd_uS=0.5,1.5,2.9", "adc.bits=6,7,8")
KILLED_AFTER = 5  # points
TRAINING = ("--epochs", "2", "--steps-per-epoch", "200", "--lr", "0.004")


def main() -> None:
    """Train where no file is given, sweep twice (the second time with a warm cache), kill and go on, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", required=True, help="MNIST")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--trained", type=Path, help="a trained .cim of LeNet-1; else one is trained for two epochs")
    options = parser.parse_args()
    data = ("--data", "mnist", "--data-dir", options.data_dir)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # empty at first
        trained = options.trained or folder / "trained.cim"
        if options.trained is None:
            compiled = str(folder / "lenet1.cim")
            _cimc("compile", str(ROOT / "models" / "lenet1.onnx"), "--chip", "brram-soc", "-o", compiled)
            _cimc("train", compiled, *data, *TRAINING, "-o", str(trained))
        sweep = ["sweep", str(trained), *data, "--workers", options.workers]
        for field in VARY:
            sweep += ["--vary", field]
        for label in ("empty cache", "warm cache"):
            wall, processor, text = _cimc(*sweep, "-o", str(folder / label))
            print(f"27 points, {label}: {wall:.1f} s, {processor:.1f} s of processor time", flush=True)
        print(text)
        at = random.uniform(0.3, 0.9) * wall
        process = subprocess.Popen([sys.executable, "-m", "cimc", *sweep, "-o", str(folder / "killed")], cwd=ROOT)
        time.sleep(at)
        process.kill()
        process.wait()
        before = len(_rows(folder / "killed"))
        _cimc(*sweep, "-o", str(folder / "killed"))
        same = _rows(folder / "killed") == _rows(folder / "warm cache") == _rows(folder / "empty cache")
        print(f"killed after {at:.1f} s with {before} points, gone on: {'the same table' if same else 'ANOTHER TABLE'}")
        spread = [word for word in sweep if word not in ("--workers", options.workers)]
        began = time.perf_counter()
        killed_at = _on_cluster(spread, folder / "cluster")
        took, equal = time.perf_counter() - began, _rows(folder / "cluster") == _rows(folder / "warm cache")
        print(
            f"two dask workers, one killed after {killed_at} points, {took:.1f} s: "
            f"{'the same table' if equal else 'ANOTHER TABLE'}"
        )
        if not (same and equal):
            raise SystemExit(1)


def _on_cluster(sweep: list[str], folder: Path) -> int:
    """Sweep on two dask workers and kill one after some points; how many were there then."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        pid = next(iter(cluster.workers.values())).pid
        command = [sys.executable, "-m", "cimc", *sweep, "--cluster", cluster.scheduler_address, "-o", str(folder)]
        process = subprocess.Popen(command, cwd=ROOT)
        while process.poll() is None and len(_rows(folder)) < KILLED_AFTER:
            time.sleep(0.1)
        before = len(_rows(folder))
        os.kill(pid, signal.SIGKILL)
        if process.wait():
            raise SystemExit("the sweep on the cluster failed")
    return before


def _cimc(*words: str) -> tuple[float, float, str]:
    """Run a command: seconds, processor seconds, and what it printed."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "cimc", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return time.perf_counter() - began, processor, done.stdout


def _rows(folder: Path) -> list[tuple[object, ...]]:
    """Everything of the table but the times; numbers and keys come once by its constraints."""
    path = folder / "results.sqlite"
    if not path.exists():
        return []
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT number, key, figures, error FROM points ORDER BY number").fetchall()


if __name__ == "__main__":
    main()
