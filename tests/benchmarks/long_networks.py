"""Processor time and memory of compiling a chain of MatMuls, by its length and the objective.

    python -m tests.benchmarks.long_networks [--layers 10000] [--chip brram-256x64] [--mapper-seconds S]

Each row is a process of its own: read, lowered, mapped, written; not verified, as the tool decides by itself from 3,000
layers on.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
OBJECTIVES = ("", "latency", "interval", "energy", "arrays")
SIDE = 8


def chain(layers: int) -> onnx.ModelProto:
    """So many MatMuls of `SIDE` x `SIDE`, one behind the other."""
    random = np.random.default_rng(0)
    names = ["x", *(f"v{n}" for n in range(1, layers)), "y"]
    nodes = [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(layers)]
    tensors = [
        numpy_helper.from_array((random.normal(size=(SIDE, SIDE)) / np.sqrt(SIDE)).astype(np.float32), f"w{n}")
        for n in range(layers)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIDE]) for name in "xy")
    graph = helper.make_graph(nodes, "chain", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(*arguments: str) -> tuple[float, int, str]:
    """Processor time in s, most memory in MB, and the last line of a `cimc` command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cimc", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    said = process.stderr.read().decode().strip()
    _, status, used = os.wait4(process.pid, 0)
    result = "done" if status == 0 else (said.splitlines() or ["no word"])[-1]
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024, result


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10000)
    parser.add_argument("--chip", default="brram-256x64")
    parser.add_argument("--mapper-seconds")
    options = parser.parse_args()
    print("| objective | processor time, s | MB | result |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "chain.onnx"
        onnx.save(chain(options.layers), network)
        for objective in OBJECTIVES:
            chosen = ("--objective", objective) if objective else ()
            if objective and options.mapper_seconds:
                chosen += ("--mapper-seconds", options.mapper_seconds)
            output = ("-o", str(Path(folder) / "chain.cim"))
            seconds, memory, result = measure("compile", str(network), "--chip", options.chip, *chosen, *output)
            print(f"| {objective or 'none'} | {seconds:.0f} | {memory} | {result} |", flush=True)


if __name__ == "__main__":
    main()
