"""What a field takes in a sweep: a list of values, a range of steps, or an interval that values are drawn from."""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cimc.errors import CimcError

MOST_VALUES = 10_000
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*:\s*({_NUMBER})\s*(?::\s*({_NUMBER}|log)\s*)?")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`. log: drawn by their logarithm. whole: whole numbers alone."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __str__(self) -> str:
        ends = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        return f"{ends[0]!r}:{ends[1]!r}{':log' if self.log else ''}"


Values = tuple[Any, ...] | Interval


def parse_values(field: str, written: str) -> Values:
    """The values that a text states for a field.

    `0.4,0.8,1.6`, `isaac,puma`: these, each as TOML has it, a bare word as a text. `6:9`: every whole number from 6 to
    9. `0.4:1.6:0.4`: in steps, both ends included. `0.4:1.6`, `1e-4:1e-2:log`: an interval to draw from.

    Raises:
        CimcError: nothing is stated, or a range that has no numbers or too many.
    """
    found = _RANGE.fullmatch(written)
    if found is not None:
        return _range(field, written.strip(), *found.groups())
    values = _listed(written)
    if not values or any(value == "" for value in values):
        raise CimcError(f"{field}={written}: no values; give such as {field}=1,2,3, {field}=1:8 or {field}=0.5:2:0.5")
    return _distinct(field, values)


def values_of(field: str, given: Any) -> Values:
    """The values of a field as TOML or Python state them: a list, a text as of `parse_values`, or one value.

    Raises:
        CimcError: as `parse_values`, or a value that JSON does not hold.
    """
    if isinstance(given, Interval):
        return given
    if isinstance(given, str):
        return parse_values(field, given)
    values = tuple(given) if isinstance(given, list | tuple | range) else (given,)
    if not values:
        raise CimcError(f"{field} has no values; give a list such as [1, 2, 3], or a text such as '1:8'")
    return _distinct(field, values)


def value_text(value: Any) -> str:
    """A value as tables show it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def canonical(value: Any) -> str:
    """One text for each value. Raises TypeError or ValueError for what JSON does not hold, NaN too."""
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _range(field: str, written: str, low: str, high: str, step: str | None) -> Values:
    first, last = Decimal(low), Decimal(high)
    whole = all(_WHOLE.fullmatch(part) for part in (low, high) if part)
    if last < first or not all(map(math.isfinite, (float(low), float(high)))):
        raise CimcError(f"{field}={written}: a range goes from its lower to its upper end, as {field}={high}:{low}")
    if step == "log":
        if first <= 0:
            raise CimcError(f"{field}={written}: the ends of a range by its logarithm are above 0")
        return Interval(float(low), float(high), log=True, whole=whole)
    if step is None and not whole:
        return Interval(float(low), float(high))
    by = Decimal(step or 1)
    try:
        many = by <= 0 or (last - first) / by >= MOST_VALUES
    except ArithmeticError:  # a step so small that the quotient is no number
        many = True
    if many:
        raise CimcError(f"{field}={written}: give a step above 0 that makes at most {MOST_VALUES} values")
    numbers = [first + by * index for index in range(int((last - first) / by) + 1)]
    of = int if whole and _WHOLE.fullmatch(step or "1") else float
    return tuple(of(number) for number in numbers)


def _listed(written: str) -> tuple[Any, ...]:
    """Values with commas between, as TOML has them; where they are no TOML, each by itself, bare words as texts."""
    try:
        read = tomllib.loads(f"values = [{written}]")
        if list(read) == ["values"]:
            return tuple(read["values"])
    except (ValueError, RecursionError):
        pass
    return tuple(_toml(part.strip()) for part in written.split(","))


def _toml(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
        return read["value"] if list(read) == ["value"] else text
    except (ValueError, RecursionError):
        return text


def _distinct(field: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, each once: a point that comes twice is computed once."""
    try:
        plain = [_plain(value) for value in values]
        return tuple({canonical(_as_whole(value)): value for value in reversed(plain)}.values())[::-1]
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise CimcError(f"{field} has a value that is no finite number, text, truth value or list of them") from None


def _as_whole(value: Any) -> Any:
    """1.0 as 1: one number, however it is written."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(value: Any) -> Any:
    """Values of NumPy and enums as Python's own."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value) if isinstance(value, str) else value
