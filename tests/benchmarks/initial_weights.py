"""Whether the result hangs on how the file's weights were drawn, with default options on real MNIST.

    python -m tests.benchmarks.initial_weights --data-dir DIR [--out results/initial_weights] [--seeds 0 1 2] [--jobs 2]

Two tables: networks trained from weights of several distributions, without any option of rate or threshold; and
networks trained in float32 (with the README's rates), put on the arrays and trained on there for one epoch. Every seed
trains from the same files. `--epochs` and `--steps-per-epoch` shorten all trainings, to try the script.

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from tests.benchmarks.runs import (
    LENGTH,
    MODELS,
    RATE,
    Runs,
    add_shortening,
    arguments,
    runs_of,
    sd,
    spread,
    updates,
    work_off,
)

# name: (model, chip)
NETWORKS = {
    "lenet1-256x64": ("lenet1", "brram-256x64"),
    "lenet1-soc": ("lenet1", "brram-soc"),
    "lenet5-256x64": ("lenet5", "brram-256x64"),
}
SHIPPED = "uniform"
KINDS = {
    SHIPPED: "uniform (the shipped file)",
    "normal": "normal, sd √(2 / fan-in)",
    "truncated": "the same, cut at 2 sd",
    "orthogonal": "orthogonal, gain 1",
    "pytorch": "PyTorch's default, biases too",
    "scaled": "shipped, first layer x 3, second / 3",
}
PARTS = ("kinds", "float")
SEED = 2024  # of the weights in the files
EVALUATIONS = 5  # of a float-trained network: each programs the arrays anew

Weights = npt.NDArray[np.floating]


def drawn(kind: str, shape: tuple[int, ...], random: np.random.Generator) -> Weights:
    """Weights of one layer, [outputs, ...]; the fan-in is the size of one output's weights."""
    fan_in = int(np.prod(shape[1:]))
    if kind == "pytorch":
        return uniform(fan_in, shape, random)
    weight = random.standard_normal(shape)
    if kind == "orthogonal":
        tall = weight.reshape(len(weight), -1)
        wide = tall.shape[0] < tall.shape[1]
        q, r = np.linalg.qr(tall.T if wide else tall)
        q = q * np.sign(np.diag(r))  # so that all orthogonal matrices are equally likely
        return (q.T if wide else q).reshape(shape)
    if kind == "truncated":  # drawn again, and the sd is that before the cut
        while (beyond := np.abs(weight) > 2).any():
            weight[beyond] = random.standard_normal(int(beyond.sum()))
    return weight * math.sqrt(2 / fan_in)


def uniform(fan_in: int, shape: tuple[int, ...], random: np.random.Generator) -> Weights:
    """PyTorch's weights and biases: uniform in ±1 / √(fan-in)."""
    bound = 1 / math.sqrt(fan_in)
    return random.uniform(-bound, bound, shape)


def network(model: str, kind: str) -> onnx.ModelProto:
    """The shipped network with initial weights of one kind."""
    proto = onnx.load(MODELS / f"{model}.onnx")
    random = np.random.default_rng(SEED)
    parameters = {tensor.name: tensor for tensor in proto.graph.initializer}
    names = [name for name, tensor in parameters.items() if len(tensor.dims) > 1]
    for index, name in enumerate(names):
        weight, bias = parameters[name], parameters[name.replace("weight", "bias")]
        shape = tuple(weight.dims)
        if kind == "scaled":
            factor = {0: 3.0, 1: 1 / 3}.get(index, 1.0)
            _set(weight, numpy_helper.to_array(weight) * factor)
        elif kind != SHIPPED:
            _set(weight, drawn(kind, shape, random))
        if kind == "pytorch":
            _set(bias, uniform(int(np.prod(shape[1:])), shape[:1], random))
    return proto


def _set(tensor: onnx.TensorProto, array: Weights) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), tensor.name))


def measure_kind(runs: Runs, name: str, kind: str, seed: int) -> None:
    """Train one network from weights of one kind with one seed and default options."""
    model, chip = NETWORKS[name]
    path = MODELS / f"{model}.onnx" if kind == SHIPPED else runs.out / f"{model}-{kind}.onnx"
    runs.compile_and_train(f"{name}-{kind}-{seed}", str(path), chip, seed, *LENGTH[model])


