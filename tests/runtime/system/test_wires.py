"""A network on arrays with wires: each array by nodal analysis where its cells lie, `model.onnx`, causes of losses."""

from dataclasses import replace
from functools import cache
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.mapping import Mapping
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.verify import run
from runtime.crossbar.cell_wires import as_read
from runtime.crossbar.pieces import read_in_pieces
from runtime.network.load import load_network
from runtime.system.layers import held_of
from runtime.system.loss_causes import loss_causes
from runtime.system.products import array_product, state_as_read
from runtime.system.program import program_of
from runtime.system.read_effects import Cause
from runtime.system.state import System, build_system, initial_state
from tests.networks import network, weights
from tests.nodal import column_currents
from tests.runtime.crossbar.cases import quiet

ROWS, COLUMNS = 11, 5
ARRAY = {"rows": 8, "columns": 6}  # two row blocks and two column blocks
WIRES = {"word_line_ohm": 100.0, "bit_line_ohm": 150.0, "ir_drop": "exact"}


def chip_of(**wires: object) -> Chip:
    """Ideal converters and exact devices of up to 100 uS, so that what is read is the arrays' own."""
    return load_chip(
        "ideal",
        settings={
            "array": ARRAY,
            "cell": {"conductance_min_uS": 5.0, "conductance_max_uS": 100.0},
            "wires": {**WIRES, **wires},
        },
    )


@cache
def system_of(chip: Chip) -> tuple[ir.Model, System]:
    """A product in four arrays, and its network."""
    model = network(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["N", ROWS]},
        {"y": ["N", COLUMNS]},
        {"w": weights(ROWS, COLUMNS)},
    )
    lowered = lower(model)
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0)))
    return lowered, build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip)


class ByAddress(NamedTuple):
    """An array: its cells, the weight row of each word line, the bit lines of each weight column."""

    cells: np.ndarray
    inputs: dict[int, int]
    outputs: dict[int, tuple[int, int]]


def arrays_by_address(mapping: Mapping, targets: np.ndarray) -> list[ByAddress]:
    """The arrays, filled weight by weight."""
    held: dict[int, ByAddress] = {}
    for row, column in product(range(ROWS), range(COLUMNS)):
        place = mapping.address("fc", row, column)
        array = held.setdefault(place.array, ByAddress(np.zeros((ARRAY["rows"], ARRAY["columns"])), {}, {}))
        array.cells[place.row, place.column_plus], array.cells[place.row, place.column_minus] = targets[:, row, column]
        array.inputs[place.row], array.outputs[column] = row, (place.column_plus, place.column_minus)
    assert len(held) == 4
    return list(held.values())


@pytest.mark.parametrize("kind", ["exact", "static"])
def test_each_array_has_the_wires_of_its_cells(kind: str) -> None:
    _, system = system_of(chip_of(ir_drop=kind))
    state, name = initial_state(system), "fc"
    targets = np.asarray(state["conductance"][name], np.float64)
    x = weights(7, ROWS, seed=1).astype(np.float64) if kind == "exact" else np.full((1, ROWS), 0.7)
    expected = np.zeros((len(x), COLUMNS))
    for cells, inputs, outputs in arrays_by_address(system.mapping, targets):
        voltages = np.zeros((ARRAY["rows"], len(x)))
        for line, row in inputs.items():
            voltages[line] = x[:, row]
        drawn = column_currents(cells, system.chip.wires, voltages)
        for column, (plus, minus) in outputs.items():
            expected[:, column] += drawn[plus] - drawn[minus]
    expected *= float(state["weight_range"][name]) / system.chip.cell.window_uS
    y = array_product(system, state)(name, jnp.asarray(x.T, jnp.float32), None)
    np.testing.assert_allclose(np.asarray(y).T, expected, atol=2e-4)
    assert np.abs(expected - x @ weights(ROWS, COLUMNS)).max() > 0.05


def test_the_exported_network_reads_through_the_wires() -> None:
    chip = quiet(load_chip("brram-soc", settings={"array": ARRAY, "wires": {**WIRES, "ir_drop": "static"}}))
    lowered, system = system_of(chip)
    state, x = initial_state(system), weights(9, ROWS, seed=2)
    state["input_range"]["fc"] = jnp.float32(1)
    held = held_of(system, state, "fc")
    y = read_in_pieces(system.crossbars["fc"], x[None], held, None)[0]
    program = program_of(system, state_as_read(system, state))
    (exported,) = run(chip_network(lowered, system.mapping, chip, program), {"x": x})
    np.testing.assert_array_equal(y, exported)
    ideal = read_in_pieces(replace(system.crossbars["fc"], wires=None), x[None], held, None)[0]
    assert np.abs(y - ideal).max() > 0.05


def test_what_reads_see_is_found_once_for_a_programming() -> None:
    _, system = system_of(chip_of())
    wiring, held = system.crossbars["fc"].wires, initial_state(system)["conductance"]["fc"]
    assert as_read(wiring, held) is as_read(wiring, held)
    other = held * 0.5
    assert np.asarray(as_read(wiring, other)).max() < 0.6 * np.asarray(as_read(wiring, held)).max()


def test_ir_drop_is_a_cause_of_loss() -> None:
    _, system = system_of(chip_of())
    state, exact = initial_state(system), weights(ROWS, COLUMNS)
    held = held_of(system, state, "fc")
    targets = np.asarray(held.conductance)
    x = weights(ROWS, 20, seed=3)
    found = loss_causes(system.crossbars["fc"], x, held, targets=targets, weight=exact, exact=(exact, None), seed=None)
    assert found.main_cause is Cause.ir_drop
    assert found.shares[Cause.ir_drop] > 0.95
