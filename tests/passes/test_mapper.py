"""The mapper: copies, packing, groups, placement and segments keep every weight in its place and reach the figures."""

from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.mapping import Block, MappedLayer, Mapping
from cimc.mapping_file import parse_mapping
from cimc.options import RowSplit
from models.build import NETWORKS
from passes.mapper.layers import layers_of
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.mapper.pack import area_bound
from passes.mapper.reads import read_table
from passes.mapper.traffic import partial_sums
from passes.pipeline import lower
from passes.read import read_network
from tests.benchmarks.mapper.networks import network as benchmark_network
from tests.networks import network, weights

MODELS = Path(__file__).parents[2] / "models"

OBJECTIVES = ("latency", "interval", "energy", "arrays")


@cache
def lowered(name: str) -> ir.Model:
    return lower(
        ir.from_proto(NETWORKS[name]() if name in NETWORKS else benchmark_network(name.removeprefix("benchmark_")))
    )


@pytest.mark.parametrize(
    ("name", "chip", "arrays", "positions", "fewer"),
    [
        ("lenet1", "brram-soc", 9, 72, 8),
        ("vgg8", "brram-256x64", 87, 256, 85),
        ("resnet18", "brram-256x64", 1558, 256, 1554),
    ],
)
def test_copies_of_table_2_with_columns_checked(name, chip, arrays, positions, fewer):
    """The table's interval; with the table's own arrays for VGG-8 and ResNet-18 (85, 1554) it cannot be reached."""
    mapping = map_network(lowered(name), load_chip(chip), options=MappingOptions(objective="interval", arrays=arrays))
    assert mapping.arrays == arrays
    assert mapping.cost.pipelined_latency_ms == pytest.approx(positions * 0.72e-3)
    assert mapping.result is not None
    assert mapping.result.exact
    less = map_network(lowered(name), load_chip(chip), options=MappingOptions(objective="interval", arrays=fewer))
    assert less.arrays <= fewer
    assert less.cost.pipelined_latency_ms > mapping.cost.pipelined_latency_ms


@pytest.mark.parametrize(
    ("name", "arrays", "one_layer_an_array"),
    [("autoencoder", 5, 14), ("ds_cnn", 1, 6), ("resnet8", 2, 15), ("mobilenetv2_cifar", 33, 91)],
)
def test_packing_reaches_the_area_bound(name, arrays, one_layer_an_array):
    chip = load_chip("packing-256")
    assert map_network(lowered(name), chip).arrays == one_layer_an_array
    mapping = map_network(lowered(name), chip, options=MappingOptions(objective="arrays"))
    assert mapping.result is not None
    assert (mapping.arrays, mapping.result.bound, mapping.result.exact) == (arrays, arrays, True)
    assert area_bound(layers_of(lowered(name), chip, (0.0, 1.0)), chip) == arrays
    check_cells(mapping, chip)


@pytest.mark.parametrize(("name", "arrays"), [("squeezenet", 108), ("resnet18", 1480)])
def test_one_copy_takes_the_arrays_of_the_peers_table(name, arrays):
    chip = load_chip("pimcomp-a" if name == "squeezenet" else "brram-256x64")
    assert map_network(lowered(name), chip).arrays == arrays


@pytest.mark.parametrize(("name", "most"), [("mobilenetv2", 816), ("shufflenet", 544)])
def test_groups_lie_block_diagonal(name, most):
    mapping = map_network(lowered(name), load_chip("pimcomp-a"))
    assert mapping.arrays <= most
    table = read_table(mapping.layers, load_chip("pimcomp-a"))
    assert all(len(reads) == 1 for reads in table.by_array.values()), "all groups of an array are read at once"


def test_a_rewritten_crossbar_takes_the_peers_time():
    mapping = map_network(
        lowered("benchmark_resnet18"), load_chip("cimaq-256"), options=MappingOptions(objective="latency")
    )
    assert mapping.cost.latency_ms == pytest.approx(1507.5, abs=0.05)
    assert mapping.cost.reprogramming_ms == pytest.approx(len(mapping.segments) * 0.056)


