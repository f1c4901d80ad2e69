"""The bound of the latency objective, beside every choice of copies there is."""

from itertools import combinations
from pathlib import Path

import pytest

from cimc.chip import load_chip
from passes.mapper.copies import arrays_of, one_each
from passes.mapper.layers import layers_of
from passes.mapper.objectives.latency import bound, estimated_latency, search
from passes.mapper.plan import Task
from passes.mapper.stages import stages_of
from passes.pipeline import lower
from passes.read import read_network

MODELS = Path(__file__).parents[2] / "models"
NEAR = 1.08  # times the bound: the best choice. By each layer's head and tail alone it would be 1.14 to 1.17


def task_of(model: str, chip_name: str) -> Task:
    lowered, chip = lower(read_network(MODELS / f"{model}.onnx")), load_chip(chip_name)
    layers = tuple(layers_of(lowered, chip, (0.0, 1.0)))
    return Task(layers, tuple(stages_of(lowered, layers, chip)), chip)


def choices(task: Task, budget: int):
    """As many copies as each layer can have in its part of the budget, for every way to part it."""
    layers = task.layers
    least = [layer.arrays(1) for layer in layers]
    free = budget - sum(least)
    for cuts in combinations(range(free + len(layers)), len(layers)):
        shares = [b - a - 1 for a, b in zip((-1, *cuts), cuts, strict=False)]
        yield {
            layer.name: max(c for c in range(1, layer.positions + 1) if layer.arrays(c) <= base + share)
            for layer, base, share in zip(layers, least, shares, strict=True)
        }


@pytest.mark.parametrize(
    ("model", "chip", "budget"),
    [("lenet1", "brram-256x64", 9), ("lenet1", "brram-256x64", 14), ("lenet1", "brram-soc", 14)],
)
def test_no_choice_of_copies_is_below_the_bound_and_the_best_is_near(model, chip, budget):
    task = task_of(model, chip)
    one = arrays_of(task.layers, one_each(task.layers))
    assert one < budget
    best = min(estimated_latency(task, copies) for copies in choices(task, budget)) * 1e-6
    assert bound(task, budget) <= best * (1 + 1e-9)
    assert best <= NEAR * bound(task, budget)
    found = {layer.name: layer.copies for layer in search(task, budget)}
    assert estimated_latency(task, found) * 1e-6 >= bound(task, budget) * (1 - 1e-9)


@pytest.mark.parametrize("model", ["lenet5", "vgg8"])
def test_the_bound_falls_with_the_budget_to_the_latency_of_unlimited_copies(model):
    task = task_of(model, "brram-256x64")
    one = arrays_of(task.layers, one_each(task.layers))
    unlimited = {layer.name: layer.positions for layer in task.layers}
    bounds = [bound(task, budget) for budget in (one, 2 * one, 5 * one, arrays_of(task.layers, unlimited))]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] <= estimated_latency(task, one_each(task.layers)) * 1e-6
    assert bounds[-1] == pytest.approx(estimated_latency(task, unlimited) * 1e-6)
