"""Images a second on the arrays, converters and noise on, beside the same network in onnxruntime in float32.

    python -m tests.benchmarks.real_sizes [NAME ...] [--images 8] [--rounds 5] [--chip brram-256x64]

Networks of usual sizes with random weights. Both run in this process in turn, on all its processors, onnxruntime with
its own optimisations; the batch of the arrays is the tool's own choice. `first` is the time from the compiled network
to the first result with nothing compiled before: programming, calibration on 8 images and a batch.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime

from cimc.api.compile import compile
from cimc.dataset import Preprocess, Samples
from models.build import resnet18 as cifar_resnet18
from models.build import vgg8
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.inference import batch_size, predict
from runtime.system.state import build_system, initial_state, program
from tests.benchmarks.mapper.imagenet import mobilenetv2, resnet18, resnet50

NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    "resnet18": (resnet18, (3, 224, 224)),
    "resnet50": (resnet50, (3, 224, 224)),
    "mobilenetv2": (mobilenetv2, (3, 224, 224)),
    "vgg8": (vgg8, (3, 32, 32)),
    "resnet18-cifar": (cifar_resnet18, (3, 32, 32)),
}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print a row a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=f"of {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chip", default="brram-256x64")
    options = parser.parse_args()
    print("| network | first, s | batch | images/s: median (min-max) | onnxruntime | ratio: median (min-max) |")
    print("|---|---|---|---|---|---|")
    for name in options.names or NETWORKS:
        print(row(name, options), flush=True)


def row(name: str, options: argparse.Namespace) -> str:
    """The row of one network."""
    make, shape = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.save(make(), path)
        artifact = compile(path, options.chip, verify=False).artifact
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((options.images, *shape), np.float32)
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    (given,), (wanted,) = session.get_inputs(), system.network.inputs
    samples = Samples({wanted: images})

    began = time.perf_counter()
    state, _ = program(system, initial_state(system), new_key(0))
    state = calibrate(system, state, samples.take(slice(8)), Preprocess(), new_key(1))
    predict(system, state, samples, Preprocess(), key=new_key(2))
    first = time.perf_counter() - began

    ours, theirs = [], []
    for index in range(options.rounds):
        theirs.append(len(images) / seconds(lambda: session.run(None, {given.name: images})))
        key = jax.random.fold_in(new_key(3), index)
        ours.append(len(images) / seconds(lambda key=key: predict(system, state, samples, Preprocess(), key=key)))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]

    def text(values: list[float], digits: int) -> str:
        low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
        return f"{statistics.median(values):.{digits}f} ({low}-{high})"

    size = batch_size(system.network)
    return f"| {name} | {first:.0f} | {size} | {text(ours, 1)} | {text(theirs, 1)} | {text(ratios, 2)} |"


if __name__ == "__main__":
    main()