def measure_float(runs: Runs, name: str, seed: int) -> None:
    """Train one network in float32, evaluate it on the arrays, and train it on there for one epoch."""
    model, chip = NETWORKS[name]
    run, options = f"{name}-float-{seed}", (*LENGTH[model], *RATE[model], "--method", "float")
    trained = runs.compile_and_train(run, str(MODELS / f"{model}.onnx"), chip, seed, *options)
    for evaluation in range(EVALUATIONS):
        runs.cimc(run, f"eval{evaluation}", "eval", trained, *runs.data, "--seed", str(evaluation))
    runs.train(f"{name}-tuned-{seed}", trained, seed, "--epochs", "1")


def kinds_table(runs: Runs, names: list[str], seeds: list[int]) -> None:
    """Print the first table, and how far the means of the kinds lie apart."""
    print("\n| network | chip | initial weights | test accuracy % | updates per weight, mean (largest) | - shipped |")
    print("|---|---|---|---|---|---|")
    apart = []
    for name in names:
        means = {}
        for kind, words in KINDS.items():
            trained = [runs.figures(f"{name}-{kind}-{seed}", "train") for seed in seeds]
            accuracy = [100 * run["accuracy"] for run in trained]
            means[kind] = float(np.mean(accuracy))
            difference = "" if kind == SHIPPED else f"{means[kind] - means[SHIPPED]:+.2f}"
            print(
                f"| {' | '.join(NETWORKS[name])} | {words} | {spread(accuracy)} | {updates(trained)} | {difference} |"
            )
        apart.append(f"{' on '.join(NETWORKS[name])} {max(means.values()) - min(means.values()):.2f}")
    print(f"\nMeans of the kinds lie apart by at most, points: {', '.join(apart)}.")


def float_table(runs: Runs, names: list[str], seeds: list[int]) -> None:
    """Print the second table, and which networks ended below where they began by more than its spread.

    Where networks begin: over all seeds and evaluations. The comparison is of each network with its own evaluations.
    """
    print(f"\nBegins: {EVALUATIONS} evaluations a seed, each on newly programmed arrays.\n")
    print("| network | chip | float32 % | begins % | ends % | ends - begins (least) |\n|---|---|---|---|---|---|")
    fell = []
    for name in names:
        exact, begins, ends, gains = [], [], [], []
        for seed in seeds:
            run = f"{name}-float-{seed}"
            at_first = [100 * runs.figures(run, f"eval{n}")["accuracy"] for n in range(EVALUATIONS)]
            exact.append(100 * runs.figures(run, "train")["accuracy"])
            ends.append(100 * runs.figures(f"{name}-tuned-{seed}", "train")["accuracy"])
            begins += at_first
            gains.append(ends[-1] - float(np.mean(at_first)))
            if gains[-1] < -sd(at_first):
                fell.append(f"{name} seed {seed} ({gains[-1]:+.2f}, spread {sd(at_first):.2f})")
        print(
            f"| {' | '.join(NETWORKS[name])} | {spread(exact)} | {spread(begins)} | {spread(ends)} "
            f"| {np.mean(gains):+.2f} ({min(gains):+.2f}) |"
        )
    print(f"\nEnded below where it began by more than the spread there: {', '.join(fell) or 'none'}.")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = arguments(__doc__, Path("results/initial_weights"))
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="initial weights, fine-tuning")
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    tasks = []
    if "kinds" in options.parts:
        for model in sorted({NETWORKS[name][0] for name in options.only}):
            for kind in KINDS.keys() - {SHIPPED}:
                (runs.out / f"{model}-{kind}.onnx").write_bytes(network(model, kind).SerializeToString())
        tasks += [
            partial(measure_kind, runs, name, kind, seed)
            for name in options.only
            for kind in KINDS
            for seed in options.seeds
        ]
    if "float" in options.parts:
        tasks += [partial(measure_float, runs, name, seed) for name in options.only for seed in options.seeds]
    work_off(options.jobs, tasks)
    if "kinds" in options.parts:
        kinds_table(runs, options.only, options.seeds)
    if "float" in options.parts:
        float_table(runs, options.only, options.seeds)


if __name__ == "__main__":
    main()
