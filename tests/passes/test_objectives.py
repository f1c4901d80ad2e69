"""Objectives are found by name, a new one is one module, and wrong options of the mapper are refused when made."""

from pathlib import Path

import pytest

import passes.mapper.objectives
from cimc.chip import load_chip
from cimc.errors import CimcError
from passes.mapper.map_network import map_network
from passes.mapper.objective import find_objective, objective_names
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.read import read_network

MODELS = Path(__file__).parents[2] / "models"

LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"

# The recipe of `docs/source.md`: as many copies as fit of the layer that is read most.
BUSIEST = """
from passes.mapper.copies import arrays_of, one_each
from passes.mapper.lay_out import lay_out_copies
from passes.mapper.objective import Objective


def search(task, budget):
    copies, busiest = one_each(task.layers), max(task.layers, key=lambda layer: layer.reads(1)).name
    while arrays_of(task.layers, {**copies, busiest: copies[busiest] + 1}) <= budget:
        copies[busiest] += 1
    return lay_out_copies(task.layers, copies)


OBJECTIVE = Objective(
    unit="MVMs",
    search=search,
    reached=lambda mapping: max(layer.positions / layer.copies for layer in mapping.layers),
    bound=lambda task, budget: 1.0,
    bound_in_segments=lambda task, mapping, budget: 1.0,
)
"""


def test_the_command_line_offers_every_objective() -> None:
    assert {"latency", "interval", "energy", "arrays"} <= set(objective_names())


def test_a_new_objective_is_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busiest.py").write_text(BUSIEST)
    monkeypatch.setattr(passes.mapper.objectives, "__path__", [*passes.mapper.objectives.__path__, str(tmp_path)])
    options = MappingOptions(objective="busiest", arrays=4)
    result = map_network(lower(read_network(LENET1)), load_chip("brram-256x64"), options=options).result
    assert result is not None
    assert (result.objective, result.unit, result.bound) == ("busiest", "MVMs", 1.0)
    assert 1 < result.value < 576  # positions of the first layer, which one copy computes alone


def test_an_unknown_objective_is_refused_with_those_that_exist() -> None:
    with pytest.raises(CimcError, match="--objective is 'area'; choose arrays, energy, interval, latency"):
        find_objective("area")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "speed"}, "--objective is 'speed'; choose arrays, energy"),
        ({"row_split": "rows"}, "row_split is 'rows'; choose channel, flat"),
        ({"input_range": (1.0, 0.0)}, "input_range is"),
        ({"input_range": (0.0, float("inf"))}, "input_range is"),
        ({"max_chips": 0}, "max_chips is 0"),
        ({"objective": "energy", "arrays": 0}, "arrays is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"arrays": 9}, "--arrays is the budget of an objective; add --objective"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(CimcError, match=said) as error:
        MappingOptions(**options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("objective", ["latency", "interval", "energy", "arrays"])
@pytest.mark.parametrize("row_write_us", [None, 1.0])
def test_a_network_that_fits_the_budget_is_not_cut_for_the_sake_of_one_chip(
    objective: str, row_write_us: float | None
) -> None:
    """VGG-8 takes 78 arrays: too many for a chip of 8, few enough for 20 chips."""
    chip = load_chip("brram-256x64")
    chip = chip.model_copy(
        update={
            "array": chip.array.model_copy(update={"per_chip": 8}),
            "cost": chip.cost.model_copy(update={"row_write_us": row_write_us}),
        }
    )
    mapping = map_network(
        lower(read_network(MODELS / "vgg8.onnx")), chip, options=MappingOptions(objective=objective, arrays=156)
    )
    assert not mapping.segments
    assert mapping.arrays <= 156
