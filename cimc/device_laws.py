"""Stated errors of devices: one number, or a polynomial in x = g / G_max."""

from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, PlainValidator

from cimc.chip_sections import MOST, Finite

# A stated error: one number, or the coefficients of a polynomial in x = g / G_max, constant first.
Law = float | tuple[float, ...]
MOST_COEFFICIENTS = 32
MOST_NUMBERS = 1 << 16  # of a list in a file


def law_at(law: Law, x: Any) -> Any:
    """The law at x: a number where it is one, else an array like x (NumPy or JAX)."""
    if isinstance(law, float):
        return law
    value = x * 0 + law[-1]
    for coefficient in law[-2::-1]:
        value = value * x + coefficient
    return value


def extreme_of(law: Law, low: float, high: float, *, largest: bool) -> tuple[float, float]:
    """(x, value) where the law is largest or smallest for x in [low, high]."""
    points = [low, high]
    if isinstance(law, tuple) and len(law) > 2:
        turns = np.polynomial.Polynomial(law).deriv().roots()
        points += [float(turn) for turn in turns[np.isreal(turns)].real if low < turn < high]
    values = [(float(law_at(law, x)), x) for x in points]
    value, x = max(values) if largest else min(values)
    return x, value


def _law(value: object) -> Law:
    """A number as float, a list of coefficients as tuple."""
    numbers = [
        float(number)
        for number in (value if isinstance(value, list | tuple) else [value])
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= MOST
    ]
    if len(numbers) > MOST_COEFFICIENTS:  # its turns are sought, in the cube of their number
        raise ValueError(f"a polynomial has at most {MOST_COEFFICIENTS} coefficients")
    if not numbers or (isinstance(value, list | tuple) and len(numbers) < len(value)):
        raise ValueError(
            "give a finite number, at most 1e12, or a list of coefficients of a polynomial in g / G_max, constant first"
        )
    return tuple(numbers) if isinstance(value, list | tuple) else numbers[0]


def _sd_law(value: object) -> Law:
    law = _law(value)
    if isinstance(law, float) and law < 0:
        raise ValueError("an sd is not negative")
    return law


def _numbers(value: object) -> object:
    """A TOML list as a tuple, which keeps a chip hashable."""
    if isinstance(value, list) and len(value) > MOST_NUMBERS:
        raise ValueError(f"a list has at most {MOST_NUMBERS} numbers")
    return tuple(value) if isinstance(value, list) else value


MeanLaw = Annotated[Law, PlainValidator(_law)]
SdLaw = Annotated[Law, PlainValidator(_sd_law)]
Numbers = Annotated[tuple[Finite, ...], BeforeValidator(_numbers)]
