"""Peak memory of the commands for a network of 25 million weights, of this checkout or beside another one.

    python -m tests.benchmarks.memory [--against OTHER_CHECKOUT] [--chips 4]

A perceptron of four layers on `brram-256x64`, 64 random images. The peak is that of the whole process, the libraries
and XLA's compiler (about 500 MB) included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
SIZES = (784, 4096, 4096, 1280, 10)
CHIP = "brram-256x64"


def network() -> onnx.ModelProto:
    """The perceptron, with weights drawn by He's rule."""
    random, nodes, parameters = np.random.default_rng(0), [helper.make_node("Flatten", ["x"], ["v0"])], []
    for index, (rows, columns) in enumerate(pairwise(SIZES)):
        weight = random.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)
        parameters.append(numpy_helper.from_array(weight, f"w{index}"))
        parameters.append(numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}"))
        last = index == len(SIZES) - 2
        nodes.append(helper.make_node("Gemm", [f"v{index}", f"w{index}", f"b{index}"], ["y" if last else f"s{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"s{index}"], [f"v{index + 1}"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 28, 28])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", SIZES[-1]])
    graph = helper.make_graph(nodes, "perceptron", [x], [y], parameters)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def peak(checkout: Path, *command: str) -> int:
    """MB that a command of a checkout took at most. Raises CalledProcessError when it fails."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'cimc', *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=checkout,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(done.stdout) // 1024


def peaks(checkout: Path, folder: Path, chips: int) -> dict[str, int]:
    """MB of each command, in their order."""
    model, data = str(folder / "network.onnx"), ("--data", str(folder / "images.npz"))
    compiled, trained, package = (str(folder / f"{checkout.name}{end}") for end in (".cim", "-trained.cim", "-package"))
    few = ("--epochs", "1", "--steps-per-epoch", "2")
    return {
        "compile": peak(checkout, "compile", model, "--chip", CHIP, "--no-verify", "-o", compiled),
        "eval": peak(checkout, "eval", compiled, *data),
        "export": peak(checkout, "export", compiled, *data, "-o", package),
        "deploy": peak(checkout, "deploy", package, *data, "--chips", str(chips)),
        "train": peak(checkout, "train", compiled, *data, *few, "-o", trained),
        "eval, trained": peak(checkout, "eval", trained, *data),
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--chips", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        onnx.save(network(), str(folder / "network.onnx"))
        images = np.random.default_rng(1).integers(0, 256, (64, 1, 28, 28), np.uint8)
        labels = (np.arange(64) % 10).astype(np.int32)
        np.savez(folder / "images.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        here = peaks(ROOT, folder, options.chips)
        other = {} if options.against is None else peaks(options.against.resolve(), folder, options.chips)
    print("| command | MB |" + (" before | ratio |" if other else "") + "\n|---|---|" + ("---|---|" if other else ""))
    for command, found in here.items():
        ratio = f" {other[command]} | {found / other[command]:.2f} |" if other else ""
        print(f"| {command} | {found} |{ratio}")


if __name__ == "__main__":
    main()
