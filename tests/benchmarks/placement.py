"""What placement around stuck cells is worth: LeNet-5 on brram-256x64, real MNIST, half of them low and half high.

    python -m tests.benchmarks.placement --data-dir DIR [--out placement] [--seeds 0 1 2] [--dies 10]

Each training is exported for each of the dies, without and with placement; every die is programmed once. What is done
is kept in the output folder, so that an interrupted measurement goes on where it was.
"""

import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import cimc
from cimc.artifact import read_artifact
from tests.benchmarks.runs import MODELS, Runs, arguments, runs_of, spread, work_off

CHIP = "brram-256x64"
TRAINING = ("--epochs", "3", "--lr", "0.004")
SHARES = (0.01, 0.05, 0.10, 0.20)  # of all devices that are stuck
PLACEMENTS = ("none", "pairs", "full")


def write_map(path: Path, share: float, die: int, *, arrays: int) -> None:
    """A die with that share of stuck cells, in as many arrays as the network takes."""
    chip = cimc.load_chip(CHIP)
    drawn = np.random.default_rng([die, round(1e4 * share)]).random((arrays, chip.array.rows, chip.array.columns))
    stuck = np.full(drawn.shape, np.nan, np.float32)
    stuck[drawn < share / 2] = chip.cell.conductance_min_uS
    stuck[drawn > 1 - share / 2] = chip.cell.conductance_max_uS
    np.savez_compressed(path, stuck_uS=stuck)


def measure(runs: Runs, seed: int, share: float, dies: int, data: cimc.Dataset) -> None:
    """The accuracies of one training on the dies of one share, by placement; share 0: without faults, programmed as
    often.
    """
    trained = runs.compile_and_train(f"lenet5-{seed}", str(MODELS / "lenet5.onnx"), CHIP, seed, *TRAINING)
    result = Path(runs.file(f"lenet5-{seed}.{share:g}.{dies}.json"))
    if result.exists():
        return
    found: dict[str, dict[str, list[float]]] = {}
    if not share:
        deployed = cimc.deploy(cimc.export(trained, CHIP), data, chips=dies, seed=seed)
        found["none"] = {
            "accuracy": deployed.accuracies.tolist(),
            "normalized": deployed.normalized.tolist(),
            "error": [0.0] * dies,
        }
    arrays = read_artifact(trained).mapping.arrays
    for placement in PLACEMENTS if share else ():
        kept: dict[str, list[float]] = {"accuracy": [], "normalized": [], "error": []}
        for die in range(dies):
            with tempfile.TemporaryDirectory() as folder:
                write_map(Path(folder) / "die.npz", share, die, arrays=arrays)
                package = cimc.export(trained, CHIP, die=Path(folder) / "die.npz", placement=placement)
            deployed = cimc.deploy(package, data, chips=1, seed=1000 * seed + die)
            kept["accuracy"] += deployed.accuracies.tolist()
            kept["normalized"] += deployed.normalized.tolist()
            kept["error"].append(package.notes["die"]["expected_error"][placement])
        found[placement] = kept
    result.write_text(json.dumps(found), encoding="utf-8")
    print(result.name, flush=True)


def table(runs: Runs, seeds: list[int], dies: int) -> None:
    """Print the table in Markdown: over all trainings and dies."""

    def of(share: float, placement: str, figure: str) -> list[float]:
        files = [Path(runs.file(f"lenet5-{seed}.{share:g}.{dies}.json")) for seed in seeds]
        return [x for file in files for x in json.loads(file.read_text(encoding="utf-8"))[placement][figure]]

    whole = float(np.mean(of(0, "none", "accuracy")))
    print("\n| stuck | placement | accuracy % | worst die % | A* median | of the fault-free chip | expected error |")
    print("|---|---|---|---|---|---|---|")
    for share, placement in [(0.0, "none"), *((share, placement) for share in SHARES for placement in PLACEMENTS)]:
        accuracy = of(share, placement, "accuracy")
        print(
            f"| {share:.0%} | {placement} | {spread([100 * x for x in accuracy])} | {100 * min(accuracy):.2f} | "
            f"{np.median(of(share, placement, 'normalized')):.4f} | {np.mean(accuracy) / whole:.2%} | "
            f"{np.median(of(share, placement, 'error')):.2g} |"
        )


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("placement"))
    parser.add_argument("--dies", type=int, default=10)
    options = parser.parse_args()
    runs = runs_of(options)
    data = cimc.load_data("mnist", options.data_dir)
    tasks = [
        partial(measure, runs, seed, share, options.dies, data) for seed in options.seeds for share in (0, *SHARES)
    ]
    work_off(1, tasks)
    table(runs, options.seeds, options.dies)


if __name__ == "__main__":
    main()
