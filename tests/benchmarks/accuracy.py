"""The README's accuracy tables on real MNIST, by the tool's own commands.

    python -m tests.benchmarks.accuracy --data-dir DIR [--out results] [--seeds 0 1 2] [--jobs 2]

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
About two hours of one core for three seeds.
"""

from functools import partial
from pathlib import Path

import numpy as np

from tests.benchmarks.runs import LENGTH, MODELS, RATE, Runs, arguments, runs_of, spread, updates, work_off

LENET1 = (*LENGTH["lenet1"], *RATE["lenet1"])
LENET5 = (*LENGTH["lenet5"], *RATE["lenet5"])
# name: (model, chip, training options)
TRAINING = {
    "lenet1-soc": ("lenet1", "brram-soc", LENET1),
    "lenet1-float": ("lenet1", "brram-soc", (*LENET1, "--method", "float")),
    # A smaller rate, for fewer updates at the same or a better accuracy than an earlier state's.
    "lenet1-256x64": ("lenet1", "brram-256x64", (*LENGTH["lenet1"], "--lr", "0.003")),
    "lenet1-naive": ("lenet1", "brram-soc", (*LENET1, "--method", "naive")),
    "lenet1-naive-target": ("lenet1", "brram-soc", (*LENET1, "--method", "naive", "--sync", "target")),
    "lenet5-256x64": ("lenet5", "brram-256x64", LENET5),
    "lenet5-float": ("lenet5", "brram-256x64", (*LENET5, "--method", "float")),
}
DEPLOYED = ("lenet1-soc", "lenet1-256x64", "lenet1-float", "lenet5-256x64", "lenet5-float")
INFERENCE_CHIP, CHIPS = "brram-256x64", 20


def measure(runs: Runs, name: str, seed: int) -> None:
    """Train one network with one seed, export it and deploy it, each once."""
    model, chip, options = TRAINING[name]
    run = f"{name}-{seed}"
    package = runs.file(f"{run}.package")
    trained = runs.compile_and_train(run, str(MODELS / f"{model}.onnx"), chip, seed, *options)
    if name in DEPLOYED:
        runs.cimc(run, "export", "export", trained, "--chip", INFERENCE_CHIP, "-o", package)
        runs.cimc(run, "deploy", "deploy", package, *runs.data, "--chips", str(CHIPS), "--seed", str(seed))


def tables(runs: Runs, seeds: list[int]) -> None:
    """Print the two tables in Markdown: mean and standard deviation over the seeds."""
    print("\n| run | test accuracy % | updates per weight, mean (largest) | fewer updates |\n|---|---|---|---|")
    for name in TRAINING:
        trained = [runs.figures(f"{name}-{seed}", "train") for seed in seeds]
        accuracy = spread([100 * run["accuracy"] for run in trained])
        if trained[0]["update_reduction"] is None:  # no device is touched
            print(f"| {name} | {accuracy} | | |")
            continue
        fewer = np.mean([run["update_reduction"] for run in trained])
        print(f"| {name} | {accuracy} | {updates(trained)} | {fewer:.0f}x |")
    print("\n| run | chips: median accuracy % | worst chip % | / own float32 weights | / float training |")
    print("|---|---|---|---|---|")
    for name in DEPLOYED:
        deployed = [runs.figures(f"{name}-{seed}", "deploy") for seed in seeds]
        model = name.partition("-")[0]
        floats = [runs.figures(f"{model}-float-{seed}", "train")["accuracy"] for seed in seeds]
        medians = [run["accuracy"]["median"] for run in deployed]
        worst = 100 * min(run["accuracy"]["min"] for run in deployed)
        own = spread([run["normalized_accuracy"]["median"] for run in deployed], ".4f")
        by_float = spread([m / f for m, f in zip(medians, floats, strict=True)], ".4f")
        print(f"| {name} | {spread([100 * m for m in medians])} | {worst:.2f} | {own} | {by_float} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = arguments(__doc__, Path("results"))
    parser.add_argument("--only", nargs="+", choices=list(TRAINING), default=list(TRAINING))
    options = parser.parse_args()
    runs = runs_of(options)
    work_off(options.jobs, [partial(measure, runs, name, seed) for name in options.only for seed in options.seeds])
    if set(options.only) == set(TRAINING):
        tables(runs, options.seeds)


if __name__ == "__main__":
    main()
