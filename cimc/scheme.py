"""How one signed weight becomes devices: the cells it takes in an array, the share of each device, what each counts.

A weight is the sum of its devices, each times its sign: the conversions of the weights in `runtime.crossbar.product`.
How a device is programmed follows from its share of the conductance window (`cimc.units`). A new scheme is a function
that shares a weight out and a row of `SCHEMES`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# NumPy or JAX array: both follow the array API standard, which no static type covers yet.
AnyArray = Any


class Footprint(NamedTuple):
    """Adjacent rows and columns of one array that hold one weight, or one bit slice of it."""

    rows: int
    columns: int


class Scheme(NamedTuple):
    """A way to hold a signed weight that the runtime reads.

    signs: what each device counts in the weight, in the order of the first axis of conductances.
    shares: weights [..] over their range, within +-1 -> the part of the window, 0 to 1, of each device [devices, ..].
    """

    signs: tuple[float, ...]
    shares: Callable[[AnyArray], AnyArray]


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


def _pair_shares(fraction: AnyArray) -> AnyArray:
    """G+ holds positive weights, G- negative ones; the other one of the pair is idle."""
    xp = fraction.__array_namespace__()
    return xp.maximum(xp.stack([fraction, -fraction]), np.float32(0))


# By `[weights] scheme` of a chip file, which says what each of them is (`cimc.chip_sections.Weights`).
FOOTPRINTS: dict[str, Footprint] = {
    "differential": Footprint(rows=1, columns=2),
    "differential-rows": Footprint(rows=2, columns=1),
    "offset": Footprint(rows=1, columns=1),
    "single": Footprint(rows=1, columns=1),
}
# Those that the runtime reads; chips with another one are mapped only.
SCHEMES: dict[str, Scheme] = {"differential": Scheme((+1, -1), _pair_shares)}


def namespace_of(values: Any) -> Any:
    """The array namespace of an array, NumPy or JAX, or of a number (NumPy's before 2.1 have none)."""
    return values.__array_namespace__() if hasattr(values, "__array_namespace__") else np
