"""Planes of the inputs: the parts in which an input is applied, and what each part counts in the result.

A new encoding is a function of its planes and a row of `PLANES`.
"""

from collections.abc import Callable
from typing import NamedTuple

from cimc.chip import Chip
from cimc.scheme import AnyArray


class Planes(NamedTuple):
    """How inputs are applied.

    weights: what each plane counts in the sum.
    split: DAC integers -> what the word lines carry, plane by plane, NumPy or JAX arrays.
    """

    weights: tuple[float, ...]
    split: Callable[[AnyArray], list[AnyArray]]


def two_phases(u: AnyArray) -> list[AnyArray]:
    """The positive part of the inputs, then the negative one."""
    xp = u.__array_namespace__()
    return [xp.maximum(u, 0), xp.maximum(-u, 0)]


def _as_they_are(u: AnyArray) -> list[AnyArray]:
    return [u]


# By `[input] signed` of a chip file for signed inputs; else "unsigned".
PLANES: dict[str, Planes] = {
    "unsigned": Planes((1,), _as_they_are),
    "two-phase": Planes((+1, -1), two_phases),
}


def planes_of(chip: Chip, signed: bool) -> Planes:
    """The planes of a layer's inputs; an ideal converter applies signed inputs as they are."""
    return PLANES[chip.input.signed if signed and chip.input.bits is not None else "unsigned"]
