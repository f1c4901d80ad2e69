"""Planes of the inputs: the parts in which an input is applied, and what each part counts in the result.

A new encoding is a function of its planes and a row of `PLANES`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip


class Planes(NamedTuple):
    """How inputs are applied.

    weights: what each plane counts in the sum.
    split: DAC integers -> what the word lines carry, plane by plane.
    """

    weights: tuple[float, ...]
    split: Callable[[Array], list[Array]]


def two_phases(u: Array) -> list[Array]:
    """The positive part of the inputs, then the negative one."""
    return [jnp.maximum(u, 0), jnp.maximum(-u, 0)]


def _as_they_are(u: Array) -> list[Array]:
    return [u]


# By `[input] signed` of a chip file for signed inputs; else "unsigned".
PLANES: dict[str, Planes] = {
    "unsigned": Planes((1,), _as_they_are),
    "two-phase": Planes((+1, -1), two_phases),
}


def planes_of(chip: Chip, signed: bool) -> Planes:
    """The planes of a layer's inputs; an ideal converter applies signed inputs as they are."""
    return PLANES[chip.input.signed if signed and chip.input.bits is not None else "unsigned"]
