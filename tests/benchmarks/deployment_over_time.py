"""What compensation saves over a year: LeNet-5 by three trainings on `hermes`, every compensation, real MNIST.

    python -m tests.benchmarks.deployment_over_time --data-dir DIR [--out results/deployment] [--seeds 0 1 2] [--dies 5]

Each network is trained on the chip (float, hardware-aware from the float one, mixed precision), exported, programmed on
so many virtual dies and measured after 1 s, 1 h, 1 day and 1 year with each compensation, on the first `--images` test
images. Each result is kept in the output folder and not made again.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np

import cimc
from cimc.dataset import Dataset
from cimc.durations import parse_time
from runtime.deployment.result import summary
from tests.benchmarks.runs import MODELS, Runs, add_shortening, arguments, first_images, runs_of, spread

TIMES = ("1s", "1h", "1d", "1y")
KINDS = ("none", "global", "column", "affine", "bn", "ranges", "global+ranges", "global+bn")
RECIPE = ("--epochs", "3", "--batch-size", "64", "--lr", "0.002", "--weight-decay", "0.1")
AWARE = ("--update", "hardware-aware", "--set", "noise=0.1", "--set", "clip_sigma=2", "--init-from")
TRAININGS = ("float", "hardware-aware", "mixed-precision")


def trained(runs: Runs, training: str, seed: int) -> str:
    """The path of the network after that training."""
    options: tuple[str, ...] = ("--update", training)
    if training == "hardware-aware":
        options = (*AWARE, trained(runs, "float", seed))
    run = f"lenet5-{training}-{seed}"
    return runs.compile_and_train(run, str(MODELS / "lenet5.onnx"), "hermes", seed, *RECIPE, *options)


def deployed(runs: Runs, data: Dataset, training: str, seed: int, kind: str, dies: int) -> dict[float, float]:
    """By time, the mean A* in % over the dies."""
    result = runs.out / f"lenet5-{training}-{seed}.{kind}.json"
    if not result.exists():
        package = runs.out / f"lenet5-{training}-{seed}"
        if not package.exists():
            cimc.export(trained(runs, training, seed), output=package)
        found = cimc.deploy(package, data, chips=dies, seed=seed, at=TIMES, compensate=kind)
        result.write_text(json.dumps(summary(found)), encoding="utf-8")
        print(training, seed, kind, flush=True)
    aged = json.loads(result.read_text(encoding="utf-8"))["aged"]
    return {one["seconds"]: 100 * one["a_star"]["mean"] for one in aged}


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/deployment"))
    parser.add_argument("--dies", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    add_shortening(parser)
    options = parser.parse_args()
    runs, data = runs_of(options), first_images("mnist", options.data_dir, options.images)
    measure = partial(deployed, runs, data, dies=options.dies)
    found = {
        (training, kind): [measure(training, seed, kind) for seed in options.seeds]
        for training in TRAININGS
        for kind in options.kinds
    }
    print(f"\n| training | compensation | {' | '.join(f'A* % after {time}' for time in TIMES)} |")
    print(f"|{'---|' * (2 + len(TIMES))}")
    for (training, kind), seeds in found.items():
        cells = [spread([one[parse_time(time)] for one in seeds]) for time in TIMES]
        print(f"| {training} | {kind} | {' | '.join(cells)} |")
    at_last = {key: np.mean([one[parse_time(TIMES[-1])] for one in seeds]) for key, seeds in found.items()}
    best = max(at_last, key=lambda key: at_last[key])
    print(f"\nbest after {TIMES[-1]}: {best[0]} with {best[1]}, A* {at_last[best]:.2f} %")


if __name__ == "__main__":
    main()
