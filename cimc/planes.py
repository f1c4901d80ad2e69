"""Planes of the inputs: the parts in which an input is applied, and what each part counts in the result.

as it is                      1 u: inputs of one sign, or rows driven with both polarities
two phases                    +1 max(u, 0), -1 max(-u, 0)
bit by bit, k bits a cycle    2^(k j) times the j-th digit of k bits; of two phases, of either
two's complement of b bits    the digits of its lower b - 1 bits, and -2^(b-1) times the sign bit
"""

from typing import NamedTuple

import numpy as np

from cimc.chip import Chip
from cimc.scheme import AnyArray


class Planes(NamedTuple):
    """How inputs are applied.

    two_phase: the positive part, then the negative one. widths: bits of each digit of these, least significant first;
    (): inputs are no digits. sign_bit: what the sign counts in two's complement, whose other bits the digits are; 0:
    inputs are none.
    """

    two_phase: bool = False
    widths: tuple[int, ...] = ()
    sign_bit: int = 0

    @property
    def weights(self) -> tuple[float, ...]:
        """What each plane counts in the sum."""
        digits = [float(2 ** sum(self.widths[:place])) for place in range(len(self.widths))] or [1.0]
        further = [-digit for digit in digits] if self.two_phase else []
        return (*digits, *further, *([-float(self.sign_bit)] if self.sign_bit else []))

    def split(self, u: AnyArray) -> list[AnyArray]:
        """DAC integers, NumPy or JAX: what the word lines carry, plane by plane; every step is exact in float32."""
        if self.two_phase:
            return [digit for part in two_phases(u) for digit in self._digits(part)]
        if not self.sign_bit:
            return self._digits(u)
        negative = (u < 0) * np.float32(1)
        return [*self._digits(u + np.float32(self.sign_bit) * negative), negative]

    def _digits(self, u: AnyArray) -> list[AnyArray]:
        """The digits of numbers from 0 on, least significant first."""
        xp, found = u.__array_namespace__(), []
        for width in self.widths[:-1]:
            rest = xp.floor(u * np.float32(2.0**-width))
            found.append(u - rest * np.float32(2**width))
            u = rest
        return [*found, u]


def two_phases(u: AnyArray) -> list[AnyArray]:
    """The positive part of the inputs, then the negative one."""
    xp = u.__array_namespace__()
    return [xp.maximum(u, 0), xp.maximum(-u, 0)]


def planes_of(chip: Chip, signed: bool) -> Planes:
    """The planes of a layer's inputs; an ideal converter applies signed inputs as they are."""
    bits, step = chip.input.bits, chip.input.bits_per_cycle
    if bits is None:
        return Planes()
    two_phase = signed and chip.input.signed == "two-phase"
    if chip.input.encoding != "bit-serial":
        return Planes(two_phase)
    complement = signed and not two_phase
    digits = bits - complement
    widths = tuple(min(step, digits - first) for first in range(0, digits, step))
    return Planes(two_phase, widths, 2 ** (bits - 1) if complement else 0)
