"""Does training on the arrays by distillation bring the answers of a real network back, with all noise?

    python -m tests.benchmarks.distillation --files DIR ... [--count 6000] [--held-out 1000] [--fill 1024] [--steps 60]

The network of file types (magika), installed by `tests.benchmarks.networks`, compiled with rows filled. Files of the
folders, of each of the network's kinds alike; of those held out nothing is chosen, and nothing trained on them. What
the package's own file says in onnxruntime stands as labels in the data, so that an accuracy is the share of files of
which the chip says what the original says; `cimc train --loss distill` does not look at labels. Printed: that share of
virtual chips with all noise, exported without training and after it; that of each epoch is in the training's JSON.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.benchmarks.networks.listed import Network, Work, read_list
from tests.benchmarks.networks.others import bytes_of_file
from tests.benchmarks.runs import Runs, spread

ENDING = 150  # at most so many files of one ending are looked at
LEAST_BYTES = 16
BATCH = 64


def files_by_ending(folders: Sequence[Path], random: np.random.Generator) -> Iterator[Path]:
    """Files in random order, of each ending not more than `ENDING`."""
    by_ending: dict[str, list[Path]] = {}
    for folder in folders:
        for base, _, names in os.walk(folder):
            for path in (Path(base, name) for name in sorted(names)):
                if path.is_file() and not path.is_symlink() and path.stat().st_size > LEAST_BYTES:
                    by_ending.setdefault(path.suffix.lower(), []).append(path)
    chosen = [
        paths[index] for paths in by_ending.values() for index in random.permutation(len(paths))[:ENDING].tolist()
    ]
    yield from (chosen[index] for index in random.permutation(len(chosen)).tolist())


def make_data(file: Path, model: Path, folders: Sequence[Path], count: int, held_out: int) -> None:
    """Write so many different samples to train on and held out, with what the original network says of them."""
    random, session = np.random.default_rng(0), onnxruntime.InferenceSession(model)
    samples = np.unique(np.stack([bytes_of_file(path) for path in files_by_ending(folders, random)]), axis=0)
    samples = samples[random.permutation(len(samples))]
    parts = [samples[first : first + BATCH] for first in range(0, len(samples), BATCH)]
    said = np.concatenate([np.argmax(session.run(None, {"bytes": part})[0], axis=1) for part in parts])
    order = np.argsort(rank_in_kind(said), kind="stable")[: count + held_out]
    order = random.permutation(order)
    test, train = order[:held_out], order[held_out:]
    np.savez(file, x_train=samples[train], y_train=said[train], x_test=samples[test], y_test=said[test])
    print(f"{len(train)} files to train on, {len(test)} held out, of {len(np.unique(said[order]))} kinds", flush=True)


def rank_in_kind(kinds: NDArray[np.integer]) -> NDArray[np.integer]:
    """How many samples of the same kind stand before each."""
    order = np.argsort(kinds, kind="stable")
    first = np.searchsorted(kinds[order], kinds[order])
    rank = np.empty(len(kinds), np.int64)
    rank[order] = np.arange(len(kinds)) - first
    return rank


def measure(runs: Runs, network: Network, model: Path, options: argparse.Namespace) -> None:
    """Compile, deploy, train, deploy; print the table."""
    shapes = [part for shape in network.shapes for part in ("--shape", shape)]
    run = f"{network.name}-{options.chip}-{options.fill}"
    compiled = runs.file(f"{run}.compiled.cim")
    fill = ("--fill-rows", str(options.fill)) if options.fill else ()
    runs.cimc(run, "compile", "compile", str(model), "--chip", options.chip, *shapes, *fill, "-o", compiled)
    arrays = runs.figures(run, "compile")["arrays"]
    steps = ("--steps-per-epoch", str(options.steps)) if options.steps else ()
    length = (*steps, "--epochs", str(options.epochs), "--micro-batch", str(options.micro_batch))
    recipe = ("--loss", "distill", "--update", options.update, "--lr", options.lr, *length)
    print("\n| rows filled | arrays | trained | agreement with the original, % |\n|---|---|---|---|")
    of = f" of {options.steps} steps" if options.steps else ""
    for how in ("not", f"{options.update}, rate {options.lr}, {options.epochs} epochs{of}"):
        name = how.replace(",", "").replace(" ", "-")
        source = compiled if how == "not" else runs.train(f"{run}-{name}", compiled, 0, *recipe)
        package = runs.file(f"{run}-{name}")
        runs.cimc(run, f"export-{name}", "export", source, *runs.data, "-o", package)
        runs.cimc(run, f"deploy-{name}", "deploy", package, *runs.data, "--chips", str(options.dies))
        dies = [100 * accuracy for accuracy in runs.figures(run, f"deploy-{name}")["accuracies"]]
        print(f"| {options.fill} | {arrays} | {how} | {spread(dies)} |", flush=True)


def main() -> None:
    """Make the data where they are missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, help="where tests.benchmarks.networks installed packages")
    parser.add_argument("--out", type=Path, default=Path("results/distillation"))
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--chip", default="brram-256x64")
    parser.add_argument("--fill", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of an epoch; default: all files")
    parser.add_argument("--micro-batch", type=int, default=BATCH, help="files of a step at once: bounds the memory")
    parser.add_argument("--update", default="hardware-aware", help="as of `cimc train`: how the weights change")
    parser.add_argument("--lr", default="0.0001")
    parser.add_argument("--dies", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    network = read_list(["magika"])[0]
    model, data = Work(options.work).model(network), options.out / "files.npz"
    if not data.exists():
        make_data(data, model, options.files, options.count, options.held_out)
    measure(Runs(options.out, ("--data", str(data))), network, model, options)


if __name__ == "__main__":
    main()
