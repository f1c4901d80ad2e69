"""Addresses as index arrays: every device has one cell, every cell at most one device, and both ways agree."""

import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.addresses import (
    cell_addresses,
    cell_owners,
    lay_on_arrays,
    reference_addresses,
    take_from_arrays,
    word_lines,
)
from cimc.chip import Chip, load_chip
from cimc.mapping import Mapping
from cimc.program_files import write_address_map
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from tests.networks import network, weights

KERNELS = st.sampled_from([1, 3])
OBJECTIVES: list[str | None] = [None, "interval", "arrays"]
SCHEMES: list[dict[str, Any]] = [
    {},
    {"scheme": "single", "bits": 4, "bits_per_cell": 4},
    {"scheme": "offset", "offset_columns": 1},
    {"scheme": "differential-rows"},
    {"scheme": "differential", "bits": 8, "bits_per_cell": 4},
    {"scheme": "offset", "bits": 8, "bits_per_cell": 2, "slices_in": "arrays"},
]


@dataclass(frozen=True)
class Mapped:
    """A network on a chip."""

    chip: Chip
    mapping: Mapping


def grouped(channels: int, groups: int, kernel: int, classes: int) -> ir.Model:
    """A convolution, a grouped one, and a dense layer, on images of 4 x 4."""
    pad = kernel // 2
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], name="first", kernel_shape=[kernel, kernel], pads=[pad] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(
            "Conv", ["b", "k2"], ["c"], name="second", kernel_shape=[kernel, kernel], pads=[pad] * 4, group=groups
        ),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], name="dense"),
    ]
    outputs = channels * groups
    constants = {
        "k1": weights(outputs, 3, kernel, kernel),
        "k2": weights(outputs, channels, kernel, kernel),
        "w": weights(outputs * 16, classes),
    }
    return lower(network(nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", classes]}, constants))


@st.composite
def mapped(draw: st.DrawFn) -> Mapped:
    """A small network on a chip with small arrays: split, grouped, packed and copied, in every scheme of weights."""
    base = load_chip("brram-256x64")
    array = base.array.model_copy(
        update={"rows": draw(st.integers(4, 40)), "columns": draw(st.integers(8, 40)), "per_chip": 8000}
    )
    scheme = base.weights.model_copy(update=draw(st.sampled_from(SCHEMES)))
    split = draw(st.sampled_from(["channel", "flat"]))
    chip = base.model_copy(update={"array": array, "weights": scheme, "row_split": split})
    model = grouped(*(draw(values) for values in (st.integers(1, 4), st.integers(1, 3), KERNELS, st.integers(1, 9))))
    signs = draw(st.sampled_from([(0.0, 1.0), (-1.0, 1.0)]))
    plain = map_network(model, chip, options=MappingOptions(input_range=signs))
    objective = draw(st.sampled_from(OBJECTIVES))
    if objective is None:
        return Mapped(chip, plain)
    budget = plain.arrays + draw(st.integers(0, 30))
    return Mapped(
        chip, map_network(model, chip, options=MappingOptions(input_range=signs, objective=objective, arrays=budget))
    )


@settings(deadline=None, max_examples=40)
@given(mapped())
def test_a_device_of_a_weight_is_found_in_its_cell_and_no_two_share_one(case: Mapped) -> None:
    mapping, chip = case.mapping, case.chip
    parts = ("layer", "copy", "row", "column", "device")
    owners = {part: np.stack(list(cell_owners(mapping, chip, part))) for part in parts}
    taken = np.zeros((mapping.arrays * chip.physical_per_array, chip.array.rows, chip.array.columns), np.int32)
    for index, layer in enumerate(mapping.layers):
        devices = chip.devices_per_weight
        device, row, column = np.indices((devices, layer.rows, layer.columns))
        for copy in range(layer.copies):
            cells = cell_addresses(mapping, layer.name, copy=copy)
            assert cells.array.shape == (devices, layer.rows, layer.columns)
            for place, size in zip(cells, taken.shape, strict=True):
                assert place.dtype == np.int32
                assert place.min() >= 0
                assert place.max() < size
            np.add.at(taken, tuple(cells), 1)
            assert (owners["layer"][tuple(cells)] == index).all()
            assert (owners["copy"][tuple(cells)] == copy).all()
            np.testing.assert_array_equal(owners["row"][tuple(cells)], row)
            np.testing.assert_array_equal(owners["column"][tuple(cells)], column)
            np.testing.assert_array_equal(owners["device"][tuple(cells)], device)
    assert taken.max() == 1
    for owner in owners.values():
        np.testing.assert_array_equal(owner >= 0, taken == 1)


@settings(deadline=None, max_examples=20)
@given(mapped())
def test_the_cells_of_a_weight_are_those_that_its_block_says(case: Mapped) -> None:
    """From the words of `Block`, weight by weight."""
    down, right = case.chip.rows_per_weight, case.chip.columns_per_weight
    for layer in case.mapping.layers:
        found = [cell_addresses(case.mapping, layer.name, copy=copy) for copy in range(layer.copies)]
        lines = [word_lines(case.mapping, layer.name, chip=case.chip, copy=copy) for copy in range(layer.copies)]
        for block in layer.blocks:
            for row in range(block.row_start, block.row_stop):
                for column in range(block.column_start, block.column_stop):
                    top = block.array_row + down * (row - block.row_start)
                    left = block.array_column + right * (column - block.column_start)
                    first = block.array * case.chip.physical_per_array
                    arrays = range(first, first + case.chip.physical_per_array)
                    cells = [(a, top + i, left + k) for a in arrays for k in range(right) for i in range(down)]
                    places = np.stack(found[block.copy])[:, :, row, column].T
                    assert [tuple(place) for place in places.tolist()] == cells
                    address = case.mapping.address(layer.name, row, column, block.copy)
                    in_one = [(r, c) for c in address.columns for r in address.rows]
                    assert in_one * case.chip.physical_per_array == [cell[1:] for cell in cells]
                    assert lines[block.copy][:, row, column].tolist() == [
                        block.array * case.chip.array.rows + top + i for i in range(down)
                    ]
            if case.chip.weights.offset_columns:
                columns = reference_addresses(case.mapping, layer.name, chip=case.chip, copy=block.copy)
                served = [block.column_start <= start < block.column_stop for start in layer.reference_starts]
                found_there = np.stack(columns)[:, block.row_start : block.row_stop, served]
                wanted = np.arange(block.array_row, block.array_row + block.row_stop - block.row_start)
                assert (found_there[0] == block.array).all()
                assert (found_there[1] == wanted[:, None]).all()
                assert (found_there[2] == case.chip.array.columns - 1).all()


@settings(deadline=None, max_examples=20)
@given(mapped())
def test_values_laid_on_the_arrays_are_taken_from_every_copy(case: Mapped) -> None:
    mapping, chip = case.mapping, case.chip
    random = np.random.default_rng(0)
    devices = chip.devices_per_weight
    values = {
        layer.name: random.uniform(1, 2, (devices, layer.rows, layer.columns)).astype(np.float32)
        for layer in mapping.layers
    }
    arrays = lay_on_arrays(mapping, values, chip=chip, fill=0)
    assert arrays.dtype == np.float32
    np.testing.assert_array_equal(arrays > 0, np.stack(list(cell_owners(mapping, chip, "layer"))) >= 0)
    for layer in mapping.layers:
        for copy in range(layer.copies):
            cells = cell_addresses(mapping, layer.name, copy=copy)
            np.testing.assert_array_equal(arrays[tuple(cells)], values[layer.name])
            np.testing.assert_array_equal(take_from_arrays(mapping, layer.name, arrays, copy=copy), values[layer.name])
    # What `passes.dies` moves as one: the lines that a weight takes.
    for layer in mapping.layers:
        for block in layer.blocks:
            assert block.array_row % mapping.rows_per_weight == block.array_column % mapping.columns_per_weight == 0


def test_the_weights_of_a_word_line_are_those_that_one_row_write_reaches() -> None:
    chip = load_chip("brram-256x64")
    mapping = map_network(grouped(4, 1, 3, 9), chip)
    layer = mapping.layer("dense")
    lines = word_lines(mapping, "dense", chip=chip)
    assert lines.shape == (1, layer.rows, layer.columns)
    assert (lines == lines[:, :, :1]).all(), "all columns of a row of weights in one array share its word line"
    assert len(np.unique(lines)) == layer.rows


def test_a_copy_or_a_layer_that_is_not_there_is_an_error() -> None:
    chip = load_chip("brram-256x64")
    mapping = map_network(grouped(1, 1, 1, 2), chip)
    arrays = np.zeros((mapping.arrays, chip.array.rows, chip.array.columns))
    for copy in (-1, mapping.layers[0].copies):
        with pytest.raises(IndexError, match=f"has no copy {copy}"):
            cell_addresses(mapping, mapping.layers[0].name, copy=copy)
        with pytest.raises(IndexError, match=f"has no copy {copy}"):
            take_from_arrays(mapping, mapping.layers[0].name, arrays, copy=copy)
    with pytest.raises(KeyError):
        cell_addresses(mapping, "nothing")


def test_arrays_smaller_than_the_mapping_needs_are_an_error() -> None:
    chip = load_chip("brram-256x64")
    mapping = map_network(grouped(1, 1, 1, 2), chip)
    with pytest.raises(ValueError, match="reshape"):
        take_from_arrays(mapping, mapping.layers[0].name, np.zeros((mapping.arrays, 1, 1)))


def test_the_address_map_is_written_without_all_cells_at_once(tmp_path: Path) -> None:
    """Of a network of 40 million weights they took more memory than all else that export does."""
    chip = load_chip("brram-256x64")
    mapping = map_network(grouped(1, 64, 3, 256), chip)
    cells = mapping.arrays * chip.array.rows * chip.array.columns
    tracemalloc.start()
    write_address_map(tmp_path / "addresses.npz", mapping, chip)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * cells, "as much as one number for every cell"
    with np.load(tmp_path / "addresses.npz") as written:
        assert written["layer"].shape == (mapping.arrays, chip.array.rows, chip.array.columns)
        assert np.count_nonzero(written["sign"]) == 2 * mapping.cost.weights
