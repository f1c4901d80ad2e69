"""Addresses: which cell of which array each device of each weight is, and back, as index arrays.

A weight has rows_per_weight x columns_per_weight cells of each of its arrays, numbered column by column: of a
differential pair, 0 is G+ and 1 is G-, and of bit slices the most significant comes first, as in every [devices, rows,
columns] of conductances. Where bit slices have arrays of their own, an array of the mapping (`Block.array`) is
`physical_per_array` physical ones, one after the other; of all others the two are the same. `Mapping.place_of` tells
the chip of an array of the mapping, and `Mapping.address` the place of one weight. Values of all arrays together are
[arrays, array rows, array columns]; on a chip with arrays of several sizes these are the largest rows and columns, and
a smaller array has its cells at the lowest ones.

    cells = cell_addresses(mapping, "conv1")
    of_arrays[cells.array, cells.row, cells.column]      # what arrays hold, by weight: [devices, rows, columns]
"""

import math
from collections.abc import Iterator
from collections.abc import Mapping as Dictionary
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.layer_settings import chip_of_layer
from cimc.mapping import Block, MappedLayer, Mapping

Indices = npt.NDArray[np.int32]
Values = npt.NDArray[Any]


class Cells(NamedTuple):
    """Where the devices of a layer are, each [devices, rows, columns] int32, by weight row and column.

    array: physical. row: word line in it. column: bit line in it.
    """

    array: Indices
    row: Indices
    column: Indices


def cell_addresses(mapping: Mapping, layer: str, *, copy: int = 0) -> Cells:
    """The cell of every device of one copy of a layer.

    Raises:
        KeyError: no layer of that name.
        IndexError: the layer has no such copy.
    """
    mapped = mapping.layer(layer)
    if not 0 <= copy < mapped.copies:
        raise IndexError(f"{layer} has no copy {copy}, it has {mapped.copies}")
    shape = (*_cells_of_weight(mapping), mapped.rows, mapped.columns)
    array, row, column = (np.full(shape, -1, np.int32) for _ in range(3))
    for block in mapped.blocks:
        if block.copy == copy:
            weights = (..., *_weights_of(block))
            word_lines, bit_lines = mapping.lines_of(block)
            array[weights] = _physical_arrays(block, mapping)[:, None, None, None, None]
            row[weights] = np.array(word_lines).reshape(-1, shape[2]).T[:, :, None]
            column[weights] = np.array(bit_lines).reshape(-1, shape[1]).T[:, None, None, :]
    devices = (math.prod(shape[:3]), *shape[3:])
    return Cells(array.reshape(devices), row.reshape(devices), column.reshape(devices))


def reference_column(chip: Chip) -> int:
    """The bit line of the reference column of every array that has one: the first of its last `offset_columns`."""
    return chip.array.columns - chip.weights.offset_columns


def reference_addresses(mapping: Mapping, layer: str, *, chip: Chip, copy: int = 0) -> Cells:
    """The cells of the reference columns of one copy of a layer, each [rows, reference columns] int32.

    They are in the word lines of the layer's weights, in the array that holds the first column of those they serve
    (`MappedLayer.reference_starts`); of bit slices in arrays of their own in that of the most significant.

    Raises:
        KeyError, IndexError: as `cell_addresses`.
    """
    mapped = mapping.layer(layer)
    on = chip_of_layer(chip, mapped.settings)
    cells = cell_addresses(mapping, layer, copy=copy)
    array, row = (part[0][:, list(mapped.reference_starts)] for part in (cells.array, cells.row))
    return Cells(array, row, np.full(row.shape, reference_column(on), np.int32))


def reference_of_columns(layer: MappedLayer) -> Indices:
    """By weight column, the reference column that serves it, in the order of `MappedLayer.reference_starts`."""
    found = np.searchsorted(layer.reference_starts, np.arange(layer.columns), side="right") - 1
    return found.astype(np.int32)


def cell_owners(mapping: Mapping, chip: Chip, part: str) -> Iterator[Indices]:
    """What each cell holds, of one physical array after the other: the inverse of `cell_addresses`.

    Args:
        mapping: of the network.
        chip: the chip.
        part: layer (its index in `Mapping.layers`), copy (of the layer), row, column or device (of the weight).

    Yields:
        [array rows, array columns] int32; -1 where a cell is not used.
    """
    held: list[list[tuple[int, Block]]] = [[] for _ in range(mapping.arrays)]
    for index, layer in enumerate(mapping.layers):
        for block in layer.blocks:
            held[block.array].append((index, block))
    devices = np.arange(math.prod(_cells_of_weight(mapping))).reshape(*_cells_of_weight(mapping), 1, 1)
    for blocks in held:
        arrays = np.full((mapping.physical_per_array, *_shape(mapping, chip)[1:]), -1, np.int32)
        for index, block in blocks:
            values = {
                "layer": index,
                "copy": block.copy,
                "row": np.arange(block.row_start, block.row_stop)[:, None],
                "column": np.arange(block.column_start, block.column_stop),
                "device": devices,
            }
            _cells_of(arrays, block._replace(array=0), mapping)[:] = values[part]
        yield from arrays


