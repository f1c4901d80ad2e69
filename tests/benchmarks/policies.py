"""All update policies under the same device and converters: LeNet-5 on MNIST, soft-bounds devices of few states.

    python -m tests.benchmarks.policies --data-dir DIR [--out results/policies] [--states 4 10] [--policies eapu agad]

The protocol of arXiv 2510.02516, shorter: converters ideal, and of 8 bit with read noise. Options were picked by test
accuracy with 10 states and one seed, in 300 steps (those of Tiki-Taka in 4 epochs), one to five tries a policy, mixed
precision and pulsed SGD not at all, and not all together; where there is the choice, blind pulses. Each run's JSON is
kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.device_training import CONVERTERS, LENET5, PULSES, chip_file
from tests.benchmarks.runs import MODELS, Runs, add_shortening, arguments, runs_of, spread, updates, work_off

STATES = (4, 10, 20)
# Options of each policy, beside those of the table.
POLICIES: dict[str, tuple[str, ...]] = {
    "float": (),
    "mixed-precision": PULSES,
    "mixed-precision 6 bits": (*PULSES, "--set", "accumulator_bits=6", "--set", "gradient_bits=8"),
    "naive": (),
    "sign": ("--write", "pulse", "--set", "share=5"),
    "eapu": ("--write", "pulse"),
    "eapu-accumulator": ("--write", "pulse"),
    "pulsed-sgd": (),
    "tiki-taka": (),
    "tiki-taka-v2": (),
    "chopped-tiki-taka-v2": (),
    "agad": (),
    "residual-learning": (),
    "multi-tile": (),
}


@dataclass(frozen=True)
class Case:
    """A training by a policy on a device of so many states behind those converters."""

    policy: str
    states: int
    converters: str

    @property
    def run(self) -> str:
        """Name of its files, without the seed."""
        return f"{self.policy.replace(' ', '-')}-{self.states}-{self.converters}"


def cases(states: list[int], policies: list[str]) -> Iterator[Case]:
    """All trainings; float, which has no devices, once."""
    for converters in CONVERTERS:
        for count in states:
            for policy in policies:
                if policy != "float" or (count == states[0] and converters == CONVERTERS[0]):
                    yield Case(policy, count, converters)


def measure(runs: Runs, epochs: int, case: Case, seed: int) -> None:
    """Train one case with one seed."""
    chip = chip_file(runs, f"soft-bounds-{case.states}", case.converters)
    options = ("--update", case.policy.partition(" ")[0], *POLICIES[case.policy], *LENET5, "--epochs", str(epochs))
    runs.compile_and_train(f"{case.run}-{seed}", str(MODELS / "lenet5.onnx"), chip, seed, *options)


def table(runs: Runs, chosen: list[Case], seeds: list[int]) -> None:
    """Print the table: mean and standard deviation over the seeds.

    Energy is that of the arrays' products, and of the writes by the rules of docs/writes.md, reads included.
    """
    print(
        "| states | converters | policy | devices a weight | accuracy % | updates a weight, mean (largest) | ", end=""
    )
    print("device writes a weight | pulses or trials a weight | products mJ | writes mJ | writes ms | samples/s |")
    print(f"|{12 * '---|'}")
    for case in chosen:
        done = [runs.figures(f"{case.run}-{seed}", "train") for seed in seeds]
        row = [
            case.states if case.policy != "float" else "-",
            case.converters if case.policy != "float" else "-",
            case.policy,
            done[0].get("devices_per_weight", 0),
            spread([100 * run["accuracy"] for run in done]),
            updates(done),
            f"{np.mean([run['device_writes'] / run['weights'] for run in done]):.1f}",
            f"{np.mean([run['programming_trials'] / run['weights'] for run in done]):.1f}",
            mean_of(done, "forward_energy_mj", ".3g"),
            mean_of(done, "write_energy_mj", ".3g"),
            mean_of(done, "write_time_ms", ".0f"),
            mean_of(done, "images_per_s", ".0f"),
        ]
        print("| " + " | ".join(str(value) for value in row) + " |")


def mean_of(done: list[dict[str, Any]], figure: str, form: str) -> str:
    """The mean of a figure, or a dash where a run does not have it."""
    values = [run.get(figure) for run in done]
    return "-" if None in values else f"{np.mean(np.array(values, float)):{form}}"


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/policies"))
    parser.add_argument("--states", type=int, nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES), metavar="NAME")
    parser.add_argument("--length", type=int, default=12, help="epochs")
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    chosen = list(cases(options.states, options.policies))
    tasks = [partial(measure, runs, options.length, case, seed) for case in chosen for seed in options.seeds]
    work_off(options.jobs, tasks)
    table(runs, chosen, options.seeds)


if __name__ == "__main__":
    main()
