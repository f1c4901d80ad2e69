"""What a chip file makes of a weight, an input and a column, in plain Python: what `tests/reference.py` sums up.

Written from the equations and from nothing of `runtime` or `cimc.scheme`. All conductances in uS; `digit_uS` is the
conductance of one unit of a digit; slices come most significant first.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cimc.chip import Chip

Numbers = Sequence[float]


class Conversion(NamedTuple):
    """What one output converter reads of a weight: (device, +1 or -1 as it is driven), and what its code counts."""

    devices: tuple[tuple[int, int], ...]
    counts: float


class Subtracted(NamedTuple):
    """What the digital side takes away for every unit of input: exactly, and as often the reference column's codes."""

    exactly_uS: float
    reference_codes: float


# --- Weights ---


def nearest_level(g: float, chip: Chip) -> float:
    """The conductance in uS that can be programmed nearest to g; g itself on a chip without levels."""
    cell = chip.cell
    if cell.level_uS is not None:
        return min(cell.level_uS, key=lambda level: abs(level - g))
    if cell.levels is None:
        return g
    spacing = (cell.conductance_max_uS - cell.conductance_min_uS) / (cell.levels - 1)
    return cell.conductance_min_uS + spacing * round((g - cell.conductance_min_uS) / spacing)


def pair_target(weight: float, weight_range: float, chip: Chip) -> tuple[float, float]:
    """Targets (G+, G-) in uS of a weight held whole by one pair, clipped to the range."""
    cell = chip.cell
    fraction = max(-1.0, min(1.0, weight / weight_range))
    window = cell.conductance_max_uS - cell.conductance_min_uS
    plus, minus = (cell.conductance_min_uS + window * max(side, 0.0) for side in (fraction, -fraction))
    return nearest_level(plus, chip), nearest_level(minus, chip)


def window_uS(chip: Chip) -> float:
    return chip.cell.conductance_max_uS - chip.cell.conductance_min_uS


def slices(chip: Chip) -> int:
    bits, cell_bits = chip.weights.bits, chip.weights.bits_per_cell
    return 1 if bits is None or cell_bits is None else math.ceil(bits / cell_bits)


def base(chip: Chip) -> int:
    assert chip.weights.bits_per_cell is not None
    return 2**chip.weights.bits_per_cell


def digit_uS(chip: Chip) -> float | None:
    """Conductance of one unit of a digit; None: devices hold no digits."""
    if chip.weights.bits is not None:
        return window_uS(chip) / (base(chip) - 1)
    return None if chip.cell.levels is None else window_uS(chip) / (chip.cell.levels - 1)


def largest_integer(chip: Chip) -> int:
    """What the largest weight is stored as: the integers are symmetric."""
    assert chip.weights.bits is not None
    return 2 ** (chip.weights.bits - 1) - 1


def stored_integer(weight: float, weight_range: float, chip: Chip) -> int:
    return round(max(-1.0, min(1.0, weight / weight_range)) * largest_integer(chip))


def digits(number: int, chip: Chip) -> list[int]:
    found = []
    for _ in range(slices(chip)):
        number, digit = divmod(number, base(chip))
        found.append(digit)
    assert number == 0
    return found[::-1]


def device(polarity: int, slice_: int) -> int:
    """Which of a weight's devices holds a slice of G+ (polarity 0) or G- (1): pair after pair."""
    return 2 * slice_ + polarity


def targets(weight: float, weight_range: float, chip: Chip) -> tuple[float, ...]:
    """Target conductances in uS of a weight, device by device."""
    scheme, least = chip.weights.scheme, chip.cell.conductance_min_uS
    in_pairs = scheme in ("differential", "differential-rows")
    if chip.weights.bits is None:
        if in_pairs:
            return pair_target(weight, weight_range, chip)
        fraction = max(-1.0, min(1.0, weight / weight_range))
        return (nearest_level(least + window_uS(chip) * (fraction + 1) / 2, chip),)
    integer, half = stored_integer(weight, weight_range, chip), 2 ** (chip.weights.bits - 1)
    if in_pairs:
        held = {
            device(polarity, slice_): digit
            for polarity, side in enumerate((max(integer, 0), max(-integer, 0)))
            for slice_, digit in enumerate(digits(side, chip))
        }
        numbers = [held[index] for index in sorted(held)]
    elif is_twos_complement(chip):
        numbers = digits(integer % (2 * half), chip)
    else:
        numbers = digits(integer + half, chip)
    unit = digit_uS(chip)
    assert unit is not None
    return tuple(least + number * unit for number in numbers)


