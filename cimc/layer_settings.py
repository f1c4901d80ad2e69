"""Settings of single layers: the chip's converters in other numbers, and what a read then takes.

A layer reads the arrays of the chip through converters that may be set otherwise for it: other bits, another range.
Devices, weights and arrays are the same for all layers.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid

# Keys of the chip file that a layer may have others of: numbers of the converters, and what a read costs with them.
CONVERTERS = {"input": ("bits", "bits_per_cycle"), "adc": ("bits", "range_uA", "range_mV", "noise_lsb")}
COSTS = ("mvm_us", "mvm_nj", "adc_pj", "dac_pj", "array_pj", "shift_add_pj")
SETTABLE = {**CONVERTERS, "cost": COSTS}
SETTABLE_KEYS = tuple(f"{section}.{key}" for section, keys in SETTABLE.items() for key in keys)
# What all cycles of an input take together: bit-serial ones are converted one by one and all alike.
PER_CYCLE = ("mvm_us", "mvm_nj", "dac_pj", "array_pj")


class Setting(NamedTuple):
    """A number of the chip file that a layer has in place of the chip's."""

    section: str
    key: str
    value: int | float

    def __str__(self) -> str:
        return f"{self.section}.{self.key} {self.value:g}"


Settings = tuple[Setting, ...]


def settings_text(settings: Settings) -> str:
    """Settings in one line, as tables have them; "" for none."""
    return ", ".join(map(str, settings))


def settings_of(chip: Chip, values: Mapping[str, Any], where: str) -> Settings:
    """Settings from values by dotted key, such as `adc.bits`; what the chip has anyway is none.

    Args:
        chip: the chip.
        values: as TOML has them.
        where: names the layer in errors.

    Raises:
        CimcError: a key that no layer can have, or a value that the chip cannot have; `where` is named.
    """
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
    return tuple(kept)


def nearest(key: str, known: Iterable[str]) -> str:
    """The end of a line about a key that is not known: the one that was meant, or all there are."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; it takes {', '.join(known)}"


def chip_of_layer(chip: Chip, settings: Settings) -> Chip:
    """The chip as a layer with these settings is read on it.

    What a read takes is scaled by rule, unless the settings say it: time and energy of bit-serial inputs go with their
    cycles, which are all alike; the energy of a conversion doubles with a bit of the ADC (Walden's figure of merit is
    energy over 2^bits: IEEE JSAC 17, 539, 1999). Of other inputs the chip file does not say which part of a read goes
    with their bits, and its figures stay.

    Raises:
        CimcError: the chip cannot have them.
    """
    return _changed(chip, settings) if settings else chip


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
    changed = _validated(chip, tables)
    costs = {**_scaled_costs(chip, changed), **tables.get("cost", {})}
    return _validated(changed, {"cost": costs}) if costs else changed


def _validated(chip: Chip, tables: Mapping[str, Mapping[str, Any]]) -> Chip:
    sections = {name: getattr(chip, name) for name in Chip.model_fields}
    for section, values in tables.items():
        sections[section] = {**sections[section].model_dump(), **values}
    try:
        return Chip.model_validate(sections)
    except ValidationError as error:
        raise CimcError(explain_invalid(error, Chip)) from None


def _scaled_costs(chip: Chip, changed: Chip) -> dict[str, float]:
    """What `[cost]` becomes by rule; see `chip_of_layer`."""
    costs: dict[str, float] = {}
    cycles = changed.input.conversions / chip.input.conversions  # 1 but of bit-serial inputs
    if cycles != 1:
        stated = {key: getattr(chip.cost, key) for key in PER_CYCLE}
        costs |= {key: value * cycles for key, value in stated.items() if value is not None}
    if chip.cost.adc_pj is not None and chip.adc.bits is not None and changed.adc.bits is not None:
        steps = 2.0 ** (changed.adc.bits - chip.adc.bits)
        if steps != 1:
            costs["adc_pj"] = chip.cost.adc_pj * steps
    return costs
