"""LeNet-5 on chips of exact states: reads as products of integers, or converted code by code.

    python -m tests.benchmarks.exact_reads --data-dir DIR [--chips isaac puma] [--converted]

Processor time of this process for 1,024 images, the best of three rounds. One process reads one way, so that none meets
what the other has compiled.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax

from cimc.api.compile import compile_model
from cimc.data.load import load
from cimc.dataset import Dataset, Samples
from runtime.crossbar.xla import use_compilation_cache
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.inference import predict
from runtime.system.state import System, build_system, initial_state
from tests.benchmarks.runs import MODELS

IMAGES, ROUNDS = 1024, 3
Work = Callable[[], int]  # returns the images that it took


def inference(system: System, data: Dataset) -> Work:
    """Images through the network, without noise."""
    (images,) = data.test.inputs.values()
    samples = Samples({system.network.input: images[:IMAGES]})
    state = calibrate(system, initial_state(system), samples, data.preprocess, jax.random.key(1))

    def work() -> int:
        predict(system, state, samples, data.preprocess, key=None)
        return IMAGES

    return work


def system_on(chip: str, converted: bool) -> System:
    """LeNet-5 on a chip."""
    artifact = compile_model(MODELS / "lenet5.onnx", chip, verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    for crossbar in system.crossbars.values() if converted else ():
        vars(crossbar)["reading"] = replace(crossbar.reading, digits=None)  # before it is first used
    return system


def rate(work: Work) -> float:
    """Images a second of processor time."""
    begun = time.process_time()
    return work() / (time.process_time() - begun)


def main() -> None:
    """Print a line for each chip and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--chips", nargs="+", default=["isaac"])
    parser.add_argument("--converted", action="store_true")
    options = parser.parse_args()
    use_compilation_cache()
    data, way = load("mnist", data_dir=options.data_dir), "converted" if options.converted else "multiplied"
    print("| chip | reads | images/s | peak MB so far |\n|---|---|---|---|")
    for chip in options.chips:
        system = system_on(chip, options.converted)
        work = inference(system, data)
        work()  # compiles
        best = max(rate(work) for _ in range(ROUNDS))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"| {chip} | {way} | {best:.0f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
