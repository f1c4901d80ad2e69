"""Settings of single layers: the kind of arrays they lie on, the converters in other numbers, and what a read takes.

A layer lies on arrays of one kind, and reads them through converters that may be set otherwise for it: other bits,
another range. Devices and weights are the same for all layers. `chip_of_layer` gives the chip as a layer sees it: array
size, converters and costs of its kind, with the layer's own settings on top.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from cimc.chip import Chip
from cimc.chip_kinds import FIRST, change_chip
from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid

# Keys of the chip file that a layer may have others of: numbers of the converters, and what a read costs with them.
CONVERTERS = {"input": ("bits", "bits_per_cycle"), "adc": ("bits", "range_uA", "range_mV", "noise_lsb")}
COSTS = ("mvm_us", "mvm_nj", "adc_pj", "dac_pj", "array_pj", "shift_add_pj")
SETTABLE = {**CONVERTERS, "cost": COSTS}
SETTABLE_KEYS = tuple(f"{section}.{key}" for section, keys in SETTABLE.items() for key in keys)
KIND = ("array", "kind")  # the setting that says on which arrays a layer lies; none: on those of the first kind


class Setting(NamedTuple):
    """A number of the chip file that a layer has in place of the chip's; or (`KIND`) the kind of arrays it lies on."""

    section: str
    key: str
    value: int | float | str

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return f"arrays {self.value}"
        return f"{self.section}.{self.key} {self.value:g}"


Settings = tuple[Setting, ...]


def kind_of(settings: Settings) -> str:
    """The kind of arrays that a layer with these settings lies on; "" for the first."""
    return next((str(value) for section, key, value in settings if (section, key) == KIND), "")


def on_kind(kind: str) -> Settings:
    """The settings of a layer on arrays of that kind, read as these are; "" is the first."""
    return (Setting(*KIND, kind),) if kind else ()


def settings_text(settings: Settings) -> str:
    """Settings in one line, as tables have them; "" for none."""
    return ", ".join(map(str, settings))


def settings_of(chip: Chip, values: Mapping[str, Any], where: str) -> Settings:
    """Settings from values by dotted key, such as `adc.bits`; what the arrays have anyway is none.

    Args:
        chip: the chip.
        values: as TOML has them; `array` is the kind of arrays, those of the first where it is left out.
        where: names the layer in errors.

    Raises:
        CimcError: a key that no layer can have, or a value that the chip cannot have; `where` is named.
    """
    kind = values.get("array", FIRST)
    if kind not in (FIRST, *chip.kinds):
        raise CimcError(f"{where}: array is {kind!r:.60}; {chip.name} has arrays {', '.join((FIRST, *chip.kinds))}")
    lies = on_kind("" if kind == FIRST else kind)
    chip = chip_of_layer(chip, lies)
    values = {key: value for key, value in values.items() if key != "array"}
    for key, value in values.items():
        if key not in SETTABLE_KEYS:
            raise CimcError(f"{where} has no key {key}{nearest(key, SETTABLE_KEYS)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CimcError(f"{where}: {key} is {value!r:.60}; give a number")
    given = tuple(
        Setting(section, key, values[f"{section}.{key}"])
        for section, keys in SETTABLE.items()
        for key in keys
        if f"{section}.{key}" in values
    )
    try:
        changed = _changed(chip, given)
    except CimcError as error:
        raise CimcError(f"{where}: {error}") from None
    kept: list[Setting] = []
    for section, key, _ in given:
        value = getattr(getattr(changed, section), key)  # as the chip has it: a float where it is one
        # A cost that is the chip's own counts where other settings would change it.
        others = any(one.section != "cost" for one in kept)
        if value != getattr(getattr(chip, section), key) or (section == "cost" and others):
            kept.append(Setting(section, key, value))
    return (*lies, *kept)


def nearest(key: str, known: Iterable[str]) -> str:
    """The end of a line about a key that is not known: the one that was meant, or all there are."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; it takes {', '.join(known)}"


def chip_of_layer(chip: Chip, settings: Settings) -> Chip:
    """The chip as a layer with these settings is read on it: all of its arrays are those of the layer's kind.

    What a read takes with other converters is scaled by rule, unless the settings say it (`cimc.chip_kinds`).

    Raises:
        CimcError: the chip cannot have them, or has no such arrays.
    """
    kind = kind_of(settings)
    if kind and kind not in chip.kinds:
        raise CimcError(f"{chip.name} has no arrays of kind {kind:.60}, it has {', '.join((FIRST, *chip.kinds))}")
    own = tuple(one for one in settings if one[:2] != KIND)
    of_kind = chip.of_kind(kind)
    return _changed(of_kind, own) if own else of_kind


@lru_cache(maxsize=256)
def priced_chip(chip: Chip, settings: Settings, signed: bool) -> Chip:
    """`chip_of_layer` with what a read of the layer takes; signed: its inputs may be negative.

    `[cost]` counts the cycles of inputs of one sign. Where the sign bit adds a cycle (`Input.signed_conversions`), all
    of a read goes with the cycles; the energy of conversions too, so that that of `Input.conversions` is that of all.
    """
    priced = chip_of_layer(chip, settings)
    cycles = priced.input.signed_conversions / priced.input.conversions
    if not signed or cycles == 1:
        return priced
    stated = {key: getattr(priced.cost, key) for key in COSTS}
    # To 12 digits: the mapper looks for a unit of which all times are whole numbers.
    costs = {key: float(f"{value * cycles:.12g}") for key, value in stated.items() if value is not None}
    return priced.model_copy(update={"cost": priced.cost.model_copy(update=costs)})


@lru_cache(maxsize=256)
def _changed(chip: Chip, settings: Settings) -> Chip:
    tables: dict[str, dict[str, Any]] = {}
    for section, key, value in settings:
        tables.setdefault(section, {})[key] = value
    try:
        return change_chip(chip, tables)
    except ValidationError as error:
        raise CimcError(explain_invalid(error, Chip)) from None
