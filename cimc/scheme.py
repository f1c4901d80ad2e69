"""How one signed weight becomes devices: the cells it takes in an array, the share of each device, what each counts.

A weight w of range W is held by devices with conductances G, whose columns are converted one by one or, of pairs in
rows, two by two. With the net conductance N_k of conversion k (G_k, or G+_k - G-_k of a pair in rows),

    w / W = (sum over k  s_k N_k  -  offset) / full        s: signs

How a device is programmed follows from its share of the conductance window (`cimc.units`). Bit slices hold an integer,
the weight in steps of W / (2^(bits - 1) - 1), in digits of `bits_per_cell` bits, most significant first:

    differential        the digits of its magnitude in G+ or G- of each pair
    offset, single      the digits of the integer + 2^(bits - 1); of one-bit cells of `single` two's complement as it is
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

# NumPy or JAX array: both follow the array API standard, which no static type covers yet.
AnyArray = Any


class Footprint(NamedTuple):
    """Adjacent rows and columns of one array that hold one weight, or one bit slice of it."""

    rows: int
    columns: int


class Reference(NamedTuple):
    """The reference column of an array, whose conversions are subtracted from those of its weights.

    target_uS: what its cells hold. times: how often it is subtracted.
    """

    target_uS: float
    times: float


class Scheme(NamedTuple):
    """What a chip makes of a signed weight.

    signs: by conversion; see above. offset_uS: what a weight of 0 makes of the sum, and full_uS what the largest makes
    more. in_rows: each conversion is of a pair of devices, of the first minus of the second.
    shares: weights over their range [..], and whether in whole steps -> the part of the window of each device
    [devices, ..], 0 to 1 of weights within +-1. steps: of which the largest weight of bit slices is made; None: no bit
    slices. reference: where an array has one.
    """

    signs: tuple[float, ...]
    offset_uS: float
    full_uS: float
    in_rows: bool
    shares: Callable[[AnyArray, bool], AnyArray]
    steps: int | None = None
    reference: Reference | None = None

    @property
    def devices(self) -> int:
        """Devices of a weight."""
        return len(self.signs) * (2 if self.in_rows else 1)

    @property
    def has_pair(self) -> bool:
        """Whether a weight is one pair of devices, G+ first, and no more."""
        return self.devices == 2 and self.steps is None and not self.offset_uS

    @property
    def counts(self) -> tuple[float, ...]:
        """What each device counts in the weighted sum."""
        if not self.in_rows:
            return self.signs
        return tuple(count for sign in self.signs for count in (sign, -sign))

    def net(self, devices: AnyArray) -> AnyArray:
        """What the conversions of a weight see: [devices, ..] -> [conversions, ..]."""
        return net(devices, self.in_rows)

    def together(self, devices: AnyArray) -> AnyArray:
        """The sum over the devices of each conversion: [devices, ..] -> [conversions, ..]."""
        return together(devices, self.in_rows)

    def value(self, devices: AnyArray) -> AnyArray:
        """The sum that the largest weight makes `full_uS` of: conductances [devices, ..] in uS -> [..]."""
        total = weighted_sum(self.net(devices), self.signs)
        return total - np.float32(self.offset_uS) if self.offset_uS else total


def net(devices: AnyArray, in_rows: bool) -> AnyArray:
    """`Scheme.net` of a scheme that has its pairs in rows, or not."""
    return devices[0::2] - devices[1::2] if in_rows else devices


def together(devices: AnyArray, in_rows: bool) -> AnyArray:
    """`Scheme.together` of a scheme that has its pairs in rows, or not."""
    return devices[0::2] + devices[1::2] if in_rows else devices


class DeviceWindow(NamedTuple):
    """What a scheme needs to know of the devices: where the window begins and how wide it is, in uS, and the state, of
    those that can be programmed, that is nearest to its middle.
    """

    least_uS: float
    width_uS: float
    middle_uS: float


def weighted_sum(terms: AnyArray, weights: Sequence[float]) -> AnyArray:
    """The sum of `terms` (along the first axis, or a list), each times its weight, in order.

    A weight of +-1 is an addition or a subtraction, and no product.
    """
    total = None
    for index, weight in enumerate(weights):
        scaled = terms[index] if abs(weight) == 1 else terms[index] * np.float32(abs(weight))
        if total is None:
            total = scaled if weight > 0 else -scaled
        else:
            total = total + scaled if weight > 0 else total - scaled
    return total


def make_scheme(name: str, *, bits: int | None, cell_bits: int | None, window: DeviceWindow, reference: bool) -> Scheme:
    """The scheme of that name.

    Args:
        name: `[weights] scheme`.
        bits: of a stored weight; None: it is held whole.
        cell_bits: that one device holds.
        window: of the devices.
        reference: whether an array has a reference column.
    """
    if bits is None or cell_bits is None:
        if name == "offset":
            middle = window.least_uS + window.width_uS / 2
            column = Reference(window.middle_uS, 1.0) if reference else None
            return Scheme((1.0,), middle, window.width_uS / 2, False, _middle_shares, None, column)
        if name == "differential":
            return Scheme((1.0, -1.0), 0.0, window.width_uS, False, _pair_shares)
        if name == "differential-rows":
            return Scheme((1.0,), 0.0, window.width_uS, True, _pair_shares)
        raise KeyError(name)
    base, slices, steps = 2**cell_bits, -(-bits // cell_bits), 2 ** (bits - 1) - 1
    powers = tuple(float(base**place) for place in reversed(range(slices)))
    digit_uS = window.width_uS / (base - 1)
    full_uS, digits = steps * digit_uS, partial(_digits, base=base, slices=slices)
    if name in ("differential", "differential-rows"):
        shares = partial(_pairs_of_digits, steps=steps, digits=digits)
        if name == "differential-rows":
            return Scheme(powers, 0.0, full_uS, True, shares, steps)
        signs = tuple(sign * power for power in powers for sign in (1.0, -1.0))
        return Scheme(signs, 0.0, full_uS, False, shares, steps)
    if name == "single" and cell_bits == 1:
        shares = partial(_two_complement, steps=steps, bits=bits, digits=digits)
        signs = (-powers[0], *powers[1:])
        return Scheme(signs, sum(signs) * window.least_uS, full_uS, False, shares, steps)
    half = 2 ** (bits - 1)
    shares = partial(_offset_digits, steps=steps, bits=bits, digits=digits)
    column = Reference(window.least_uS + digit_uS, half) if reference and name == "offset" else None
    return Scheme(powers, sum(powers) * window.least_uS + half * digit_uS, full_uS, False, shares, steps, column)


def _pair_shares(fraction: AnyArray, whole: bool = True) -> AnyArray:
    """G+ holds positive weights, G- negative ones; the other one of the pair is idle."""
    xp = fraction.__array_namespace__()
    return xp.maximum(xp.stack([fraction, -fraction]), np.float32(0))


def _middle_shares(fraction: AnyArray, whole: bool = True) -> AnyArray:
    """A weight of 0 in the middle of the window."""
    return (fraction[None] + np.float32(1)) * np.float32(0.5)


def _digits(value: AnyArray, *, base: int, slices: int) -> AnyArray:
    """Shares of the digits of numbers from 0 on, most significant first [slices, ..]; the last has what is no whole."""
    xp = value.__array_namespace__()
    found = []
    for place in reversed(range(slices)):
        digit = xp.floor(value * np.float32(base**-place)) if place else value
        found.append(digit * np.float32(1 / (base - 1)))
        value = value - digit * np.float32(base**place)
    return xp.stack(found)


def _steps(fraction: AnyArray, steps: int, whole: bool) -> AnyArray:
    xp = fraction.__array_namespace__()
    scaled = fraction * np.float32(steps)
    return xp.round(scaled) if whole else scaled


def _pairs_of_digits(
    fraction: AnyArray, whole: bool = True, *, steps: int, digits: Callable[[AnyArray], AnyArray]
) -> AnyArray:
    """Digits of the magnitude in G+ or G-, pair after pair."""
    xp = fraction.__array_namespace__()
    signed = _steps(fraction, steps, whole)
    sides = [digits(xp.maximum(side, np.float32(0))) for side in (signed, -signed)]
    return xp.stack(sides, axis=1).reshape(-1, *fraction.shape)


def _offset_digits(
    fraction: AnyArray, whole: bool = True, *, steps: int, bits: int, digits: Callable[[AnyArray], AnyArray]
) -> AnyArray:
    return digits(_steps(fraction, steps, whole) + np.float32(2 ** (bits - 1)))


def _two_complement(
    fraction: AnyArray, whole: bool = True, *, steps: int, bits: int, digits: Callable[[AnyArray], AnyArray]
) -> AnyArray:
    signed = _steps(fraction, steps, whole)
    return digits(signed + np.float32(2**bits) * (signed < 0))


# By `[weights] scheme` of a chip file, which says what each of them is (`cimc.chip_sections.Weights`).
FOOTPRINTS: dict[str, Footprint] = {
    "differential": Footprint(rows=1, columns=2),
    "differential-rows": Footprint(rows=2, columns=1),
    "offset": Footprint(rows=1, columns=1),
    "single": Footprint(rows=1, columns=1),
}


def namespace_of(values: Any) -> Any:
    """The array namespace of an array, NumPy or JAX, or of a number (NumPy's before 2.1 have none)."""
    return values.__array_namespace__() if hasattr(values, "__array_namespace__") else np
