"""VGG-8, and ResNet-20 and ResNet-18 if wanted, on CIFAR-10: mixed precision beside float32 with the same schedule.

    python -m tests.benchmarks.vgg8 --data-dir DIR [--networks vgg8 resnet20] [--epochs 100] [--batch-size 64]

Arrays, devices and converters are those of Table 1 of arXiv 2305.14547 (the chip brram-256x64), the rate a third of
its 0.003, accumulators spread (docs/policies.md); images are cropped and flipped anew each time. The paper has 87.41 %
in float32 and 86.51 % by mixed precision on VGG-8, 93.18 % by both on ResNet-18, with updates reduced about 1000 times
and at most 220 a weight.

Each run's JSON is kept in the output folder and not run again. With `--jobs 1` each training has the machine.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from tests.benchmarks.runs import Runs, arguments, model_file, spread, updates, work_off

CHIP = "brram-256x64"
CHOICES = ("vgg8", "resnet20", "resnet18")
METHODS = {"float": (), "mixed-precision": ("--set", "spread=1")}
RATE = 0.001  # of the paper's 0.003 float32 learns VGG-8 more slowly in so few epochs


def measure(runs: Runs, name: str, method: str, seed: int, recipe: tuple[str, ...]) -> None:
    """Train one network by one method with one seed."""
    options = (*recipe, "--update", method, *METHODS[method])
    runs.compile_and_train(f"{name}-{method}-{seed}", model_file(runs, name), CHIP, seed, *options)


def table(runs: Runs, names: list[str], seeds: list[int]) -> None:
    """Print mean and standard deviation over the seeds."""
    print("\n| network | method | accuracy % | points below float | updates a weight (largest) | fewer | images/s |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        baseline = 0.0
        for method in METHODS:
            done = [runs.figures(f"{name}-{method}-{seed}", "train") for seed in seeds]
            accuracies = [100 * run["accuracy"] for run in done]
            speed = np.median([run["images_per_s"] or np.nan for run in done])
            if method == "float":
                baseline = float(np.mean(accuracies))
                print(f"| {name} | {method} | {spread(accuracies)} | | | | {speed:.0f} |", flush=True)
                continue
            below = baseline - np.mean(accuracies)
            fewer = np.mean([run["update_reduction"] or np.inf for run in done])
            figures = f"{spread(accuracies)} | {below:.2f} | {updates(done)} | {fewer:.0f}x | {speed:.0f}"
            print(f"| {name} | {method} | {figures} |", flush=True)


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/vgg8"))
    parser.set_defaults(jobs=1)
    parser.add_argument("--networks", nargs="+", choices=CHOICES, default=["vgg8"])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--steps-per-epoch", type=int, help="fewer than the training set has: to try the script")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=RATE)
    parser.add_argument("--schedule", default="cosine", help="of both; plateau is the paper's")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--augment", default="crop,flip", help="of crop, flip, cutout; '' for none")
    options = parser.parse_args()
    recipe = tuple(
        text
        for name in ("epochs", "steps_per_epoch", "batch_size", "lr", "schedule", "weight_decay", "augment")
        if getattr(options, name) is not None
        for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))
    )
    options.out.mkdir(parents=True, exist_ok=True)
    runs = Runs(options.out, ("--data", "cifar10", "--data-dir", str(options.data_dir)))
    print(" ".join(recipe), file=sys.stderr)
    cases = [(name, method, seed) for seed in options.seeds for name in options.networks for method in METHODS]
    work_off(options.jobs, [partial(measure, runs, *case, recipe) for case in cases])
    table(runs, options.networks, options.seeds)


if __name__ == "__main__":
    main()
