"""LeNet-5 on every chip that comes with the tool, on real MNIST: trained there, and trained in float32 and exported.

    python -m tests.benchmarks.every_chip --data-dir DIR [--out results/every_chip] [--chips isaac puma] [--epochs 1]

Each chip: the same two epochs of 400 steps by mixed precision and closed-loop writes, evaluated on the 10,000 test
images with all noise, exported, deployed on three virtual dies; and a network trained in float32 for as long, exported
to it and deployed likewise. Each run's JSON is kept in the output folder and not run again, so that an interrupted
measurement goes on where it was.
"""

from functools import partial
from pathlib import Path

import numpy as np

from cimc.chip import chip_names
from tests.benchmarks.runs import MODELS, Runs, add_shortening, arguments, runs_of, spread, updates, work_off

TRAINING = ("--batch-size", "64", "--lr", "0.003", "--epochs", "2", "--steps-per-epoch", "400")
DIES = ("--chips", "3")


def measure(runs: Runs, chip: str, seed: int) -> None:
    """Train, export and deploy on one chip with one seed."""
    model = str(MODELS / "lenet5.onnx")
    for update in ("mixed-precision", "float"):
        run = f"{chip}-{update}-{seed}"
        trained = runs.compile_and_train(run, model, chip, seed, *TRAINING, "--update", update)
        package = runs.file(f"{run}.package")
        runs.cimc(run, "export", "export", trained, *runs.data, "-o", package)
        runs.cimc(run, "deploy", "deploy", package, *runs.data, *DIES, "--seed", str(seed))


def row(runs: Runs, chip: str, seeds: list[int]) -> str:
    """The line of a chip: mean and standard deviation over the seeds."""
    there, floating = ([f"{chip}-{update}-{seed}" for seed in seeds] for update in ("mixed-precision", "float"))
    trained = [runs.figures(run, "train") for run in there]
    deployed, exported = ([runs.figures(run, "deploy") for run in some] for some in (there, floating))
    return " | ".join(
        [
            chip,
            spread([100 * run["accuracy"] for run in trained]),
            updates(trained),
            spread([100 * run["accuracy"]["mean"] for run in deployed]),
            spread([100 * run["baseline_accuracy"] for run in exported]),
            spread([100 * run["accuracy"]["mean"] for run in exported]),
            f"{np.mean([run['images_per_s'] for run in trained]):.0f}",
        ]
    )


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/every_chip"))
    parser.add_argument("--chips", nargs="+", default=list(chip_names()), help="these only")
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    work_off(options.jobs, [partial(measure, runs, chip, seed) for seed in options.seeds for chip in options.chips])
    print("\n| chip | trained there % | updates a weight | deployed % | float32 % | float32 deployed % | images/s |")
    print("|---|---|---|---|---|---|---|")
    for chip in options.chips:
        print(f"| {row(runs, chip, options.seeds)} |")


if __name__ == "__main__":
    main()
