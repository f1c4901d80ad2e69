"""The README's accuracy tables on real MNIST, by the tool's own commands.

    python -m tests.benchmarks.accuracy --data-dir DIR [--out results] [--seeds 0 1 2] [--jobs 2]

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
About two hours of one core for three seeds.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

MODELS = Path(__file__).parents[2] / "models"
LENET1 = ["--epochs", "13", "--steps-per-epoch", "400", "--batch-size", "64", "--lr", "0.004"]
LENET5 = ["--epochs", "10", "--batch-size", "64", "--lr", "0.002", "--weight-decay", "0.1"]
# name: (model, chip, training options)
TRAINING = {
    "lenet1-soc": ("lenet1", "brram-soc", LENET1),
    "lenet1-float": ("lenet1", "brram-soc", [*LENET1, "--method", "float"]),
    "lenet1-256x64": ("lenet1", "brram-256x64", LENET1),
    "lenet1-naive": ("lenet1", "brram-soc", [*LENET1, "--method", "naive"]),
    "lenet1-naive-target": ("lenet1", "brram-soc", [*LENET1, "--method", "naive", "--sync", "target"]),
    "lenet5-256x64": ("lenet5", "brram-256x64", LENET5),
    "lenet5-float": ("lenet5", "brram-256x64", [*LENET5, "--method", "float"]),
}
DEPLOYED = ("lenet1-soc", "lenet1-256x64", "lenet1-float", "lenet5-256x64", "lenet5-float")
INFERENCE_CHIP, CHIPS = "brram-256x64", 20


def run(out: Path, name: str, seed: int, data: list[str]) -> None:
    """Train one network with one seed, export it and deploy it, each once."""
    model, chip, options = TRAINING[name]
    stem = out / f"{name}-{seed}"
    compiled, trained, package = (f"{stem}.{suffix}" for suffix in ("compiled.cim", "cim", "package"))
    _cimc(stem, "compile", "compile", str(MODELS / f"{model}.onnx"), "--chip", chip, "-o", compiled)
    training = ["train", compiled, *data, *options, "--seed", str(seed), "-o", trained, "--resume"]
    _cimc(stem, "train", *training)
    if name in DEPLOYED:
        _cimc(stem, "export", "export", trained, "--chip", INFERENCE_CHIP, "-o", package)
        _cimc(stem, "deploy", "deploy", package, *data, "--chips", str(CHIPS), "--seed", str(seed))


def _cimc(stem: Path, step: str, *command: str) -> None:
    result = Path(f"{stem}.{step}.json")
    if result.exists():
        return
    done = subprocess.run([sys.executable, "-m", "cimc", *command, "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    result.write_text(done.stdout, encoding="utf-8")
    print(stem.name, step, flush=True)


def _load(out: Path, name: str, seed: int, step: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((out / f"{name}-{seed}.{step}.json").read_text(encoding="utf-8"))
    return figures


def _spread(values: list[float], form: str = ".2f") -> str:
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=1) if len(values) > 1 else 0:{form}}"


def tables(out: Path, seeds: list[int]) -> None:
    """Print the two tables in Markdown: mean and standard deviation over the seeds."""
    print("\n| run | test accuracy % | updates per weight, mean (largest) | fewer updates |\n|---|---|---|---|")
    for name in TRAINING:
        runs = [_load(out, name, seed, "train") for seed in seeds]
        accuracy = _spread([100 * run["accuracy"] for run in runs])
        if runs[0]["update_reduction"] is None:  # no device is touched
            print(f"| {name} | {accuracy} | | |")
            continue
        updates = f"{np.mean([r['updates_per_weight_mean'] for r in runs]):.1f}"
        largest = max(run["updates_per_weight_max"] for run in runs)
        print(
            f"| {name} | {accuracy} | {updates} ({largest}) | {np.mean([r['update_reduction'] for r in runs]):.0f}x |"
        )
    print("\n| run | chips: median accuracy % | worst chip % | / own float32 weights | / float training |")
    print("|---|---|---|---|---|")
    for name in DEPLOYED:
        runs = [_load(out, name, seed, "deploy") for seed in seeds]
        model = name.partition("-")[0]
        floats = [_load(out, f"{model}-float", seed, "train")["accuracy"] for seed in seeds]
        medians = [run["accuracy"]["median"] for run in runs]
        worst = 100 * min(run["accuracy"]["min"] for run in runs)
        own = _spread([run["normalized_accuracy"]["median"] for run in runs], ".4f")
        trained = _spread([m / f for m, f in zip(medians, floats, strict=True)], ".4f")
        print(f"| {name} | {_spread([100 * m for m in medians])} | {worst:.2f} | {own} | {trained} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(TRAINING), default=list(TRAINING))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = ["--data", "mnist", "--data-dir", str(options.data_dir)]
    with ThreadPoolExecutor(options.jobs) as pool:
        tasks = [pool.submit(run, options.out, name, seed, data) for name in options.only for seed in options.seeds]
        for task in tasks:
            task.result()
    if set(options.only) == set(TRAINING):
        tables(options.out, options.seeds)


if __name__ == "__main__":
    main()
