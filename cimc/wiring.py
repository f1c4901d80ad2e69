"""Wiring: which array, word lines and bit lines of a die stand for those of the mapping.

The mapping lays a network out on arrays whose cells all work. On a die with stuck cells its arrays may be other ones of
the chip, and the lines of each may stand in another order: the digital side sends the input of word line r of the
mapping to word line `word_lines[a, r]` of array `array[a]`, and takes what bit line c gives from `bit_lines[a, c]`.
Nothing else knows of it: conductances come from the die, and go to it, through the two functions here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cimc.addresses import reference_addresses, take_from_arrays
from cimc.chip import Chip
from cimc.mapping import Mapping

Indices = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Wiring:
    """Where the lines of the mapping are on a die.

    array [arrays]: of the die. word_lines [arrays, array rows], bit_lines [arrays, array columns]: in that array, each
    row an order of all of them. arrays: how many the die has.

    Raises:
        ValueError: an array or a line would be used twice, or is none of the die.
    """

    array: Indices
    word_lines: Indices
    bit_lines: Indices
    arrays: int

    def __post_init__(self) -> None:
        used = self.array.tolist()
        if len(set(used)) < len(used) or not all(0 <= array < self.arrays for array in used):
            raise ValueError("an array of the die is used twice, or is not there")
        for lines in (self.word_lines, self.bit_lines):
            if lines.ndim != 2 or len(lines) != len(used):
                raise ValueError("lines must be [arrays, lines]")
            if not np.array_equal(np.sort(lines, axis=1), np.broadcast_to(np.arange(lines.shape[1]), lines.shape)):
                raise ValueError("a line of an array is used twice")

    def to_die(self, values: Values, *, fill: float) -> Values:
        """Values of the mapping's arrays [arrays, rows, columns] as the die's have them; `fill`: of arrays not used."""
        placed = np.full((self.arrays, *values.shape[1:]), fill, values.dtype)
        for number, array in enumerate(self.array.tolist()):
            placed[array][np.ix_(self.word_lines[number], self.bit_lines[number])] = values[number]
        return placed

    def from_die(self, values: Values) -> Values:
        """Values of the die's arrays as those of the mapping have them: undoes `to_die`."""
        found = [
            values[array][np.ix_(self.word_lines[number], self.bit_lines[number])]
            for number, array in enumerate(self.array.tolist())
        ]
        return np.stack(found)


def layers_on_die(mapping: Mapping, wiring: Wiring | None, values: Values) -> dict[str, Values]:
    """By layer, the values [devices, rows, columns] of its weights from those of a die's arrays.

    Args:
        mapping: of the network.
        wiring: where its lines are on the die; None: as the mapping says.
        values: [arrays, array rows, array columns].
    """
    arrays = values if wiring is None else wiring.from_die(values)
    return {layer.name: take_from_arrays(mapping, layer.name, arrays) for layer in mapping.layers}


def references_on_die(mapping: Mapping, wiring: Wiring | None, values: Values, *, chip: Chip) -> dict[str, Values]:
    """As `layers_on_die`, of the reference columns [rows, groups x column blocks]; {} of a chip without any."""
    if chip.scheme.reference is None:
        return {}
    arrays = values if wiring is None else wiring.from_die(values)
    return {layer.name: arrays[tuple(reference_addresses(mapping, layer.name, chip=chip))] for layer in mapping.layers}
