"""How many devices of a programmed chip are written again, as text: a share (`5%`) or a tolerance (`2uS`)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cimc.errors import CimcError
from cimc.options import check_number

Unit = Literal["%", "uS"]


@dataclass(frozen=True)
class Amount:
    """amount: the share of all devices in %, or the distance in uS from its target beyond which a device is meant."""

    amount: float
    unit: Unit


def parse_amount(text: str) -> Amount:
    """The amount that a text states. Raises CimcError when it states none."""
    amount = _amount(text)
    if amount is None:
        raise CimcError(f"--reprogram is {text!r}; give a share of the devices (5%), or how far one may be off (2uS)")
    return amount


def _amount(text: str) -> Amount | None:
    """The amount that a text states, if it does."""
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(%|[uµ]S)", str(text).strip(), re.IGNORECASE)
    amount = float(found[1]) if found else math.nan
    unit: Unit = "%" if found and found[2] == "%" else "uS"
    return Amount(amount, unit) if amount > 0 and (unit == "uS" or amount <= 100) else None


def parse_shares(given: str | Sequence[str | float]) -> tuple[float, ...]:
    """Shares of 1, round after round, from texts with % (`5%,5%`) or numbers. Raises CimcError when one is none."""
    shares = []
    for one in given.split(",") if isinstance(given, str) else given:
        if isinstance(one, str):
            amount = _amount(one)
            if amount is None or amount.unit != "%":
                raise CimcError(f"--reprogram is {one!r}; of virtual chips give a share of the devices a round (5%,5%)")
            one = amount.amount / 100
        shares.append(check_number("reprogram", one, least=1e-9, most=1))
    return tuple(shares)
