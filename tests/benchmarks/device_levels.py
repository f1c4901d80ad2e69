"""Devices with few and many levels on real MNIST: LeNet-1 on variants of `brram-256x64`, default options.

    python -m tests.benchmarks.device_levels --data-dir DIR [--out results/device_levels] [--seeds 0 1 2] [--jobs 2]

Two tables: 2 to 64 levels with and without the chip's errors and noise, trained for 5,200 steps, exported and deployed;
and five devices after 900 steps, from ideal to 2 bit, with a line that says whether a better device gives a better
accuracy. `--epochs` and `--steps-per-epoch` shorten all trainings, to try the script.

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from cimc.chip import chip_text, parse_chip
from tests.benchmarks.runs import (
    LENGTH,
    MODELS,
    Runs,
    add_shortening,
    arguments,
    runs_of,
    sd,
    spread,
    updates,
    work_off,
)

BASE = "brram-256x64"
WINDOW_uS = 60.0
CHIPS = 5


@dataclass(frozen=True)
class Device:
    """A variant of the base chip; what is left out is as there. levels: in place of the granularity."""

    levels: int | None = None
    granularity_uS: float = 4.0
    error_sd_uS: float = 2.0
    read_noise_uS: float = 1.2
    adc_noise_lsb: float = 2.0

    def chip_text(self, name: str) -> str:
        """The text of the chip file.

        Raises:
            ValueError: the text does not say what it should.
        """
        step = f"granularity_uS = {self.granularity_uS!r}" if self.levels is None else f"levels = {self.levels}"
        text = chip_text(BASE)
        for key, line in {
            "name": f'name = "{name}"',
            "description": f'description = "{BASE} with another device"',
            "granularity_uS": step,
            "error_sd_uS": f"error_sd_uS = {self.error_sd_uS!r}",
            "read_noise_uS": f"read_noise_uS = {self.read_noise_uS!r}",
            "noise_lsb": f"noise_lsb = {self.adc_noise_lsb!r}",
        }.items():
            text, count = re.subn(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
            if count != 1:
                raise ValueError(f"{BASE} has {count} lines {key}")
        self._check(text, name)
        return text

    def _check(self, text: str, name: str) -> None:
        """All that was meant to change has changed, and nothing else."""
        said = parse_chip(text, name).model_dump()
        meant = parse_chip(chip_text(BASE), BASE).model_dump()
        meant |= {"name": name, "description": said["description"]}
        meant["cell"]["levels"] = self.levels
        meant["cell"]["granularity_uS"] = self.granularity_uS if self.levels is None else None
        meant["cell"]["read_noise_uS"] = self.read_noise_uS
        meant["cell"]["programming"]["error_sd_uS"] = self.error_sd_uS
        meant["adc"]["noise_lsb"] = self.adc_noise_lsb
        cell = said["cell"]
        if said != meant or cell["conductance_max_uS"] - cell["conductance_min_uS"] != WINDOW_uS:
            raise ValueError(f"the text of {name} is not the chip that was meant")


NUMBERS = (2, 4, 16, 64)
ERRORS = {
    "the chip's": Device(),
    "none": Device(error_sd_uS=0.0, read_noise_uS=0.0, adc_noise_lsb=0.0),
}
SUFFIX = {"the chip's": "", "none": "-exact"}
# run: (levels, errors)
LEVELS = {f"levels-{number}{suffix}": (number, words) for words, suffix in SUFFIX.items() for number in NUMBERS}
# From the best to the worst; the converters are the chip's.
ORDER = {
    "ideal": Device(granularity_uS=0.06, error_sd_uS=0.0, read_noise_uS=0.0),
    "1,000 levels": Device(levels=1000, error_sd_uS=0.06, read_noise_uS=0.0),
    "20 levels": Device(levels=20, error_sd_uS=0.0, read_noise_uS=0.0),
    "16 noisy levels": Device(levels=16),
    "2 bit": Device(levels=4, error_sd_uS=7.02, read_noise_uS=3.78),  # 11.7 and 6.3 % of the window
}
PARTS = ("levels", "order")


def measure(runs: Runs, name: str, seed: int, training: tuple[str, ...], deployed: bool) -> None:
    """Train LeNet-1 on one device with one seed and default options; export and deploy it where `deployed`."""
    run, chip = f"{name}-{seed}", runs.out / f"{name}.toml"
    trained = runs.compile_and_train(run, str(MODELS / "lenet1.onnx"), str(chip), seed, *training)
    if deployed:
        package = runs.file(f"{run}.package")
        runs.cimc(run, "export", "export", trained, "-o", package, "--seed", str(seed))
        runs.cimc(run, "deploy", "deploy", package, *runs.data, "--chips", str(CHIPS), "--seed", str(seed))


def distinct_targets(package: str) -> int:
    """How many conductances the package programs; cells without a weight are NaN."""
    targets = np.load(Path(package) / "program" / "targets.npy")
    return len(np.unique(targets[~np.isnan(targets)]))


def levels_table(runs: Runs, seeds: list[int]) -> None:
    """Print the table of levels: mean and standard deviation over the seeds, the most targets of all seeds."""
    print(
        "\n| levels | errors, noise | trained accuracy % | updates per weight, mean (largest) | targets a device "
        f"| exported, {CHIPS} chips: median % |\n|---|---|---|---|---|---|"
    )
    for name, (number, words) in LEVELS.items():
        trained = [runs.figures(f"{name}-{seed}", "train") for seed in seeds]
        deployed = [runs.figures(f"{name}-{seed}", "deploy") for seed in seeds]
        targets = max(distinct_targets(runs.file(f"{name}-{seed}.package")) for seed in seeds)
        print(
            f"| {number} | {words} | {spread([100 * run['accuracy'] for run in trained])} | {updates(trained)} "
            f"| {targets} | {spread([100 * run['accuracy']['median'] for run in deployed])} |"
        )


def order_table(runs: Runs, seeds: list[int]) -> None:
    """Print the table of devices, best first, and whether their accuracies come in that order."""
    print("\n| device | test accuracy % | updates per weight, mean (largest) |\n|---|---|---|")
    accuracy = {}
    for device in ORDER:
        trained = [runs.figures(f"{_run(device)}-{seed}", "train") for seed in seeds]
        accuracy[device] = [100 * run["accuracy"] for run in trained]
        print(f"| {device} | {spread(accuracy[device])} | {updates(trained)} |")
    broken = [
        f"{better} < {worse}"
        for better, worse in pairwise(ORDER)
        if np.mean(accuracy[better]) < np.mean(accuracy[worse]) - math.hypot(sd(accuracy[better]), sd(accuracy[worse]))
    ]
    print(f"\n{' >= '.join(ORDER)}, within the spread: {'no, ' + ', '.join(broken) if broken else 'yes'}.")


def _run(device: str) -> str:
    return f"order-{device.replace(' ', '-').replace(',', '')}"


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = arguments(__doc__, Path("results/device_levels"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the tables to make")
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    chosen: list[tuple[str, Device, tuple[str, ...], bool]] = []
    if "order" in options.parts:
        short = ("--epochs", "1", "--steps-per-epoch", "900", "--batch-size", "64")
        chosen += [(_run(device), cell, short, False) for device, cell in ORDER.items()]
    if "levels" in options.parts:
        cells = {name: replace(ERRORS[words], levels=number) for name, (number, words) in LEVELS.items()}
        chosen += [(name, cell, LENGTH["lenet1"], True) for name, cell in cells.items()]
    for name, cell, *_ in chosen:
        (runs.out / f"{name}.toml").write_text(cell.chip_text(name), encoding="utf-8")
    work_off(
        options.jobs,
        [
            partial(measure, runs, name, seed, training, deployed)
            for name, _, training, deployed in chosen
            for seed in options.seeds
        ],
    )
    if "levels" in options.parts:
        levels_table(runs, options.seeds)
    if "order" in options.parts:
        order_table(runs, options.seeds)


if __name__ == "__main__":
    main()
