"""Long networks: the work of the mapper grows with their layers, and no faster; and a time budget ends its search."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from tests.networks import network_proto, weights

CHIP = load_chip("brram-256x64")
GROWTH = 2.6  # of the calls, for twice the layers


def chain(layers: int) -> ir.Model:
    """MatMuls of 8 x 8, one behind the other."""
    names = ["x", *(f"v{n}" for n in range(1, layers)), "y"]
    nodes = [helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]]) for n in range(layers)]
    constants = {f"w{n}": weights(8, 8) / 3 for n in range(layers)}
    return ir.from_proto(network_proto(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, constants))


@contextmanager
def counted() -> Iterator[list[int]]:
    """Counts the Python and C functions that are called."""
    calls = [0]

    def count(frame: object, event: str, argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.fixture(scope="module")
def lowered() -> dict[int, tuple[ir.Model, int]]:
    """Lowered chains, and the calls that took."""
    found = {}
    for layers in (10, 40, 80):  # the first loads what is loaded once
        model = chain(layers)
        with counted() as calls:
            known = lower(model)
        found[layers] = known, calls[0]
    return found


def test_lowering_grows_with_the_layers(lowered: dict[int, tuple[ir.Model, int]]) -> None:
    assert lowered[80][1] < GROWTH * lowered[40][1]


@pytest.mark.parametrize("objective", [None, "latency", "interval", "energy", "arrays"])
def test_mapping_grows_with_the_layers(objective: str | None, lowered: dict[int, tuple[ir.Model, int]]) -> None:
    options = MappingOptions(objective=objective)
    found = {}
    for layers, (model, _) in lowered.items():
        with counted() as calls:
            map_network(model, CHIP, options=options)
        found[layers] = calls[0]
    assert found[80] < GROWTH * found[40]


@pytest.mark.parametrize("objective", ["latency", "interval", "energy", "arrays"])
def test_a_time_budget_ends_the_search_with_a_result_and_its_bound(
    objective: str, lowered: dict[int, tuple[ir.Model, int]]
) -> None:
    options = MappingOptions(objective=objective, seconds=0.0)
    with counted() as hurried:
        mapping = map_network(lowered[40][0], CHIP, options=options)
    with counted() as patient:
        best = map_network(lowered[40][0], CHIP, options=replace(options, seconds=None))
    assert mapping.result is not None
    assert best.result is not None
    assert mapping.result.bound <= best.result.value <= mapping.result.value
    assert hurried[0] <= patient[0]


def test_time_that_is_not_used_changes_nothing(lowered: dict[int, tuple[ir.Model, int]]) -> None:
    options = MappingOptions(objective="latency")
    known = map_network(lowered[40][0], CHIP, options=options)
    assert map_network(lowered[40][0], CHIP, options=replace(options, seconds=3600.0)) == known