def chip_of(rows: int, columns: int, per_chip: int = 1000, **update: object) -> Chip:
    chip = load_chip("brram-256x64")
    array = chip.array.model_copy(update={"rows": rows, "columns": columns, "per_chip": per_chip})
    return chip.model_copy(update={"array": array, **update})


def residual(channels: int, groups: int, kernel: int, size: int, classes: int) -> ir.Model:
    """Two convolutions, the second grouped, with a shortcut around it, pooling and a dense layer."""
    pad = kernel // 2
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], name="first", kernel_shape=[kernel, kernel], pads=[pad] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "Conv", ["b", "k2"], ["c"], name="second", kernel_shape=[kernel, kernel], pads=[pad] * 4, group=groups
        ),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], name="dense"),
    ]
    outputs = channels * groups
    constants = {
        "k1": weights(outputs, 3, kernel, kernel),
        "k2": weights(outputs, channels, kernel, kernel),
        "w": weights(outputs * (size // 2) ** 2, classes),
    }
    return lower(network(nodes, {"x": ["N", 3, size, size]}, {"y": ["N", classes]}, constants))


shapes = st.tuples(
    st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3]), st.sampled_from([4, 6]), st.integers(1, 9)
)
schemes = st.sampled_from(
    [
        {},
        {"scheme": "single", "bits": 4, "bits_per_cell": 4},
        {"scheme": "offset", "offset_columns": 1},
        {"scheme": "differential-rows"},
        {"scheme": "differential", "bits": 8, "bits_per_cell": 4},
        {"scheme": "offset", "bits": 8, "bits_per_cell": 2, "slices_in": "arrays"},
    ]
)


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    base = load_chip("brram-256x64")
    changes: Any = draw(schemes)
    scheme = base.weights.model_copy(update=changes)
    cores = base.cores.model_copy(update={"count": 4, "mesh_rows": 2, "mesh_columns": 2, "link_bytes_per_ns": 1.0})
    return chip_of(
        draw(st.integers(4, 40)),
        draw(st.integers(8, 40)),
        8000,
        row_split=draw(st.sampled_from(["channel", "flat"])),
        weights=scheme,
        cores=draw(st.sampled_from([base.cores, cores])),
    )


def check_cells(mapping: Mapping, chip: Chip) -> None:
    """Every weight once in every copy, no cell twice, every block within its array."""
    cells = np.zeros((mapping.arrays, chip.array.rows, chip.array.columns), np.int32)
    for layer in mapping.layers:
        # A group has its own columns, so (row, column) names a weight of a grouped layer too.
        seen = np.zeros((layer.copies, layer.rows, layer.columns), np.int32)
        for block in layer.blocks:
            seen[block.copy, block.row_start : block.row_stop, block.column_start : block.column_stop] += 1
            height = (block.row_stop - block.row_start) * chip.rows_per_weight
            width = (block.column_stop - block.column_start) * chip.columns_per_weight
            assert 0 <= block.array_row <= chip.array.rows - height
            free = chip.array.columns - chip.array.spare_columns - chip.weights.offset_columns
            assert 0 <= block.array_column <= free - width
            cells[
                block.array,
                block.array_row : block.array_row + height,
                block.array_column : block.array_column + width,
            ] += 1
            start = block.column_start * layer.groups // layer.columns
            assert start == (block.column_stop - 1) * layer.groups // layer.columns, "a block spans two groups"
        assert (seen == 1).all()
    assert cells.max() == 1
    assert (cells.reshape(mapping.arrays, -1).max(axis=1) == 1).all(), "an array without a weight is counted"


