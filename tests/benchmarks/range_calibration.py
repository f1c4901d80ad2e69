"""Figure 7 of arXiv 2305.14547 rebuilt: a network by four trainings on other chips, ranges calibrated or not.

    python -m tests.benchmarks.range_calibration --data-dir DIR [--out results/ranges] [--seeds 0 1 2] [--dies 5]
    python -m tests.benchmarks.range_calibration --network vgg8 --length 3 --data-dir DIR

LeNet-1 on real MNIST, or VGG-8 on CIFAR-10.

The chips are `brram-256x64` with programming errors of 0 to 1 level (4 uS). Without calibration every layer takes its
largest weight as weight range, and the input range and the scale that its training had; one whose training knew no
converters has no range, and takes 1, that of its images. With it, ranges and scales are those that `cimc export`
chooses on 32 images.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

import cimc
from cimc.artifact import Artifact, read_artifact
from cimc.chip import Chip, load_chip
from cimc.dataset import Dataset
from cimc.package import Package
from runtime.network.load import load_network
from runtime.system.program import program_of
from runtime.system.state import build_system, gain_name, initial_state
from tests.benchmarks.deployment_over_time import AWARE
from tests.benchmarks.runs import Runs, add_shortening, arguments, first_images, model_file, runs_of, spread
from tests.benchmarks.vgg8 import METHODS, RATE

LEVEL_US, LEVELS = 4.0, (0.0, 0.25, 0.5, 0.75, 1.0)
DATA = {"lenet1": "mnist", "vgg8": "cifar10"}
RECIPES = {
    "lenet1": ("--steps-per-epoch", "400", "--batch-size", "64", "--lr", "0.004"),
    "vgg8": (
        "--batch-size",
        "64",
        "--lr",
        str(RATE),
        "--weight-decay",
        "0.01",
        "--schedule",
        "cosine",
        "--augment",
        "crop,flip",
    ),
}
TRAININGS = ("float", "quantisation-aware", "hardware-aware", "mixed-precision")


@dataclass(frozen=True)
class Network:
    """A network of models/build.py and the epochs of its trainings."""

    name: str
    epochs: int

    def trained(self, runs: Runs, training: str, seed: int) -> str:
        """The path of the network after that training."""
        options: tuple[str, ...] = ("--update", training)
        if self.name == "vgg8":
            options = (*options, *METHODS.get(training, ()))  # the runs of tests.benchmarks.vgg8
        if training == "hardware-aware":
            options = (*AWARE, self.trained(runs, "float", seed))
        recipe = (*RECIPES[self.name], "--epochs", str(self.epochs), *options)
        run = f"{self.name}-{training}-{seed}"
        return runs.compile_and_train(run, model_file(runs, self.name), "brram-256x64", seed, *recipe)


def chip_with(level: float) -> Chip:
    """The chip with a programming error of so many levels."""
    chip = load_chip("brram-256x64")
    programming = chip.cell.programming.model_copy(update={"error_sd_uS": level * LEVEL_US})
    return chip.model_copy(update={"cell": chip.cell.model_copy(update={"programming": programming})})


def without_calibration(package: Package, artifact: Artifact) -> Package:
    """The package with weight ranges of the largest weights, and with the input ranges and scales of training, or 1."""
    system = build_system(load_network(package.network), package.mapping, package.chip)
    state = initial_state(system)
    for name in state["input_range"]:
        known = float(artifact.state.get(f"input_range/{name}", np.float32(0)))
        state["input_range"][name] = jax.device_put(np.float32(known if known > 0 else 1.0))
        scale = artifact.state.get(f"digital/{gain_name(name)}", np.float32(1))
        state["digital"][gain_name(name)] = jax.device_put(np.asarray(scale, np.float32))
    return replace(package, program=program_of(system, state))


def deployed(
    runs: Runs, network: Network, data: Dataset, dies: int, training: str, seed: int, calibrated: bool
) -> list[float]:
    """By level, the median accuracy over the dies, over that of the float training."""
    result = runs.out / f"{network.name}-{training}-{seed}-{'calibrated' if calibrated else 'as-trained'}.json"
    if not result.exists():
        found = []
        path = network.trained(runs, training, seed)
        for level in LEVELS:
            package = cimc.export(path, chip_with(level))
            if not calibrated:
                package = without_calibration(package, read_artifact(Path(path)))
            found.append(float(np.median(cimc.deploy(package, data, chips=dies, seed=seed).accuracies)))
        result.write_text(json.dumps(found), encoding="utf-8")
        print(result.name, flush=True)
    medians: list[float] = json.loads(result.read_text(encoding="utf-8"))
    return medians


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/ranges"))
    parser.add_argument("--network", choices=list(DATA), default="lenet1")
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=TRAININGS)
    parser.add_argument("--length", type=int, default=5, help="epochs")
    parser.add_argument("--dies", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    add_shortening(parser)
    options = parser.parse_args()
    name, network = DATA[options.network], Network(options.network, options.length)
    runs, data = runs_of(options, name), first_images(name, options.data_dir, options.images)
    measure = partial(deployed, runs, network, data, options.dies)
    floats = [network.trained(runs, "float", seed) for seed in options.seeds]
    exact = [cimc.evaluate(path, data, exact=True)["accuracy"] for path in floats]
    print(f"\n| training | ranges | {' | '.join(f'{level:g} level' for level in LEVELS)} |")
    print(f"|{'---|' * (2 + len(LEVELS))}")
    for training in options.trainings:
        for calibrated in (False, True):
            found = [measure(training, seed, calibrated) for seed in options.seeds]
            shares = np.array(found) / np.array(exact)[:, None]
            cells = " | ".join(spread(list(column), ".3f") for column in shares.T)
            print(f"| {training} | {'calibrated' if calibrated else 'as trained'} | {cells} |")


if __name__ == "__main__":
    main()
