"""Accuracy against the budget of row writes, on real MNIST: LeNet-1 on brram-soc, mixed precision, default options.

    python -m tests.benchmarks.write_budget --data-dir DIR [--out results/write_budget]

Budgets are shares of the row writes that are due in a step, 1, 3, 10, 30 and 100 %; `--budgets` takes any other that
`cimc train --write-budget` knows. Times and energies are those of the chip file and, where it is silent, of the rules
in docs/writes.md. Each run's JSON is kept in the output folder and not run again.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.runs import LENGTH, MODELS, RATE, Runs, add_shortening, arguments, runs_of, spread, work_off

ALL = "100%"
BUDGETS = ("1%", "3%", "10%", "30%", ALL)


def measure(runs: Runs, model: str, chip: str, budget: str, seed: int) -> None:
    """Train with one budget and one seed; 100 % is no budget."""
    limit = () if budget == ALL else ("--write-budget", budget)
    name = f"{model}-{chip}-{budget.replace('%', 'percent')}-{seed}"
    runs.compile_and_train(name, str(MODELS / f"{model}.onnx"), chip, seed, *LENGTH[model], *RATE[model], *limit)


def table(runs: Runs, model: str, chip: str, budgets: list[str], seeds: list[int]) -> None:
    """Print the table: mean and standard deviation over the seeds."""
    columns = {
        "accuracy %": lambda run: 100 * run["accuracy"],
        "row writes a step": lambda run: run["row_writes_per_step"],
        "writes us a step": lambda run: 1e3 * run["write_time_ms"] / run["steps"],
        "stall us a step, overlapped": lambda run: run["step"]["stall_us"]["overlapped"],
        "writes nJ a step": lambda run: 1e6 * run["write_energy_mj"] / run["steps"],
        "of the arrays' energy %": lambda run: 100 * run["write_energy_mj"] / run["forward_energy_mj"],
        "updates a weight": lambda run: run["updates_per_weight_mean"],
        "most pulses a device": lambda run: run["pulses_per_device_max"],
        "wait steps": lambda run: run.get("wait_steps_mean") or 0.0,
    }
    print(f"\n{model} on {chip}, seeds {seeds}\n")
    print(f"| budget | {' | '.join(columns)} | waited most |")
    print(f"|{'---|' * (len(columns) + 2)}")
    for budget in budgets:
        name = f"{model}-{chip}-{budget.replace('%', 'percent')}"
        done = [runs.figures(f"{name}-{seed}", "train") for seed in seeds]
        cells = [_cell(done, figure) for figure in columns.values()]
        print(f"| {budget} | {' | '.join(cells)} | {max(run.get('wait_steps_max', 0) for run in done)} |")
    assumed = runs.figures(f"{name}-{seeds[0]}", "train")["write_assumed"]
    if assumed:
        print(f"\nAssumed, as the chip file does not state them: {', '.join(assumed)} (docs/writes.md).")


def _cell(done: list[dict[str, Any]], figure: Callable[[dict[str, Any]], float]) -> str:
    values = [figure(run) for run in done]
    return spread(values, ".2f" if np.mean(values) >= 1 else ".3g")


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = arguments(__doc__, Path("results/write_budget"))
    parser.add_argument("--model", default="lenet1", choices=sorted(LENGTH))
    parser.add_argument("--chip", default="brram-soc")
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS))
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    work_off(
        options.jobs,
        [
            partial(measure, runs, options.model, options.chip, budget, seed)
            for budget in options.budgets
            for seed in options.seeds
        ],
    )
    table(runs, options.model, options.chip, options.budgets, options.seeds)


if __name__ == "__main__":
    main()