@settings(deadline=None, max_examples=40)
@given(shape=shapes, chip=chips(), objective=st.sampled_from(OBJECTIVES), extra=st.integers(0, 60))
def test_every_weight_has_one_address_a_copy_and_budgets_and_bounds_hold(shape, chip, objective, extra):
    model = residual(*shape)
    plain = map_network(model, chip)
    check_cells(plain, chip)
    budget = plain.arrays + extra
    mapping = map_network(model, chip, options=MappingOptions(objective=objective, arrays=budget))
    check_cells(mapping, chip)
    assert mapping.arrays <= budget
    assert mapping.result is not None
    assert mapping.result.bound <= mapping.result.value * (1 + 1e-9)
    assert mapping.cost.crossbars == mapping.arrays * chip.physical_per_array
    assert parse_mapping(mapping.model_dump_json(), "mapping.json") == mapping
    for layer in mapping.layers:
        address = mapping.address(layer.name, layer.rows - 1, layer.columns - 1, layer.copies - 1)
        assert len(address.columns) == chip.columns_per_weight
        assert len(address.rows) == chip.rows_per_weight


@settings(deadline=None, max_examples=25)
@given(
    shape=shapes, chip=chips(), objective=st.sampled_from(OBJECTIVES), steps=st.lists(st.integers(1, 40), max_size=4)
)
def test_more_arrays_never_make_the_result_worse(shape, chip, objective, steps):
    model = residual(*shape)
    budget = map_network(model, chip, options=MappingOptions(objective="arrays")).arrays
    before = float("inf")
    for step in [0, *steps]:
        budget += step
        result = map_network(model, chip, options=MappingOptions(objective=objective, arrays=budget)).result
        assert result is not None
        assert result.value <= before * (1 + 1e-9)
        before = result.value


@settings(deadline=None, max_examples=25)
@given(shape=shapes, chip=chips(), objective=st.sampled_from(OBJECTIVES))
def test_blocks_that_share_lines_are_not_read_together(shape, chip, objective):
    model = residual(*shape)
    plain = map_network(model, chip)
    mapping = map_network(model, chip, options=MappingOptions(objective=objective, arrays=plain.arrays))
    for reads in read_table(mapping.layers, chip).by_array.values():
        for read in reads:
            for a, b in combinations(read.blocks, 2):
                rows = a.array_row, a.array_row + (a.row_stop - a.row_start) * chip.rows_per_weight
                others = b.array_row, b.array_row + (b.row_stop - b.row_start) * chip.rows_per_weight
                if rows[0] < others[1] and others[0] < rows[1]:
                    assert (a.copy, a.row_start, a.array_row) == (b.copy, b.row_start, b.array_row)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_same_call_gives_the_same_mapping(objective):
    first, second = (
        map_network(lowered("vgg8"), load_chip("puma"), options=MappingOptions(objective=objective, seed=3))
        for _ in range(2)
    )
    assert first == second


def test_a_network_larger_than_the_chip_runs_in_segments():
    chip = load_chip("cimaq-256")
    mapping = map_network(lowered("vgg8"), chip, options=MappingOptions(objective="interval", arrays=3))
    assert sum(segment.arrays for segment in mapping.segments) == mapping.arrays
    assert all(segment.arrays <= 3 for segment in mapping.segments)
    assert mapping.cost.reprogramming_ms == pytest.approx(len(mapping.segments) * 0.056)
    assert mapping.cost.latency_ms > mapping.cost.reprogramming_ms
    with pytest.raises(CimcError, match=r"no\s+cost\.row_write_us|row_write_us") as error:
        map_network(lowered("vgg8"), load_chip("brram-soc"), options=MappingOptions(objective="interval", arrays=3))
    assert "\n" not in str(error.value)


def test_a_budget_needs_an_objective():
    with pytest.raises(CimcError, match="add --objective"):
        map_network(lowered("lenet1"), load_chip("brram-soc"), options=MappingOptions(arrays=9))


def test_local_search_never_moves_more_bytes_than_network_order():
    placement = map_network(lowered("vgg8"), load_chip("isaac"), options=MappingOptions(objective="latency")).placement
    assert placement is not None
    assert placement.byte_hops_bound <= placement.byte_hops <= placement.byte_hops_unplaced
    assert placement.byte_hops == pytest.approx(sum(link.bytes for link in placement.links), rel=1e-3)