def is_twos_complement(chip: Chip) -> bool:
    """Whether the most significant device counts negative; else a stored code has its highest bit flipped."""
    return chip.weights.scheme == "single" and chip.weights.bits_per_cell == 1


def conversions(chip: Chip) -> list[Conversion]:
    """The output conversions of one weight column in one array."""
    count = slices(chip)
    powers = [1.0] if chip.weights.bits is None else [float(base(chip) ** (count - 1 - i)) for i in range(count)]
    if is_twos_complement(chip):
        powers[0] = -powers[0]
    match chip.weights.scheme:
        case "differential":
            plus = [Conversion(((device(0, i), 1),), power) for i, power in enumerate(powers)]
            minus = [Conversion(((device(1, i), 1),), -power) for i, power in enumerate(powers)]
            return plus + minus
        case "differential-rows":
            pairs = [((device(0, i), 1), (device(1, i), -1)) for i in range(count)]
            return [Conversion(pair, power) for pair, power in zip(pairs, powers, strict=True)]
        case _:
            return [Conversion(((i, 1),), power) for i, power in enumerate(powers)]


def reference_target(chip: Chip) -> float:
    """What the cells of the reference column hold, uS."""
    least = chip.cell.conductance_min_uS
    if chip.weights.bits is None:
        return nearest_level(least + window_uS(chip) / 2, chip)
    return least + (digit_uS(chip) or 0.0)


def subtracted(chip: Chip) -> Subtracted:
    """What is taken away: the offset, and what devices that hold 0 conduct."""
    if chip.weights.scheme in ("differential", "differential-rows"):
        return Subtracted(0.0, 0.0)
    least = chip.cell.conductance_min_uS
    if chip.weights.bits is None:
        total, times = least + window_uS(chip) / 2, 1.0
    else:
        times = 0.0 if is_twos_complement(chip) else 2.0 ** (chip.weights.bits - 1)
        total = sum(c.counts for c in conversions(chip)) * least + times * (digit_uS(chip) or 0.0)
    if not chip.weights.offset_columns:
        return Subtracted(total, 0.0)
    return Subtracted(total - times * reference_target(chip), times)


def weight_per_uS(weight_range: float, chip: Chip) -> float:
    """The weight that one uS of the sum over a weight's conversions stands for."""
    if chip.weights.bits is not None:
        return weight_range / largest_integer(chip) / (digit_uS(chip) or 0.0)
    return weight_range / window_uS(chip) * (2 if chip.weights.scheme == "offset" else 1)


def weight_of(conductances: Numbers, weight_range: float, chip: Chip) -> float:
    """The weight that conductances in uS stand for, device by device."""
    taken = subtracted(chip)
    total = -taken.exactly_uS - taken.reference_codes * (reference_target(chip) if taken.reference_codes else 0.0)
    for conversion in conversions(chip):
        total += conversion.counts * sum(sign * conductances[index] for index, sign in conversion.devices)
    return total * weight_per_uS(weight_range, chip)


# --- Inputs ---


def is_one_phase(chip: Chip, signed: bool) -> bool:
    return signed and chip.input.bits is not None and chip.input.signed == "one-phase"


def is_bit_serial(chip: Chip) -> bool:
    """Whether parts of the inputs are converted one by one."""
    return chip.input.bits is not None and chip.input.encoding == "bit-serial"


def largest_input(chip: Chip, signed: bool) -> int:
    """The largest integer of an input: of a signed one in one phase a bit is the sign."""
    assert chip.input.bits is not None
    return 2 ** (chip.input.bits - is_one_phase(chip, signed)) - 1


