"""Training without a backward pass: LeNet-1 on MNIST, chip `brram-soc`, beside backpropagation.

    python -m tests.benchmarks.forward_gradient --data-dir DIR [--out results/forward_gradient] [--seeds 0]

Frank-Wolfe steps on forward gradients, each new gradient alone (naive) and averaged; Adam on the same gradients; the
backward pass beside them. JVPs: of a batch, over the run. Conversions: of the output converters, in training steps.
Writes: of devices, a weight. Memory: temporary arrays of the compiled steps (XLA's own analysis), and the whole process
of `cimc train`, the libraries and the compiler included.

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cimc.api.compile import compile_model
from cimc.data.load import load
from cimc.options import Gradient
from runtime.network.load import load_network
from runtime.system.state import build_system
from runtime.training.options import TrainingOptions
from tests.benchmarks.memory import ROOT, peak
from tests.benchmarks.runs import MODELS, Runs, add_shortening, arguments, runs_of, spread, updates, work_off
from tests.training_step import trace_steps

MODEL, CHIP, BATCH = MODELS / "lenet1.onnx", "brram-soc", 64
FRANK_WOLFE = ("--optimizer", "frank-wolfe", "--constraint", "l2-ball", "--radius", "20", "--lr", "0.0003")
NAIVE = ("--averaging", "1")
ADAM = ("--lr", "0.004")


@dataclass(frozen=True)
class Case:
    """A training: how its gradients are found, along how many tangents, and how its steps are made."""

    name: str
    gradient: Gradient
    tangents: int
    options: tuple[str, ...]

    @property
    def row(self) -> str:
        """Gradients and steps, as the table names them."""
        tangents = "" if self.gradient is Gradient.backward else f", m = {self.tangents}"
        return f"{self.gradient}{tangents}; {self.name}"

    @property
    def run(self) -> str:
        """Name of its files, without the seed."""
        return f"{self.gradient}-{self.tangents}-{self.name.replace(' ', '-').replace(',', '')}"


CASES = (
    Case("Adam", Gradient.backward, 1, ADAM),
    Case("Frank-Wolfe", Gradient.backward, 1, FRANK_WOLFE),
    Case("Frank-Wolfe, naive", Gradient.weights, 1, (*FRANK_WOLFE, *NAIVE)),
    Case("Frank-Wolfe", Gradient.weights, 1, FRANK_WOLFE),
    Case("Frank-Wolfe", Gradient.weights, 16, FRANK_WOLFE),
    Case("Adam", Gradient.weights, 16, ADAM),
    Case("Adam", Gradient.projected, 16, ADAM),
    Case("Frank-Wolfe, naive", Gradient.activities, 8, (*FRANK_WOLFE, *NAIVE)),
    Case("Frank-Wolfe", Gradient.activities, 8, FRANK_WOLFE),
    Case("Adam", Gradient.activities, 4, ADAM),
)


def train(runs: Runs, case: Case, seed: int, epochs: int) -> None:
    """Train one case with one seed."""
    settings = ("--gradient", case.gradient, "--tangents", str(case.tangents), "--batch-size", str(BATCH))
    length = ("--epochs", str(epochs))
    runs.compile_and_train(f"{case.run}-{seed}", str(MODEL), CHIP, seed, *settings, *length, *case.options)


def temporary_mb(case: Case) -> float:
    """MB of the temporary arrays of the compiled steps."""
    artifact = compile_model(MODEL, CHIP, verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    options = TrainingOptions(batch_size=BATCH, gradient=case.gradient, tangents=case.tangents)
    analysis = trace_steps(system, load("digits"), options).lower().compile().memory_analysis()
    return analysis.temp_size_in_bytes / 1e6


def process_mb(runs: Runs, case: Case, seed: int) -> int:
    """MB of `cimc train` for a few steps."""
    settings = ("--gradient", case.gradient, "--tangents", str(case.tangents), "--batch-size", str(BATCH))
    few = ("--data", "digits", "--epochs", "1", "--steps-per-epoch", "20", "-o", runs.file("few.cim"))
    return peak(ROOT, "train", runs.file(f"{case.run}-{seed}.compiled.cim"), *settings, *few)


def table(runs: Runs, chosen: list[Case], seeds: list[int]) -> None:
    """Print the table: mean and standard deviation over the seeds."""
    print(
        "\n| gradients; steps | accuracy % | JVPs | updates a weight, mean (largest) | writes a weight | conversions |"
    )
    print("|---|---|---|---|---|---|")
    for case in chosen:
        done = [runs.figures(f"{case.run}-{seed}", "train") for seed in seeds]
        jvps = done[0]["steps"] * done[0]["tangents"]
        writes = np.mean([run["device_writes"] / run["weights"] for run in done])
        accuracy = spread([100 * run["accuracy"] for run in done])
        conversions = done[0]["forward_conversions"] + done[0]["backward_conversions"]
        print(f"| {case.row} | {accuracy} | {jvps:,} | {updates(done)} | {writes:.1f} | {conversions:.3g} |")
    print("\n| gradients | temporary arrays, MB | whole process, MB |\n|---|---|---|")
    seen = set()
    for case in chosen:
        if (key := (case.gradient, case.tangents)) not in seen:
            seen.add(key)
            print(f"| {case.row.split(';')[0]} | {temporary_mb(case):.1f} | {process_mb(runs, case, seeds[0])} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = arguments(__doc__, Path("results/forward_gradient"))
    parser.add_argument("--length", type=int, default=10, help="epochs of all trainings")
    names = [gradient.value for gradient in Gradient]
    parser.add_argument("--gradients", nargs="+", choices=names, default=names, help="the rows of these")
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    chosen = [case for case in CASES if case.gradient in options.gradients]
    tasks = [partial(train, runs, case, seed, options.length) for case in chosen for seed in options.seeds]
    work_off(options.jobs, tasks)
    table(runs, chosen, options.seeds)


if __name__ == "__main__":
    main()
