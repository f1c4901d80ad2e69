"""What the measurements on real MNIST share: every run by the tool's own commands, its JSON kept in a folder."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from cimc.data.load import load
from cimc.dataset import Dataset
from models.build import NETWORKS

MODELS = Path(__file__).parents[2] / "models"
# Options of `cimc train`: how long the tables train, and the README's rates.
LENGTH = {
    "lenet1": ("--epochs", "13", "--steps-per-epoch", "400", "--batch-size", "64"),
    "lenet5": ("--epochs", "10", "--batch-size", "64"),
}
RATE = {"lenet1": ("--lr", "0.004"), "lenet5": ("--lr", "0.002", "--weight-decay", "0.1")}


@dataclass(frozen=True)
class Runs:
    """The runs of one measurement; a step whose JSON is in the folder is not run again.

    out: the folder. data: options that name the data. shorter: options of `cimc train` in place of the table's own.
    """

    out: Path
    data: tuple[str, ...]
    shorter: tuple[str, ...] = ()

    def file(self, name: str) -> str:
        """The path of a file in the folder."""
        return str(self.out / name)

    def cimc(self, run: str, step: str, *command: str) -> None:
        """Do one step of a run by a command of the tool, unless its JSON is there."""
        result = self.out / f"{run}.{step}.json"
        if result.exists():
            return
        done = subprocess.run([sys.executable, "-m", "cimc", *command, "--json"], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            sys.exit(f"{' '.join(command)}: {said.splitlines()[-1]}")
        result.write_text(done.stdout, encoding="utf-8")
        print(run, step, flush=True)

    def train(self, run: str, source: str, seed: int, *options: str) -> str:
        """Train a `.cim` file; the path of the trained one. A training that was interrupted goes on."""
        trained = self.file(f"{run}.cim")
        settings = [*self.data, *options, *self.shorter, "--seed", str(seed)]
        self.cimc(run, "train", "train", source, *settings, "-o", trained, "--resume")
        return trained

    def compile_and_train(self, run: str, model: str, chip: str, seed: int, *options: str) -> str:
        """Compile a network (path of its ONNX file) for a chip and train it; the path of the trained `.cim`."""
        compiled = self.file(f"{run}.compiled.cim")
        self.cimc(run, "compile", "compile", model, "--chip", chip, "-o", compiled)
        return self.train(run, compiled, seed, *options)

    def figures(self, run: str, step: str) -> dict[str, Any]:
        """The JSON of a step."""
        figures: dict[str, Any] = json.loads((self.out / f"{run}.{step}.json").read_text(encoding="utf-8"))
        return figures


def model_file(runs: Runs, name: str) -> str:
    """The path of the ONNX file of a network of models/build.py."""
    path = runs.out / f"{name}.onnx"
    if not path.exists():
        onnx.save(NETWORKS[name](), path)
    return str(path)


def first_images(name: str, data_dir: Path, images: int) -> Dataset:
    """Images of that name, of those for tests the first alone."""
    data = load(name, data_dir)
    return Dataset(data.name, data.train, data.test.take(slice(images)), classes=10, preprocess=data.preprocess)


def arguments(description: str | None, out: Path) -> argparse.ArgumentParser:
    """The options that all measurements take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    return parser


def add_shortening(parser: argparse.ArgumentParser) -> None:
    """Add options that make all trainings shorter, to try a measurement."""
    parser.add_argument("--epochs", type=int, help="of every training: to try the script, in a folder of its own")
    parser.add_argument("--steps-per-epoch", type=int, help="likewise")


def runs_of(options: argparse.Namespace, data: str = "mnist") -> Runs:
    """The runs that the options ask for, their folder made; shorter trainings lie in a folder of their own."""
    out, shorter = options.out, []
    for name in ("epochs", "steps_per_epoch"):
        if value := getattr(options, name, None):
            out /= f"{name}-{value}"
            shorter += [f"--{name.replace('_', '-')}", str(value)]
    out.mkdir(parents=True, exist_ok=True)
    return Runs(out, ("--data", data, "--data-dir", str(options.data_dir)), tuple(shorter))


def work_off(jobs: int, tasks: Iterable[Callable[[], object]]) -> None:
    """Do the tasks, `jobs` at a time; the first that fails ends the rest."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(task) for task in tasks]
        try:
            for task in waiting:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def sd(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Mean ± standard deviation."""
    return f"{np.mean(values):{form}} ± {sd(values):{form}}"


def updates(runs: Sequence[dict[str, Any]]) -> str:
    """Updates per weight of trainings: mean (largest)."""
    largest = max(run["updates_per_weight_max"] for run in runs)
    return f"{np.mean([run['updates_per_weight_mean'] for run in runs]):.1f} ({largest})"
