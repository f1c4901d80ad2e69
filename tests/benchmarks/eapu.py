"""EaPU beside mixed precision at as many writes: LeNet-5 on MNIST, a small ResNet on CIFAR-10, writes that err by 2 uS.

    python -m tests.benchmarks.eapu --mnist DIR --cifar10 DIR [--epochs 4]

The setting of the published code (Nature Communications 2025, s41467-025-66240-7): an ideal chip but for the error of
closed-loop writes, sd 2 uS, where a unit weight is 80 uS. Here a layer's weight range fills the window, whatever it is:
a window of 20 uS is 80 uS a unit weight for a range of 0.25, the middle of these layers (0.2 to 0.4 by their sizes).

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cimc.chip import load_chip
from cimc.chip_to_toml import chip_to_toml
from tests.benchmarks.runs import Runs, model_file, spread, updates, work_off

SD_uS, WINDOW_uS = 2.0, 20.0
SHARE = SD_uS / WINDOW_uS
RATE = ("--batch-size", "64", "--lr", "0.003")
RECIPES = {
    "lenet5": (*RATE, "--weight-decay", "0.1"),
    "resnet8_cifar": (*RATE, "--weight-decay", "0.01", "--schedule", "cosine", "--augment", "crop,flip"),
}


@dataclass(frozen=True)
class Case:
    """A training by a policy, and what is the least change that it writes, in sd of the error; 0: whatever is asked."""

    policy: str
    least: float

    @property
    def run(self) -> str:
        """Name of its files, without network and seed."""
        return f"{self.policy}-{self.least:g}" if self.least else self.policy

    @property
    def options(self) -> tuple[str, ...]:
        """Options of `cimc train`."""
        least = {"eapu": f"c_uS={self.least * SD_uS:g}"}.get(self.policy, f"threshold={self.least * SHARE:g}")
        return ("--update", self.policy, *(("--set", least) if self.least else ()))


CASES = (
    Case("float", 0),
    Case("naive", 0),
    *(Case(policy, least) for policy in ("mixed-precision", "eapu", "eapu-accumulator") for least in (1, 2, 4)),
)


def chip_file(runs: Runs) -> str:
    """The path of the chip whose writes alone err."""
    cell = {"conductance_max_uS": WINDOW_uS, "programming": {"error_sd_uS": SD_uS}}
    path = Path(runs.file("write-error.toml"))
    path.write_text(chip_to_toml(load_chip("ideal", settings={"cell": cell})), encoding="utf-8")
    return str(path)


def table(runs: Runs, network: str, seeds: list[int]) -> None:
    """Print the table of a network: mean and standard deviation over the seeds."""
    print(f"\n{network}\n\n| policy | least write, sd | accuracy % | weights written a step % | ", end="")
    print("writes a weight, mean (largest) | fewer than every step |\n|---|---|---|---|---|---|")
    for case in CASES:
        done = [runs.figures(f"{network}-{case.run}-{seed}", "train") for seed in seeds]
        share = np.mean([100 * run["updates"] / run["weights"] / run["steps"] for run in done])
        fewer = f"{100 / share:.0f}x" if share else "-"
        accuracy = spread([100 * run["accuracy"] for run in done])
        print(f"| {case.policy} | {case.least or '-'} | {accuracy} | {share:.3g} | {updates(done)} | {fewer} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of its files; without it LeNet-5 is left out")
    parser.add_argument("--cifar10", type=Path, help="folder of its files; without it ResNet-8 is left out")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("results/eapu"))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = {"lenet5": ("mnist", options.mnist), "resnet8_cifar": ("cifar10", options.cifar10)}
    for network, (data, folder) in folders.items():
        if folder is None:
            continue
        runs = Runs(options.out, ("--data", data, "--data-dir", str(folder)))
        model, chip = model_file(runs, network), chip_file(runs)
        recipe = (*RECIPES[network], "--epochs", str(options.epochs))
        tasks = [
            partial(runs.compile_and_train, f"{network}-{case.run}-{seed}", model, chip, seed, *recipe, *case.options)
            for seed in options.seeds
            for case in CASES
        ]
        work_off(options.jobs, tasks)
        table(runs, network, options.seeds)


if __name__ == "__main__":
    main()
