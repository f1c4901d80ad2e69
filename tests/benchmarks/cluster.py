"""Virtual dies on one process, on local processes, and on a dask cluster of which one worker is killed: equal bits?

    python -m tests.benchmarks.cluster [--dies 200] [--images 500] [--workers 2] [--at 1d] [--compensate global]

LeNet-1 as it is in `models/` on `hermes`, on the synthetic digits: the weights are not trained, which neither the time
nor the question depends on. All figures of every die are compared, its SNR among them. Each time is the second of its
kind, but workers are new processes that start and load JAX in it.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distributed import LocalCluster

import cimc
from runtime.deployment.result import rows_of_chips
from tests.benchmarks.runs import MODELS


def killing(cluster: Any) -> Callable[[int, int], None]:
    """A progress that kills a worker of the cluster when a quarter is done, once."""
    pids = [worker.pid for worker in cluster.workers.values()]

    def progress(done: int, total: int) -> None:
        if pids and 4 * done >= total:
            os.kill(pids[0], signal.SIGKILL)
            pids.clear()

    return progress


def main() -> None:
    """Deploy in each way, and say which dies differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dies", type=int, default=200)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at", nargs="*", default=[])
    parser.add_argument("--compensate", default="none")
    options = parser.parse_args()
    data = cimc.load_data("digits")
    data = replace(data, test=data.test.take(slice(options.images)))
    with tempfile.TemporaryDirectory() as folder:
        compiled, package = Path(folder) / "lenet1.cim", Path(folder) / "package"
        cimc.compile(MODELS / "lenet1.onnx", "hermes", output=compiled, verify=False)
        cimc.export(compiled, output=package, data=data)

        def deploy(chips: int = options.dies, **how: Any) -> list[dict[str, Any]]:
            found = cimc.deploy(package, data, chips=chips, at=options.at, compensate=options.compensate, **how)
            return rows_of_chips(found)

        deploy(8)
        print(f"| {options.dies} dies x {len(data.test)} images on | s | rows that differ |\n|---|---|---|")
        began = time.perf_counter()
        alone = deploy()
        print(f"| one process | {time.perf_counter() - began:.0f} | |", flush=True)
        with LocalCluster(
            n_workers=options.workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster:
            ways = {
                f"{options.workers} local processes": {"workers": options.workers},
                f"dask, {options.workers} workers, one killed": {
                    "cluster": cluster.scheduler_address,
                    "progress": killing(cluster),
                },
            }
            for name, how in ways.items():
                began = time.perf_counter()
                found = deploy(**how)
                print(f"| {name} | {time.perf_counter() - began:.0f} | {differ(alone, found)} |", flush=True)


def differ(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> int:
    """How many rows are not the same to the bit."""
    pairs = zip_longest(map(repr, wanted), map(repr, found))  # texts of floats are exact, and NaN is NaN
    return sum(one != other for one, other in pairs)


if __name__ == "__main__":
    main()