def word_lines(mapping: Mapping, layer: str, *, chip: Chip, copy: int = 0) -> Indices:
    """The word lines of every weight of a copy, [rows_per_weight, rows, columns], numbered through all arrays.

    Word line r of array a is a x (rows of the largest array) + r. A pair in columns has one, a pair in rows two. Of bit
    slices in arrays of their own it is that of the mapping's array: all of them are written at once.

    Raises:
        KeyError, IndexError: as `cell_addresses`.
    """
    cells = cell_addresses(mapping, layer, copy=copy)
    of_mapping = cells.array[: mapping.rows_per_weight] // np.int32(mapping.physical_per_array)
    return of_mapping * np.int32(largest_array(mapping, chip)[0]) + cells.row[: mapping.rows_per_weight]


def lay_on_arrays(mapping: Mapping, values: Dictionary[str, Values], *, chip: Chip, fill: float) -> Values:
    """Values by weight as the physical arrays have them, [arrays, array rows, array columns]; all copies the same.

    Args:
        mapping: of the network.
        values: of every layer, [devices, rows, columns], of one type.
        chip: the chip.
        fill: of cells that no weight uses.
    """
    arrays = np.full(_shape(mapping, chip), fill, next(iter(values.values())).dtype)
    for layer in mapping.layers:
        for block in layer.blocks:
            cells = _cells_of(arrays, block, mapping)
            cells[:] = values[layer.name][(..., *_weights_of(block))].reshape(cells.shape)
    return arrays


def take_from_arrays(mapping: Mapping, layer: str, arrays: Values, *, copy: int = 0) -> Values:
    """The values of a copy of a layer [devices, rows, columns] from those of all arrays: undoes `lay_on_arrays`.

    Raises:
        KeyError, IndexError: as `cell_addresses`.
        ValueError: the arrays are smaller than the mapping needs.
    """
    mapped = mapping.layer(layer)
    shape = (math.prod(_cells_of_weight(mapping)), mapped.rows, mapped.columns)
    if not 0 <= copy < mapped.copies:
        raise IndexError(f"{layer} has no copy {copy}, it has {mapped.copies}")
    values = np.zeros(shape, arrays.dtype)
    for block in mapped.blocks:
        if block.copy == copy:
            cells = _cells_of(arrays, block, mapping)
            values[(..., *_weights_of(block))] = cells.reshape(shape[0], *cells.shape[3:])
    return values


def size_of_array(mapping: Mapping, chip: Chip, array: int) -> tuple[int, int]:
    """Rows and columns of a physical array of a die; those beyond the mapping's are of the first kind."""
    own = chip.sizes[mapping.kind_of(array // mapping.physical_per_array)]
    return own.rows, own.columns


def largest_array(mapping: Mapping, chip: Chip) -> tuple[int, int]:
    """Rows and columns that every array in use fits into."""
    in_use = [chip.sizes[kind] for kind in mapping.kinds_in_use] if mapping.kinds else [chip.array]
    return max(array.rows for array in in_use), max(array.columns for array in in_use)


def _cells_of_weight(mapping: Mapping) -> tuple[int, int, int]:
    """Physical arrays, columns and rows of the cells of a weight, in the order in which they are numbered."""
    return mapping.physical_per_array, mapping.columns_per_weight, mapping.rows_per_weight


def _physical_arrays(block: Block, mapping: Mapping) -> Indices:
    """The physical arrays of a block."""
    first = block.array * mapping.physical_per_array
    return np.arange(first, first + mapping.physical_per_array, dtype=np.int32)


def _cells_of(arrays: Values, block: Block, mapping: Mapping) -> Values:
    """The cells of a block, a view [physical arrays, columns and rows of a weight, block rows, block columns]."""
    rows, columns = mapping.lines_of(block)
    physical = _physical_arrays(block, mapping)
    place = arrays[physical[0] : physical[-1] + 1, rows.start : rows.stop, columns.start : columns.stop]
    split = place.reshape(
        len(place),
        block.row_stop - block.row_start,
        mapping.rows_per_weight,
        block.column_stop - block.column_start,
        mapping.columns_per_weight,
    )
    return split.transpose(0, 4, 2, 1, 3)


def _weights_of(block: Block) -> tuple[slice, slice]:
    """The rows and columns of the weight matrix in a block."""
    return slice(block.row_start, block.row_stop), slice(block.column_start, block.column_stop)


def _shape(mapping: Mapping, chip: Chip) -> tuple[int, int, int]:
    return mapping.arrays * mapping.physical_per_array, *largest_array(mapping, chip)
