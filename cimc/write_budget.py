"""`--write-budget`: how much may be written in a training step, as text: `40`, `10%`, `20us` or `5nJ`."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from cimc.errors import CimcError

Unit = Literal["rows", "%", "us", "nJ"]
_FACTORS: dict[str, tuple[Unit, float]] = {
    "": ("rows", 1.0),
    "rows": ("rows", 1.0),
    "%": ("%", 1.0),
    "ns": ("us", 1e-3),
    "us": ("us", 1.0),
    "ms": ("us", 1e3),
    "s": ("us", 1e6),
    "pj": ("nJ", 1e-3),
    "nj": ("nJ", 1.0),
    "uj": ("nJ", 1e3),
    "mj": ("nJ", 1e6),
}


@dataclass(frozen=True)
class WriteBudget:
    """amount: row writes a step, the share in % of those that are due, or the time or energy of a step's writes."""

    amount: float
    unit: Unit


def parse_budget(text: str) -> WriteBudget:
    """The budget that a text states. Raises CimcError when it states none."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zµ%]*)", str(text).strip().lower())
    unit, factor = _FACTORS.get(found[2].replace("µ", "u"), (None, 0.0)) if found else (None, 0.0)
    if found is None or unit is None:
        raise CimcError(f"--write-budget is {text!r}; give row writes a step (40), a share (10%), 20us or 5nJ")
    amount = float(found[1]) * factor
    if not 0 < amount < math.inf:
        raise CimcError(f"--write-budget is {text!r}, which lets nothing be written; give more than 0")
    if unit == "%" and amount > 100:
        raise CimcError(f"--write-budget is {text!r}; give a share of at most 100%")
    if unit == "rows" and amount != int(amount):
        raise CimcError(f"--write-budget is {text!r}; give a whole number of row writes, or 10%, 20us, 5nJ")
    return WriteBudget(amount, unit)
