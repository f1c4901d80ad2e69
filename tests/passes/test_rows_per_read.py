"""Rows driven at once: what reading a block in parts costs, by hand, in the schedule, its bounds and the simulator."""

import json
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.artifact import Artifact, read_artifact, write_artifact
from cimc.chip import Chip, chip_text, load_chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from cimc.mapping_file import parse_mapping
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.simulator.simulate import compare, simulate
from tests.benchmarks.mapper.builder import Builder

CHIP = "brram-256x64"
MVM_US, MVM_NJ = 0.72, 2.93


def convolution(channels: int, columns: int, *, groups: int = 1) -> ir.Model:
    """A 3 x 3 convolution with a bias on 8 x 8 positions."""
    b = Builder("net", ["N", channels, 8, 8])
    y = b.conv("x", channels, columns, 3, pads=1, group=groups, activation="")
    return lower(ir.from_proto(b.model(y)))


def chain(*channels: int) -> ir.Model:
    b = Builder("chain", ["N", channels[0], 8, 8])
    x = "x"
    for before, after in pairwise(channels):
        x = b.conv(x, before, after, 3, pads=1)
    return lower(ir.from_proto(b.model(x)))


def mapped(model: ir.Model, chip: str | Chip = CHIP, rows: int | None = None, **options: object) -> Mapping:
    numbers = {} if rows is None else {"": rows}
    described = load_chip(chip) if isinstance(chip, str) else chip
    return map_network(model, described, options=MappingOptions(rows_per_read=numbers, **options))  # type: ignore[arg-type]


def test_a_block_in_parts_takes_the_time_and_energy_of_so_many_mvms() -> None:
    # 16 channels x 9 = 144 rows in one block: 50, 50 and 44.
    mapping = mapped(convolution(16, 4), rows=50)
    (layer,), (cost,) = mapping.layers, mapping.cost.layers
    assert layer.read_bounds == ((0, 50), (50, 100), (100, 144))
    assert (cost.tile_ops, cost.positions, cost.arrays) == (3 * 64, 64, 1)
    assert cost.latency_ms == pytest.approx(64 * 3 * MVM_US * 1e-3)
    assert cost.energy_mj == pytest.approx(64 * 3 * MVM_NJ * 1e-6)
    assert mapping.schedule is not None
    stage = mapping.schedule.stages[0]
    assert stage.round_ns == pytest.approx(3 * MVM_US * 1e3)
    assert mapping.schedule.latency_ns == mapping.schedule.interval_ns == pytest.approx(64 * 3 * MVM_US * 1e3)
    # Two additions of partial sums and one of the bias for each of 4 x 64 outputs.
    assert stage.operations == 3 * 4 * 64


def test_phases_and_parts_multiply() -> None:
    cost = mapped(convolution(16, 4), rows=50, input_range=(-1.0, 1.0)).cost
    assert cost.tile_ops == 2 * 3 * 64
    assert cost.latency_ms == pytest.approx(2 * 3 * 64 * MVM_US * 1e-3)


def test_of_several_blocks_the_parts_are_equal_and_the_fullest_sets_the_time() -> None:
    # 36 channels: blocks of 252 and 72 rows. The largest divisor of 252 up to 100 is 84: 3 parts, and 1.
    mapping = mapped(convolution(36, 4), rows=100)
    (layer,) = mapping.layers
    assert (layer.rows_per_read, layer.read_rows) == (100, 84)
    assert layer.read_bounds == ((0, 84), (84, 168), (168, 252), (252, 324))
    assert mapping.cost.tile_ops == (3 + 1) * 64
    assert mapping.cost.latency_ms == pytest.approx(3 * 64 * MVM_US * 1e-3)
    assert mapping.schedule is not None
    assert mapping.schedule.stages[0].operations == (4 - 1 + 1) * 4 * 64


