"""Speed beside aihwkit, CrossSim, plain PyTorch and plain JAX: one table, each row measured in turn.

    python -m tests.benchmarks.peers --aihwkit-python PY [--crosssim DIR] [--rounds 5] [--only TEXT] [--cpu]

Every tool runs in a process of its own, prepares, and then measures rounds of about two seconds, one tool after the
other, so that all see the same minutes; each at one thread and at two, of which the better counts. Ratios are taken
round by round. PyTorch, aihwkit (`pip install torch aihwkit`) and CrossSim need a Python that has torch; CrossSim
(sandialabs/cross-sim) is not on PyPI, so its folder is named. Tools that are not given are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.peers.work import Work

ROOT = Path(__file__).parents[3]
# row: (title, our work, {peer: its work}); what differs is said in tests/benchmarks/README.md.
Row = tuple[str, Work, dict[str, Work]]


def rows() -> list[Row]:
    """All measurements."""
    table: list[Row] = []
    for batch in (64, 32, 8):
        ours = Work("cimc", batch=batch)
        peers = {tool: replace(ours, tool=tool) for tool in ("aihwkit", "torch", "jax")}
        table.append((f"LeNet-5 training, batch {batch}, 7/9 bit, noise", ours, peers))
    ours = Work("cimc", input_bits=8, adc_bits=8)
    table.append(("LeNet-5 training, batch 64, 8/8 bit, noise", ours, {"aihwkit": replace(ours, tool="aihwkit")}))
    for array in (256, 64):
        ours = Work("cimc", array=array)
        peers = {"aihwkit": replace(ours, tool="aihwkit")}
        table.append((f"LeNet-5 training, batch 64, {array} x {array} arrays", ours, peers))
    ours = Work("cimc", mode="infer")
    peers = {tool: replace(ours, tool=tool) for tool in ("aihwkit", "torch", "jax")}
    table.append(("LeNet-5 inference, 7/9 bit, noise", ours, peers))
    ours = Work("cimc", mode="infer", array=256, input_bits=8, adc_bits=8, noise=False)
    cross = replace(ours, tool="crosssim")
    table.append(("LeNet-5 inference, 256 x 256, 8/8 bit, no noise", ours, {"crosssim": cross}))
    table.append(("LeNet-5 inference, as above, peer in 4 slices", ours, {"crosssim": replace(cross, slices=4)}))
    sliced = replace(ours, adc_bits=10, slices=4, serial=True)
    cross_sliced = replace(sliced, tool="crosssim")
    table.append(("LeNet-5 inference, 4 slices of 2 bits, inputs bit by bit", sliced, {"crosssim": cross_sliced}))
    small, cross = replace(ours, array=64), replace(cross, array=64)
    table.append(("LeNet-5 inference, 64 x 64, 8/8 bit, no noise", small, {"crosssim": cross}))
    for network, mode in (("vgg8", "train"), ("vgg8", "infer"), ("resnet18", "infer")):
        ours = Work("cimc", network=network, mode=mode, array=256)
        peers = {tool: replace(ours, tool=tool) for tool in ("torch", "aihwkit")}
        table.append((f"{network} {mode}, batch 64, 256 x 256, 7/9 bit, noise", ours, peers))
    return table


def main() -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aihwkit-python", help="Python with torch and aihwkit")
    parser.add_argument("--crosssim", help="folder that holds CrossSim's package `simulator`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose title holds this text")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--cpu", action="store_true", help="time of the processes, one thread each: a busy machine")
    options = parser.parse_args()
    if options.cpu:
        options.threads = [1]
    print("| work | tool | threads | images/s: median (min-max) | peak MB | cimc is faster by: median (min-max) |")
    print("|---|---|---|---|---|---|", flush=True)
    for title, ours, peers in rows():
        if options.only not in title:
            continue
        works = [ours, *(work for tool, work in peers.items() if _available(tool, options))]
        _measure(title, works, options)


def _available(tool: str, options: argparse.Namespace) -> bool:
    needs = {"crosssim": options.crosssim and options.aihwkit_python, "jax": True}
    return bool(needs.get(tool, options.aihwkit_python))


def _measure(title: str, works: list[Work], options: argparse.Namespace) -> None:
    """Rounds of all works in turn, each at every thread count; prints the rows."""
    runs: dict[tuple[int, int], list[dict[str, float]]] = {}
    workers = {}
    for index, work in enumerate(works):
        for threads in sorted(set(options.threads)):
            if work.tool == "crosssim" and threads > 1:
                continue
            worker = _start(replace(work, threads=threads, cpu=options.cpu), options)
            if worker is not None:
                workers[index, threads], runs[index, threads] = worker, []
    for _ in range(options.rounds):
        for key, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            runs[key].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()  # it ends when its input ends
    best: dict[int, tuple[int, int]] = {}
    for key, rounds in runs.items():
        if key[0] not in best or _median(rounds) > _median(runs[best[key[0]]]):
            best[key[0]] = key
    if 0 not in best:
        return
    rates = {index: [run["rate"] for run in runs[key]] for index, key in best.items()}
    for index, key in best.items():
        ratios = [ours / theirs for ours, theirs in zip(rates[0], rates[index], strict=True)]
        ratio = "" if index == 0 else _spread(ratios, ".2f")
        peak = max(run["peak_mb"] for run in runs[key])
        print(f"| {title} | {works[index].tool} | {key[1]} | {_spread(rates[index], '.0f')} | {peak:.0f} | {ratio} |")
        title = ""
    sys.stdout.flush()


def _start(work: Work, options: argparse.Namespace) -> subprocess.Popen | None:
    """A worker that is ready, or None (with a line on stderr) when it fails."""
    python = sys.executable if work.tool in ("cimc", "jax") else options.aihwkit_python
    path = os.pathsep.join([str(ROOT), *([options.crosssim] if work.tool == "crosssim" else [])])
    command = [python, "-m", f"tests.benchmarks.peers.worker_{work.tool}", work.dumps()]
    environment = {**os.environ, "PYTHONPATH": path}
    pipe = subprocess.PIPE
    worker = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment
    )
    if worker.stdout is not None and worker.stdout.readline():
        return worker
    print(f"{work.tool} cannot run {work.dumps()}; run it alone to see why: {' '.join(command)!r}", file=sys.stderr)
    return None


def _median(rounds: list[dict[str, float]]) -> float:
    return statistics.median(run["rate"] for run in rounds)


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


if __name__ == "__main__":
    main()
