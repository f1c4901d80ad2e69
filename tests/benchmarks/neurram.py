"""ResNet-20 on CIFAR-10, trained with noise for NeuRRAM and read with noise: the shape of Wan et al.'s public table.

    python -m tests.benchmarks.neurram --data-dir DIR [--length 5] [--seeds 0 1 2] [--images 2000] [--dies 3]
        [--keep-statistics 1]

Training (github.com/weierwan/Neurram_48core): Gaussian noise of the weights, sd `a` of a layer's largest, drawn anew in
every step, on the chip `neurram`: inputs of 4 bit with their sign, so of 3 bit after a ReLU. Test: the same chip, where
programming leaves an error of that sd of a weight in place of the chip's own; its converters stay, which the published
simulation does not have. The table is mean ± standard deviation over all dies of all seeds.

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

import json
from functools import partial
from pathlib import Path

import cimc
from cimc.chip import Chip, load_chip
from cimc.dataset import Dataset
from tests.benchmarks.runs import Runs, add_shortening, arguments, first_images, model_file, runs_of, spread, work_off

TRAINED, TESTED = (0.0, 0.1, 0.2), (0.0, 0.05, 0.1, 0.15)
PUBLISHED = {  # mean accuracy % after 200 epochs, by noise in training
    0.0: (87.25, 69.28, 25.68, 12.21),
    0.1: (88.19, 87.08, 83.83, 77.23),
    0.2: (87.56, 86.97, 85.61, 83.26),
}
RECIPE = ("--batch-size", "64", "--lr", "0.002", "--augment", "crop,flip", "--update", "hardware-aware")
AS_PUBLISHED = ("--set", "output_noise=0", "--set", "clip_sigma=0", "--set", "scale=layer")


def run_of(noise: float, seed: int) -> str:
    """Name of a training's files."""
    return f"resnet20-{noise:g}-{seed}"


def train(runs: Runs, noise: float, seed: int, epochs: int, kept: int) -> None:
    """Train the network with that noise, in the last epochs with the statistics of batch normalisation that it has."""
    last = ("--keep-statistics", str(kept)) if kept else ()
    options = (*RECIPE, *AS_PUBLISHED, "--epochs", str(epochs), "--set", f"noise={noise:g}", *last)
    runs.compile_and_train(run_of(noise, seed), model_file(runs, "resnet20"), "neurram", seed, *options)


def chip_with(noise: float) -> Chip:
    """The chip whose programming leaves an error of that sd of the largest weight, which two devices share."""
    programming = {"error_sd_uS": noise * load_chip("neurram").cell.window_uS / 2**0.5, "error_mean_uS": 0.0}
    return load_chip("neurram", settings={"cell": {"programming": programming}})


def deployed(runs: Runs, data: Dataset, dies: int, noise: float, tested: float, seed: int) -> list[float]:
    """Accuracies in % of the dies of a training that is done, with that error."""
    result = Path(runs.file(f"{run_of(noise, seed)}.deploy-{tested:g}.json"))
    if not result.exists():
        package = cimc.export(runs.file(f"{run_of(noise, seed)}.cim"), chip_with(tested), data=data)
        found = cimc.deploy(package, data, chips=dies, seed=seed)
        result.write_text(json.dumps([100 * accuracy for accuracy in found.accuracies]), encoding="utf-8")
        print(result.name, flush=True)
    accuracies: list[float] = json.loads(result.read_text(encoding="utf-8"))
    return accuracies


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/neurram"))
    parser.set_defaults(jobs=1)
    parser.add_argument("--length", type=int, default=5, help="epochs")
    parser.add_argument("--keep-statistics", type=int, default=0, help="last epochs with them as they are")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--dies", type=int, default=3)
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options, "cifar10")
    cases = [(noise, seed) for seed in options.seeds for noise in TRAINED]
    work_off(options.jobs, [partial(train, runs, *case, options.length, options.keep_statistics) for case in cases])
    data = first_images("cifar10", options.data_dir, options.images)
    print(f"\n| noise in training | {' | '.join(f'{tested:g}: here | published' for tested in TESTED)} |")
    print(f"|{'---|' * (1 + 2 * len(TESTED))}")
    for noise in TRAINED:
        cells = []
        for tested, published in zip(TESTED, PUBLISHED[noise], strict=True):
            dies = [deployed(runs, data, options.dies, noise, tested, seed) for seed in options.seeds]
            cells += [spread([accuracy for of_seed in dies for accuracy in of_seed]), f"{published:.2f}"]
        print(f"| {noise:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
