"""Digits in which integers are multiplied so that every sum of their products is a whole number of float32."""

from itertools import product
from typing import NamedTuple

from cimc.chip import Chip

WHOLE_BITS = 24  # float32 holds all whole numbers up to 2^24
LEAST_ROWS = 256  # so many are added up in one product


class Digits(NamedTuple):
    """Bits of the digits of inputs and of weights, least significant first; the last digit of either has the sign.

    top_drive: the largest that drives a row in one conversion.
    """

    inputs: tuple[int, ...]
    weights: tuple[int, ...]
    top_drive: int

    @property
    def rows(self) -> int:
        """Rows whose products of two digits add up to a whole number of float32; of integers that an ADC has made."""
        return int(2 ** (WHOLE_BITS - max(self.inputs) - max(self.weights)))


def digits_of(chip: Chip, signed: bool) -> Digits | None:
    """The digits of a layer whose conversions may be replaced by products of integers; None: it is converted.

    Of weights in bit slices and inputs bit by bit, read without noise. Without an ADC nothing is rounded, whatever the
    devices hold, and one digit of each will do. With one what they hold decides (`runtime.crossbar.exact`), and chips
    whose writes err are not tried.
    """
    stored, serial = chip.weights, chip.input.bits is not None and chip.input.encoding == "bit-serial"
    noisy = chip.cell.reads_are_noisy or chip.adc.noise_lsb > 0
    if stored.bits is None or stored.bits_per_cell is None or not serial or noisy:
        return None
    if chip.adc.sense == "voltage" or chip.wires.ir_drop == "per-input":
        return None
    inputs, drive = chip.top_input(signed).bit_length(), chip.top_drive(signed)
    zero = 0 if stored.scheme in ("differential", "differential-rows") else 2 ** (stored.bits - 1)
    weights = (2 ** (stored.slices * stored.bits_per_cell) - 1 - zero).bit_length()  # whatever state the cells are in
    if chip.adc.bits is None:
        return Digits((inputs,), (weights,), drive)
    if chip.cell.largest_error_sd_uS > 0:
        return None
    counts = product(range(1, inputs + 1), range(1, weights + 1))
    cuts = [Digits(_cut(inputs, i), _cut(weights, w), drive) for i, w in counts]
    return min((cut for cut in cuts if cut.rows >= LEAST_ROWS), key=lambda cut: len(cut.inputs) * len(cut.weights))


def _cut(bits: int, digits: int) -> tuple[int, ...]:
    """So many bits in digits of nearly one size."""
    return tuple(bits * (place + 1) // digits - bits * place // digits for place in range(digits))