def test_energy_by_component_adds_up_to_that_of_the_arrays():
    cost = map_network(lowered("vgg8"), load_chip("puma")).cost
    arrays = [part.energy_mj or 0 for part in cost.components if part.name in ("ADC", "DAC", "array", "shift-add")]
    assert sum(arrays) == pytest.approx(cost.energy_mj)
    assert all(part.area_mm2 for part in cost.components if part.name in ("ADC", "DAC", "array", "shift-add"))


def test_the_critical_path_reaches_from_the_input_to_the_end():
    schedule = map_network(lowered("resnet18"), load_chip("brram-256x64")).schedule
    assert schedule is not None
    path = schedule.critical_path
    assert path[0].start_ns == 0
    assert path[-1].stop_ns == pytest.approx(schedule.latency_ns)
    for before, after in pairwise(path):
        assert before.stop_ns == pytest.approx(after.start_ns)
    assert schedule.interval_ns <= schedule.latency_ns <= schedule.sequential_ns * (1 + 1e-9)


@pytest.mark.parametrize(
    ("model", "chip", "objective", "fewer", "more"),
    [
        ("vgg8", "isaac", "interval", 16128, 33000),  # more than one chip has: arrays on several are not placed
        ("lenet5", "cimaq-256", "latency", 2, 3),  # packed at last, where segments were faster
        ("mlp", "cimaq-256", "latency", 12, 13),
        ("vgg8", "hermes", "energy", 100, 192),  # the last read of an array may serve fewer copies
        ("vgg8", "neurram", "energy", 88, 144),
    ],
)
def test_another_way_to_lay_out_does_not_make_a_larger_budget_worse(model, chip, objective, fewer, more):
    lowered = lower(read_network(MODELS / f"{model}.onnx"))
    small, large = (
        map_network(lowered, load_chip(chip), options=MappingOptions(objective=objective, arrays=n))
        for n in (fewer, more)
    )
    assert small.result is not None
    assert large.result is not None
    assert large.result.value <= small.result.value
    assert small.result.bound <= small.result.value


@pytest.mark.parametrize("chip", ["brram-256x64", "isaac", "cimaq-256"])
def test_no_objective_is_better_at_what_another_is_for(chip):
    lowered = lower(read_network(MODELS / "lenet5.onnx"))
    latency, interval = (
        map_network(lowered, load_chip(chip), options=MappingOptions(objective=o, arrays=30))
        for o in ("latency", "interval")
    )
    assert latency.schedule is not None
    assert interval.schedule is not None
    assert latency.schedule.latency_ns <= interval.schedule.latency_ns
    assert interval.schedule.interval_ns <= latency.schedule.interval_ns


def test_partial_sums_of_columns_cut_elsewhere_travel():
    blocks = [Block(0, 4, 0, 6, 0), Block(4, 8, 0, 4, 1), Block(4, 8, 4, 6, 2, 0, 0)]
    layer = MappedLayer(
        name="fc", operator="CrossbarMatMul", rows=8, columns=6, kernel_size=1, groups=1, positions=3,
        signed_input=False, row_split=RowSplit.flat, blocks=tuple(blocks), copies=1,
    )  # fmt: skip
    assert partial_sums(layer, [0, 1, 2], width=2.0) == [(1, 0, 4 * 3 * 2.0), (2, 0, 2 * 3 * 2.0)]
    assert partial_sums(layer, [0, 1, 1], width=2.0) == [(1, 0, 6 * 3 * 2.0)]
    assert partial_sums(layer, [0, 0, 0], width=2.0) == []


def test_arrays_that_packing_leaves_free_keep_the_busiest_layers_apart():
    lowered = lower(read_network(MODELS / "lenet1.onnx"))
    found = [
        map_network(lowered, load_chip("brram-soc"), options=MappingOptions(objective="latency", arrays=n))
        for n in (2, 4, 5, 6)
    ]
    values = [mapping.result.value for mapping in found if mapping.result is not None]
    assert len(values) == len(found)
    assert values == sorted(values, reverse=True)
    assert values[1] < values[0], "two arrays more are used"
    assert all(mapping.arrays <= budget for mapping, budget in zip(found, (2, 4, 5, 6), strict=True))
