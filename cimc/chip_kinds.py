"""Kinds of arrays, `[kinds.NAME]`: further arrays of a chip, of another size, maybe with other converters.

The arrays of `[array]` are the first kind. Devices, weights, the encoding of inputs and cores are the same for all
kinds. What a kind leaves out is as in the first one, but what follows from its size: the energy of an array by itself
(array_pj) and its area go with its cells, and the energy of a whole read (mvm_nj), most of which is conversions, with
its columns. The time of a read stays. Other converters then change costs as for a single layer (`change_chip`).

A layer lies on arrays of one kind (`cimc.layer_settings`). On a chip the first kind's arrays come first, then those of
each further kind in the order of the file; each kind is shared out evenly over the cores.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field

from cimc.chip_sections import NonNegative, Positive, Section

C = TypeVar("C", bound=Section)  # a chip (`cimc.chip.Chip`), whose sections these functions change

FIRST = "first"  # the arrays of `[array]`, where a kind is named
# What all cycles of an input take together: bit-serial ones are converted one by one and all alike.
PER_CYCLE = ("mvm_us", "mvm_nj", "dac_pj", "array_pj")


class KindInput(Section):
    """Numbers of the input converter of a kind."""

    bits: int | None = Field(default=None, ge=1, le=32, description="in place of input.bits")
    bits_per_cycle: int | None = Field(default=None, ge=1, le=32, description="in place of input.bits_per_cycle")


class KindAdc(Section):
    """Numbers of the output converter of a kind."""

    bits: int | None = Field(default=None, ge=1, le=16, description="in place of adc.bits")
    range_uA: Positive | None = Field(default=None, description="in place of adc.range_uA")
    range_mV: Positive | None = Field(default=None, description="in place of adc.range_mV")
    noise_lsb: NonNegative | None = Field(default=None, description="in place of adc.noise_lsb")


class KindCost(Section):
    """What a read of an array of a kind takes; where it is left out, as of the first kind, by size and converters."""

    mvm_us: NonNegative | None = Field(default=None, description="in place of cost.mvm_us")
    mvm_nj: NonNegative | None = Field(
        default=None, description="in place of cost.mvm_nj. Left out: that, by the number of columns"
    )
    adc_pj: NonNegative | None = Field(default=None, description="in place of cost.adc_pj")
    dac_pj: NonNegative | None = Field(default=None, description="in place of cost.dac_pj")
    array_pj: NonNegative | None = Field(
        default=None, description="in place of cost.array_pj. Left out: that, by the number of cells"
    )
    shift_add_pj: NonNegative | None = Field(default=None, description="in place of cost.shift_add_pj")


class KindArea(Section):
    """Areas of a kind, of a chip that has `[area]`."""

    array_mm2: NonNegative | None = Field(
        default=None, description="in place of area.array_mm2. Left out: that, by the number of cells"
    )
    adc_mm2: NonNegative | None = Field(default=None, description="in place of area.adc_mm2")
    dac_mm2: NonNegative | None = Field(default=None, description="in place of area.dac_mm2")
    shift_add_mm2: NonNegative | None = Field(default=None, description="in place of area.shift_add_mm2")


class Kind(Section):
    """Further arrays of the chip, of another size or with other converters. What is left out is as in the first kind.

    The file has a table for each, with a name of its own.
    """

    rows: int = Field(gt=0, le=1 << 16, description="word lines of one array")
    columns: int = Field(gt=0, le=1 << 16, description="bit lines of one array, spare and offset columns included")
    per_chip: int = Field(gt=0, le=1 << 30, description="physical arrays of this kind on one chip")
    spare_columns: int | None = Field(default=None, ge=0, description="in place of array.spare_columns")
    columns_per_adc: int | None = Field(default=None, gt=0, description="in place of array.columns_per_adc")
    input: KindInput | None = Field(default=None, description="numbers of the input converter")
    adc: KindAdc | None = Field(default=None, description="numbers of the output converter")
    cost: KindCost | None = Field(default=None, description="what a read takes")
    area: KindArea | None = Field(default=None, description="areas of its components")


class Kinds(dict[str, Kind]):
    """Kinds by name; like all of a chip they are not changed, and so can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def make_kind(chip: C, kind: Kind) -> C:
    """The chip as if all of its arrays were of that kind. Raises ValueError: the chip cannot have it."""
    given, sections = kind.model_dump(exclude_none=True), dict(chip)
    own = {section: given.pop(section, {}) for section in ("input", "adc", "cost", "area")}
    columns = kind.columns / sections["array"].columns
    cells = columns * kind.rows / sections["array"].rows
    by_size = {"mvm_nj": columns, "array_pj": cells}
    stated = {key: getattr(sections["cost"], key) for key in by_size}
    tables: dict[str, dict[str, Any]] = {
        "array": given,
        "cost": {key: value * by_size[key] for key, value in stated.items() if value is not None},
    }
    if sections["area"] is not None:
        array_mm2 = sections["area"].array_mm2
        tables["area"] = {"array_mm2": None if array_mm2 is None else array_mm2 * cells, **own["area"]}
    elif own["area"]:
        raise ValueError("it has areas, and the chip has none; add [area]")
    return change_chip(replace_sections(chip, tables), {section: own[section] for section in ("input", "adc", "cost")})


def change_chip(chip: C, tables: Mapping[str, Mapping[str, Any]]) -> C:
    """The chip with other numbers in some sections, and with what its reads then cost; without further kinds.

    What a read takes is scaled by rule, unless the tables say it: time and energy of bit-serial inputs go with their
    cycles, which are all alike; the energy of a conversion doubles with a bit of the ADC (Walden's figure of merit is
    energy over 2^bits: IEEE JSAC 17, 539, 1999). Of other inputs the chip file does not say which part of a read goes
    with their bits, and its figures stay.

    Raises:
        pydantic.ValidationError: the chip cannot have them.
    """
    changed = replace_sections(chip, tables)
    costs = {**_scaled_costs(dict(chip), dict(changed)), **tables.get("cost", {})}
    return replace_sections(changed, {"cost": costs}) if costs else changed


def replace_sections(chip: C, tables: Mapping[str, Mapping[str, Any]]) -> C:
    """The chip with other values of some keys, checked anew; without further kinds."""
    sections = {name: value for name, value in chip if name != "kinds"}
    for section, values in tables.items():
        sections[section] = {**sections[section].model_dump(), **values}
    return type(chip).model_validate(sections)


def _scaled_costs(chip: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, float]:
    """What `[cost]` becomes by rule; see `change_chip`. The sections of both by name."""
    cost, costs = chip["cost"], dict[str, float]()
    cycles = changed["input"].conversions / chip["input"].conversions  # 1 but of bit-serial inputs
    if cycles != 1:
        stated = {key: getattr(cost, key) for key in PER_CYCLE}
        costs |= {key: value * cycles for key, value in stated.items() if value is not None}
    before, after = chip["adc"].bits, changed["adc"].bits
    if cost.adc_pj is not None and before is not None and after is not None and before != after:
        costs["adc_pj"] = cost.adc_pj * 2.0 ** (after - before)
    return costs