def test_each_part_converts_every_column_and_each_row_is_driven_once() -> None:
    # isaac: 16 channels x 9 rows are blocks of 128 and 16 rows, 4 columns of 8 slices and the unit column.
    model = convolution(16, 4)
    whole, parts = ({c.name: c.energy_mj for c in mapped(model, "isaac", rows).cost.components} for rows in (None, 32))
    conversions = 64 * 16 * (4 * 8 + 1)  # of one array read an MVM, 16 cycles each
    assert whole["ADC"] == pytest.approx(2 * conversions * 1.5625e-9)
    assert parts["ADC"] == pytest.approx((4 + 1) * conversions * 1.5625e-9)
    assert parts["DAC"] == whole["DAC"] == pytest.approx(64 * 144 * 6.25e-9)
    assert parts["array"] == pytest.approx((4 + 1) * 64 * 480e-9)
    assert mapped(model, "isaac", 32).cost.energy_mj == pytest.approx(
        sum(parts[name] or 0.0 for name in ("ADC", "DAC", "array", "shift-add"))
    )


def test_groups_of_one_array_are_read_together_part_by_part() -> None:
    # 8 groups of 2 channels x 9 rows lie along the diagonal of one array: two parts of 9 rows of each.
    cost = mapped(convolution(16, 16, groups=8), rows=9).cost
    assert (cost.crossbars, cost.tile_ops) == (1, 2 * 64)