def dac_code(x: float, input_range: float, chip: Chip, signed: bool = False) -> float:
    """The integer that stands for the input x; x itself where the converter is ideal."""
    if chip.input.bits is None:
        return float(x)
    top = largest_input(chip, signed)
    return max(-top, min(top, round(float(x) / float(input_range) * top)))


def planes(u: Numbers, chip: Chip, signed: bool) -> list[tuple[float, list[float]]]:
    """What the word lines carry one after the other, and what each counts."""
    if chip.input.bits is None or (is_one_phase(chip, signed) and not is_bit_serial(chip)):
        return [(1.0, list(u))]
    width = chip.input.bits_per_cycle
    if is_one_phase(chip, signed):
        low = chip.input.bits - 1
        codes = [int(value) % 2**chip.input.bits for value in u]
        return [
            *_cycles([code % 2**low for code in codes], low, width, 1),
            (-(2.0**low), [float(code >> low) for code in codes]),
        ]
    phases = [(1, [max(value, 0) for value in u])]
    if signed:
        phases.append((-1, [max(-value, 0) for value in u]))
    if not is_bit_serial(chip):
        return [(float(sign), part) for sign, part in phases]
    return [
        plane
        for sign, part in phases
        for plane in _cycles([int(value) for value in part], chip.input.bits, width, sign)
    ]


def _cycles(codes: Sequence[int], bits: int, width: int, sign: int) -> list[tuple[float, list[float]]]:
    """`width` bits at a time, least significant first; the last cycle may have fewer."""
    return [
        (float(sign * 2**first), [float((code >> first) % 2 ** min(width, bits - first)) for code in codes])
        for first in range(0, bits, width)
    ]


# --- Outputs ---


def code_bounds(chip: Chip, signed: bool) -> tuple[int, int]:
    """The least and the largest code: of both signs where what is converted can be negative, and of voltages."""
    assert chip.adc.bits is not None
    both_ways = is_one_phase(chip, signed) and not is_bit_serial(chip)
    if chip.weights.scheme == "differential-rows" or both_ways or senses_voltage(chip):
        top = 2 ** (chip.adc.bits - 1) - 1
        return -top, top
    return 0, 2**chip.adc.bits - 1


def largest_applied(chip: Chip, signed: bool) -> int:
    """The largest that a word line carries in one conversion."""
    return 2**chip.input.bits_per_cycle - 1 if is_bit_serial(chip) else largest_input(chip, signed)


def senses_voltage(chip: Chip) -> bool:
    return chip.adc.sense == "voltage"


def signal_per_product(chip: Chip, signed: bool) -> float:
    """What one unit of u times one uS makes at the output converter, in uA.

    Bits that are halved and added in the analog domain, and pulses, give the current of u / 2^bits; a part of the input
    that is applied by itself is a part of the read voltage. In voltage mode: V, once divided by the column's total uS.
    """
    if chip.adc.bits is None or chip.input.bits is None:
        return 1.0
    volts = chip.cell.read_voltage_V
    if senses_voltage(chip):
        return volts / largest_applied(chip, signed)
    return volts / (2**chip.input.bits_per_cycle - 1 if is_bit_serial(chip) else 2**chip.input.bits)


def lsb(chip: Chip, signed: bool) -> float:
    """Step of one code, in the unit of `signal_per_product`; 1 without an output converter."""
    if chip.adc.bits is None or chip.input.bits is None:
        return 1.0
    top = code_bounds(chip, signed)[1]
    if senses_voltage(chip):
        assert chip.adc.range_mV is not None
        return chip.adc.range_mV / 1000 / top
    if chip.adc.range_uA is not None:
        return chip.adc.range_uA / top
    unit = digit_uS(chip)
    if unit is not None and is_bit_serial(chip):
        return signal_per_product(chip, signed) * unit
    largest_column = chip.weight_rows * chip.cell.conductance_max_uS * largest_applied(chip, signed)
    return signal_per_product(chip, signed) * largest_column / top
