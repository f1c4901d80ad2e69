"""What fine-tuning in the loop of a die, and writing devices again, are worth: LeNet-1, writes err by 10 uS, MNIST.

    python -m tests.benchmarks.in_the_loop --data-dir DIR [--out in_the_loop] [--seeds 0 1 2]

Each training, in float and hardware-aware, is exported, and the package is programmed on a virtual die as it is, and
layer by layer in the loop. Both are the same die: the one of `cimc deploy --chips 1` with the seed of the training.
What is done is kept in the output folder, so that an interrupted measurement goes on where it was.
"""

from functools import partial
from pathlib import Path

from tests.benchmarks.runs import MODELS, Runs, arguments, runs_of, spread, work_off

ERROR_US = "10.0"  # of a window of 60 uS; the chip's own is 2
TRAININGS = {"float": (), "hardware-aware": ("--set", "noise=0.2")}
RECIPE = ("--epochs", "2", "--lr", "0.004")
ROUNDS = "5%,5%,10%"  # of the devices, of five virtual chips
TUNING = ("--steps-per-epoch", "300")


def write_chip(path: Path) -> None:
    """The chip with that error of its writes."""
    from cimc.chip import load_chip
    from cimc.chip_to_toml import chip_to_toml

    settings = {"cell": {"programming": {"error_sd_uS": float(ERROR_US)}}}
    path.write_text(chip_to_toml(load_chip("brram-256x64", settings=settings)), encoding="utf-8")


def measure(runs: Runs, training: str, seed: int, chip: Path) -> None:
    """A training, its package on the die as it is, and in the loop."""
    run, die = f"lenet1-{training}-{seed}", ("--seed", str(seed))
    options = (*RECIPE, "--update", training, *TRAININGS[training])
    trained = runs.compile_and_train(run, str(MODELS / "lenet1.onnx"), str(chip), seed, *options)
    package, tuned = runs.file(f"{run}-package"), runs.file(f"{run}-die")
    runs.cimc(run, "export", "export", trained, "-o", package, *die)
    runs.cimc(run, "plain", "deploy", package, *runs.data, "--chips", "1", *die)
    runs.cimc(run, "tune", "tune", package, *runs.data, *TUNING, *die, "-o", tuned)
    runs.cimc(run, "loop", "deploy", tuned, *runs.data, "--chips", "1", *die)
    runs.cimc(run, "again", "deploy", package, *runs.data, "--chips", "5", "--reprogram", ROUNDS, *die)


def table(runs: Runs, seeds: list[int]) -> None:
    """Print the table in Markdown: over the seeds."""
    print("\n| trained | in software % | on the die as it is % | in the loop % |")
    print("|---|---|---|---|")
    for training in TRAININGS:
        columns = []
        for step, figure in (("plain", "baseline_accuracy"), ("plain", "accuracies"), ("loop", "accuracies")):
            found = [runs.figures(f"lenet1-{training}-{seed}", step)[figure] for seed in seeds]
            columns.append(spread([100 * (one[0] if isinstance(one, list) else one) for one in found]))
        print(f"| {training} | {' | '.join(columns)} |")
    print("\n| trained | layer | before % | after tuning the others % |")
    print("|---|---|---|---|")
    for training in TRAININGS:
        steps = [runs.figures(f"lenet1-{training}-{seed}", "tune")["in_the_loop"]["steps"] for seed in seeds]
        for of_layer in zip(*steps, strict=True):
            before, after = (spread([100 * one[when] for one in of_layer]) for when in ("before", "after"))
            print(f"| {training} | {of_layer[0]['layers'][0]} | {before} | {after} |")
    print("\n| trained | devices written again | accuracy of five chips each % |")
    print("|---|---|---|")
    for training in TRAININGS:
        found = [runs.figures(f"lenet1-{training}-{seed}", "again") for seed in seeds]
        courses = [[*(one["before"] for one in run["reprogrammed"]), run["accuracy"]] for run in found]
        for share, of_round in zip(("none", *ROUNDS.split(",")), zip(*courses, strict=True), strict=True):
            print(f"| {training} | {share} | {spread([100 * accuracies['mean'] for accuracies in of_round])} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    options = arguments(__doc__, Path("in_the_loop")).parse_args()
    runs = runs_of(options)
    chip = runs.out / "chip.toml"
    write_chip(chip)
    work_off(options.jobs, [partial(measure, runs, one, seed, chip) for seed in options.seeds for one in TRAININGS])
    table(runs, options.seeds)


if __name__ == "__main__":
    main()