def test_groups_in_turns_take_a_read_each() -> None:
    # 28 channels of 9 rows lie in one array of 256 rows: in turns, by sevens (5 does not divide 28), all.
    model, chip = convolution(28, 28, groups=28), load_chip(CHIP)
    for wanted, together in ((1, 1), (8, 7), (100, 28)):
        mapping = map_network(model, chip, options=MappingOptions(groups_per_read={"": wanted}))
        (layer,) = mapping.layers
        assert layer.groups_per_read == together
        assert (mapping.cost.crossbars, mapping.cost.tile_ops) == (1, 28 // together * 64)
        assert mapping.cost.latency_ms == pytest.approx(28 // together * 64 * MVM_US * 1e-3)
        assert simulate(model, mapping, chip).latency_ns == pytest.approx(28 // together * 64 * MVM_US * 1e3)
        slow = chip.model_copy(update={"cores": chip.cores.model_copy(update={"mvm_start_ns": 1000.0})})
        mapping = map_network(model, slow, options=MappingOptions(groups_per_read={"": wanted}))
        assert mapping.schedule is not None
        assert mapping.schedule.interval_ns == pytest.approx(28 // together * 64 * 1000.0)
        assert simulate(model, mapping, slow).interval_ns == pytest.approx(28 // together * 64 * 1000.0)


def test_turns_and_parts_multiply_and_copies_do_not_wait_for_each_other() -> None:
    model = convolution(10, 10, groups=10)
    options = MappingOptions(groups_per_read={"": 5}, rows_per_read={"": 3}, objective="interval", arrays=4)
    mapping = map_network(model, load_chip(CHIP), options=options)
    (layer,) = mapping.layers
    # Two sets, three parts; each copy has an array to itself.
    assert (layer.copies, mapping.cost.crossbars) == (4, 4)
    assert mapping.result is not None
    assert mapping.result.exact
    assert mapping.result.value == pytest.approx(64 / 4 * 2 * 3 * MVM_US * 1e-3)
    _, comparisons = compare(model, mapping, load_chip(CHIP), images=4)
    assert all(comparison.agrees and not comparison.causes for comparison in comparisons)


def test_copies_share_the_positions_of_a_layer_in_parts() -> None:
    mapping = mapped(convolution(16, 4), rows=50, objective="interval", arrays=8)
    (layer,) = mapping.layers
    assert layer.copies == 8
    assert mapping.result is not None
    assert mapping.result.exact
    assert mapping.result.value == pytest.approx(64 / 8 * 3 * MVM_US * 1e-3)


@settings(deadline=None, max_examples=12)
@given(
    rows=st.integers(1, 300),
    objective=st.sampled_from([None, "interval", "latency", "energy", "arrays"]),
    signed=st.booleans(),
    chip=st.sampled_from([CHIP, "isaac"]),
    groups=st.none() | st.integers(1, 12),
)
def test_the_simulator_agrees_and_no_result_is_below_its_bound(
    rows: int, objective: str | None, signed: bool, chip: str, groups: int | None
) -> None:
    model = chain(4, 30, 8) if groups is None else convolution(24, 24, groups=12)
    budget: dict[str, object] = {} if objective is None else {"objective": objective, "arrays": 14}
    budget["groups_per_read"] = {} if groups is None else {"": groups}
    mapping = mapped(model, chip, rows, input_range=(-1.0 if signed else 0.0, 1.0), **budget)
    assert mapping.result is None or mapping.result.value >= mapping.result.bound * (1 - 1e-9)
    _, comparisons = compare(model, mapping, load_chip(chip), images=4)
    for comparison in comparisons:
        assert comparison.agrees, comparison


def test_the_simulator_reads_a_block_in_parts_too() -> None:
    model, chip = convolution(36, 4), load_chip(CHIP)
    mapping = mapped(model, rows=100)
    assert simulate(model, mapping, chip).latency_ns == pytest.approx(3 * 64 * MVM_US * 1e3)
    # One core starts the four reads of an MVM one after the other.
    slow = chip.model_copy(update={"cores": chip.cores.model_copy(update={"mvm_start_ns": 1000.0})})
    mapping = mapped(model, slow, 100)
    assert mapping.schedule is not None
    assert mapping.schedule.interval_ns == pytest.approx(4 * 64 * 1000.0)
    assert simulate(model, mapping, slow).interval_ns == pytest.approx(4 * 64 * 1000.0)


def test_one_layer_by_name_and_all_others() -> None:
    model = chain(4, 30, 8)
    names = [layer.name for layer in mapped(model).layers]
    options = MappingOptions(rows_per_read={"": 20, names[1]: 7})
    assert [layer.rows_per_read for layer in map_network(model, load_chip(CHIP), options=options).layers] == [20, 7]
    options = MappingOptions(rows_per_read={names[1]: 7})
    assert [layer.rows_per_read for layer in map_network(model, load_chip(CHIP), options=options).layers] == [None, 7]


def test_a_layer_that_is_not_there_is_named_with_the_nearest() -> None:
    model = chain(4, 30)
    (name,) = (layer.name for layer in mapped(model).layers)
    with pytest.raises(CimcError, match=f"'{name}x', which is no crossbar layer .* did you mean {name}"):
        map_network(model, load_chip(CHIP), options=MappingOptions(rows_per_read={f"{name}x": 3}))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (0, "rows_per_read is 0; give a whole number of at least 1"),
        (True, "rows_per_read is True"),
        ({"conv": 0}, "rows_per_read of conv is 0"),
        ({3: 3}, "rows_per_read is for a layer 3; give names"),
        ("32", "rows_per_read is '32'"),
    ],
)
def test_wrong_numbers_are_refused(rows: object, message: str) -> None:
    with pytest.raises(CimcError, match=message):
        MappingOptions(rows_per_read=rows)  # type: ignore[arg-type]


def test_the_file_keeps_it_and_a_file_of_before_reads_all_rows(tmp_path: Path) -> None:
    model = convolution(16, 4)
    mapping = mapped(model, rows=50)
    write_artifact(tmp_path / "a.cim", Artifact("net", model, load_chip(CHIP), chip_text(CHIP), mapping))
    assert read_artifact(tmp_path / "a.cim").mapping == mapping
    before = json.loads(mapped(model).model_dump_json())
    for layer in before["layers"]:
        del layer["rows_per_read"]
    assert parse_mapping(json.dumps(before), "a.cim") == mapped(model)
