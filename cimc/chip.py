"""Chip descriptions: one TOML file a chip, every value with its unit in the key and its source in a comment."""

import math
import tomllib
from collections.abc import Container, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cimc.chip_cell import Cell, Programming
from cimc.chip_energy import ReadEnergy
from cimc.chip_kinds import FIRST, Kind, Kinds, make_kind
from cimc.chip_sections import Adc, Area, Array, Cores, Cost, Input, Section, Weights
from cimc.chip_wires import Wires
from cimc.chip_writes import RowWrites
from cimc.device_file import merged, with_device
from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid
from cimc.named_text import named_text
from cimc.options import RowSplit
from cimc.plugins import plugins
from cimc.scheme import FOOTPRINTS, DeviceWindow, Scheme, make_scheme

__all__ = [
    "Adc",
    "Area",
    "Array",
    "Cell",
    "Chip",
    "Cores",
    "Cost",
    "Input",
    "Programming",
    "Weights",
    "Wires",
    "chip_names",
    "chip_text",
    "load_chip",
    "parse_chip",
]

CHIPS_FOLDER = Path(__file__).parent / "chips"
# So many bits are whole numbers of float32, with room for sums.
MOST_INPUT_BITS, MOST_WEIGHT_BITS = 23, 23


class Chip(Section):
    """A chip description; the TOML files in `cimc/chips` give the source of every value."""

    name: str = Field(min_length=1, description="name of the chip, as files and tables show it")
    description: str = Field(description="the chip in one line, with its source")
    array: Array = Field(description="one physical crossbar")
    kinds: Annotated[dict[str, Kind], AfterValidator(Kinds)] = Field(
        default_factory=Kinds, description="further arrays of the chip, of other sizes or with other converters"
    )
    cell: Cell = Field(description="one device: what it can hold, what a write leaves, what a blind pulse does")
    weights: Weights = Field(default=Weights(), description="how one signed weight becomes devices")
    input: Input = Field(default=Input(), description="the input converter (DAC)")
    adc: Adc = Field(default=Adc(), description="the output converter")
    wires: Wires = Field(default=Wires(), description="the resistance of word lines and bit lines")
    row_split: RowSplit = Field(
        default=RowSplit.channel,
        strict=False,
        description="where the rows of a weight matrix are cut: channel, after whole input channels (where a channel's "
        "kernel fits the array); flat, after as many rows as the array has",
    )
    cores: Cores = Field(default=Cores(), description="cores on a mesh or a bus")
    cost: Cost = Field(description="time and energy")
    energy: ReadEnergy = Field(default=ReadEnergy(), description="energy of a read by its data")
    write: RowWrites = Field(default=RowWrites(), description="row writes and the ports for them")
    area: Area | None = Field(default=None, description="area of one of each component. Left out: not stated")

    @model_validator(mode="after")
    def _check_slices(self) -> "Chip":
        if self.arrays_per_chip < 1:
            raise ValueError(
                f"the slices of a weight take {self.physical_per_array} arrays but array.per_chip is "
                f"{self.array.per_chip}; give the chip more arrays or the weight fewer slices"
            )
        return self

    @model_validator(mode="after")
    def _check_converters(self) -> "Chip":
        if self.adc.bits is not None and self.input.bits is None:
            raise ValueError("an ADC with bits needs an input converter with bits")
        if self.adc.bits == 1 and self.bipolar(True):
            raise ValueError("adc: one bit has no codes on both sides of 0, which this chip's conversions need")
        if self.input.bits == 1 and self.input.signed == "one-phase":
            raise ValueError('input: one bit holds no sign; signed = "one-phase" needs two')
        if self.adc.sense == "voltage" and self.wires.in_conductances:
            raise ValueError('wires: ir_drop is that of bit lines held at 0 V, which sense = "voltage" leaves open')
        if self.adc.sense == "voltage" and self.weights.scheme not in ("differential", "differential-rows"):
            raise ValueError('adc: sense = "voltage" needs pairs of devices: the mean of a column has no offset')
        one_sign = self.input.bits is not None and not self.bipolar(True)
        if self.wires.ir_drop == "per-input" and not one_sign:
            raise ValueError(
                'wires.ir_drop = "per-input" needs input.bits, and currents of one sign (two-phase inputs)'
            )
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> "Chip":
        if self.weight_columns < 1 or self.weight_rows < 1:
            raise ValueError(
                f"array.columns and array.rows hold no weight: one takes {self.columns_per_weight} columns and "
                f"{self.rows_per_weight} rows, beside {self.array.spare_columns} spare and "
                f"{self.weights.offset_columns} offset columns"
            )
        if self.weights.bits_per_cell is not None:
            self.cell.require_states(2**self.weights.bits_per_cell)
        return self

    @model_validator(mode="after")
    def _check_kinds(self) -> "Chip":
        for name in self.kinds:
            if not (name.isascii() and name.isidentifier()) or name == FIRST:
                raise ValueError(f'kinds: {name!r} is no name of a kind; write letters, digits and "_", not "{FIRST}"')
            try:
                self.of_kind(name)
            except ValidationError as error:
                first = error.errors()[0]
                where = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
                raise ValueError(f"kinds.{name}: {where}{first['msg'].removeprefix('Value error, ')}") from None
            except ValueError as error:
                raise ValueError(f"kinds.{name}: {error}") from None
        return self

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All sections; no `kinds` where there are none, as files had it before."""
        values: dict[str, Any] = handler(self)
        return values if self.kinds else {key: value for key, value in values.items() if key != "kinds"}

    def of_kind(self, kind: str) -> "Chip":
        """The chip as if all of its arrays were of that kind; "" is the first, the chip itself. KeyError: none such."""
        return _of_kind(self, kind) if kind else self

    @property
    def sizes(self) -> dict[str, Array]:
        """The arrays by kind, the first ("") first."""
        return {"": self.array, **{kind: self.of_kind(kind).array for kind in self.kinds}}

    def sizes_text(self, kinds: Container[str] | None = None) -> str:
        """The sizes of arrays, "256 x 64 and 64 x 64"; of all kinds, or of those given."""
        shown = (array for kind, array in self.sizes.items() if kinds is None or kind in kinds)
        return " and ".join(dict.fromkeys(f"{array.rows} x {array.columns}" for array in shown))

    @property
    def columns_per_weight(self) -> int:
        """Adjacent columns of one array that hold one weight."""
        each = FOOTPRINTS[self.weights.scheme].columns
        return each * (self.weights.slices if self.weights.slices_in == "columns" else 1)

    @property
    def rows_per_weight(self) -> int:
        """Adjacent rows of one array that hold one weight."""
        return FOOTPRINTS[self.weights.scheme].rows

    @property
    def devices_per_weight(self) -> int:
        """Devices that hold one weight, in all arrays."""
        return self.columns_per_weight * self.rows_per_weight * self.physical_per_array

    @property
    def physical_per_array(self) -> int:
        """Physical arrays in one array of the mapping: its bit slices where these lie in arrays of their own."""
        return self.weights.slices if self.weights.slices_in == "arrays" else 1

    @property
    def arrays_per_chip(self) -> int:
        """Arrays of the mapping on one chip."""
        return self.array.per_chip // self.physical_per_array

    @property
    def arrays_per_core(self) -> int:
        """Arrays of the mapping on one core, the last core may have fewer."""
        return -(-self.arrays_per_chip // self.cores.count)

    @property
    def weight_rows(self) -> int:
        """Rows of weights that one array takes."""
        return self.array.rows // self.rows_per_weight

    @property
    def weight_columns(self) -> int:
        """Columns of weights that one array takes."""
        free = self.array.columns - self.array.spare_columns - self.weights.offset_columns
        return free // self.columns_per_weight

    @property
    def scheme(self) -> Scheme:
        """How a weight becomes devices."""
        return _scheme_of(self)

    @property
    def weight_step(self) -> float | None:
        """The widest distance between neighbouring weights, of the weight range; None: devices hold any conductance."""
        if self.scheme.steps is not None:
            return 1 / self.scheme.steps
        if self.cell.programmable_uS is None:
            return None
        return self.cell.largest_spacing * self.cell.window_uS / self.scheme.full_uS

    @property
    def weight_granularity(self) -> float:
        """The step at which an accumulated update is due, of the weight range."""
        if self.scheme.steps is not None:
            return 1 / self.scheme.steps
        return self.cell.granularity * self.cell.window_uS / self.scheme.full_uS

    @property
    def not_simulated(self) -> str | None:
        """What of this chip the runtime does not simulate, in a few words; None: all is."""
        if self.input.bits is not None and self.input.bits > MOST_INPUT_BITS:
            return f"inputs of more than {MOST_INPUT_BITS} bits"
        if self.weights.bits is not None and self.weights.bits > MOST_WEIGHT_BITS:
            return f"weights of more than {MOST_WEIGHT_BITS} bits"
        return None

    def bipolar(self, signed: bool) -> bool:
        """Whether a conversion can be negative, and the ADC's codes lie on both sides of 0; signed: inputs may be."""
        both_polarities = signed and self.input.signed == "one-phase" and self.input.encoding != "bit-serial"
        return self.scheme.in_rows or (both_polarities and self.input.bits is not None) or self.adc.sense == "voltage"

    def top_input(self, signed: bool) -> int:
        """The largest input code: 2^bits - 1, of a converter with bits that count the sign 2^(bits - 1) - 1."""
        assert self.input.bits is not None
        return int(2 ** (self.input.bits - (signed and self.input.signed == "one-phase")) - 1)

    def top_drive(self, signed: bool) -> int:
        """The largest that drives a row at once, at the read voltage: of bit-serial inputs a digit, else a code."""
        if self.input.encoding == "bit-serial" and self.input.bits is not None:
            return int(2 ** min(self.input.bits_per_cycle, self.input.bits) - 1)
        return self.top_input(signed)

    def top_code(self, signed: bool) -> int:
        """The ADC's largest code; the least is 0, or of a bipolar one the negative of this."""
        assert self.adc.bits is not None
        return int(2 ** (self.adc.bits - self.bipolar(signed)) - 1)

    def lsb_uS(self, signed: bool) -> float:
        """One code of the ADC, in uS times units of what drives a row: DAC codes, or digits of bit-serial inputs.

        Of a converter with bits. Accumulating and halving the bit currents gives the current of u / 2^bits, and so does
        a pulse of u of 2^bits steps; a digit of bit-serial inputs drives the read voltage at its largest.
        """
        assert self.adc.bits is not None
        assert self.input.bits is not None
        cell, drive, serial = self.cell, self.top_drive(signed), self.input.encoding == "bit-serial"
        if self.adc.sense == "voltage":
            assert self.adc.range_mV is not None
            return self.adc.range_mV * 1e-3 / self.top_code(signed) / cell.read_voltage_V * drive
        if self.adc.range_uA is not None:
            return (
                self.adc.range_uA
                / self.top_code(signed)
                / cell.read_voltage_V
                * (drive if serial else 2**self.input.bits)
            )
        states = cell.levels if self.weights.bits_per_cell is None else 2**self.weights.bits_per_cell
        if serial and states is not None:
            return cell.window_uS / (states - 1)
        return self.weight_rows * cell.conductance_max_uS * drive / self.top_code(signed)

    @property
    def pulse_ns(self) -> float:
        """How long a word line is driven for one cycle of an input, or for the largest input."""
        if self.energy.pulse_ns is not None:
            return self.energy.pulse_ns
        bits, step = self.input.bits or 1, self.input.bits_per_cycle
        cycles = {"bit-serial": -(-bits // step), "bit-serial-accumulated": bits}.get(self.input.encoding, 1)
        return self.cost.mvm_us * 1e3 / cycles

    @property
    def target_step_uS(self) -> float:
        """Resolution of conductance targets: a power of two, so fine that it never matters to a device.

        With it every product sum below the range of an ADC whose codes begin at 0 is an exact float32 integer multiple
        of the step, in any order of addition: the exported network and the runtime then agree code by code.
        """
        if self.adc.bits is None or self.input.bits is None or self.adc.sense == "voltage":
            return 2.0 ** math.ceil(math.log2(self.cell.conductance_max_uS / 2**20))
        range_uS = max(self.lsb_uS(signed) * self.top_code(signed) for signed in (False, True))
        return 2.0 ** math.ceil(math.log2(range_uS / 2**24))


@lru_cache(maxsize=256)
def _of_kind(chip: Chip, kind: str) -> Chip:
    return make_kind(chip, chip.kinds[kind])


@lru_cache(maxsize=256)
def _scheme_of(chip: Chip) -> Scheme:
    cell, weights = chip.cell, chip.weights
    middle = cell.conductance_min_uS + cell.window_uS / 2
    if cell.levels is not None:
        middle = cell.conductance_min_uS + cell.window_uS * round((cell.levels - 1) / 2) / (cell.levels - 1)
    elif cell.level_uS is not None:
        middle = min(cell.level_uS, key=lambda state: abs(state - middle))
    window = DeviceWindow(cell.conductance_min_uS, cell.window_uS, middle)
    return make_scheme(
        weights.scheme,
        bits=weights.bits,
        cell_bits=weights.bits_per_cell,
        window=window,
        reference=weights.offset_columns > 0,
    )


def chip_names() -> list[str]:
    """Names of the built-in chips, sorted, then of those that plug-ins declare. Raises CimcError as `plugins` does."""
    return [*sorted(_built_in()), *_plugged_in()]


def chip_text(name_or_path: str | Path) -> str:
    """The TOML text of a chip: built in, of a plug-in, or in a file; a `Path` is always a file.

    Raises:
        CimcError: no such chip or file, not readable as text, or a plug-in that cannot be loaded.
    """
    name = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or name.endswith(".toml") or "/" in name or Path(name).is_file()
    file = Path(name) if is_path else None
    # Plug-ins are looked for only where nothing else has the name.
    plugged_in = {} if is_path or name in _built_in() else _plugged_in()
    return named_text(name, file, kind="chip", folder=CHIPS_FOLDER, built_in=_built_in(), plugged_in=plugged_in)


def parse_chip(
    text: str, source: str, *, device: str | Path | None = None, settings: Mapping[str, Any] = MappingProxyType({})
) -> Chip:
    """Check a chip description and return it. `source` names it in errors.

    Args:
        text: TOML.
        source: of the text; a device that `[cell]` names by a relative path starts from its folder.
        device: name or path of a device in place of the whole of `[cell]`.
        settings: tables as TOML has them; their keys go before those of the chip and of the device, and a
            `cell.device` among them is as `device`.

    Raises:
        CimcError: not TOML, an unknown or missing key, a wrong unit, or a value out of range; the first one is named.
    """
    try:
        return Chip.model_validate(_changed(tomllib.loads(text), source, device, settings))
    except ValidationError as error:
        raise CimcError(f"chip file {source}: {explain_invalid(error, Chip)}") from None
    except (ValueError, RecursionError) as error:  # TOML's own errors, numbers of thousands of digits, deep nesting
        raise CimcError(f"chip file {source} is not valid TOML: {str(error)[:200]}; correct that line") from None


def load_chip(
    name_or_path: str | Path,
    device: str | Path | None = None,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Chip:
    """The chip of that name, or in that file, with another device and other values; see `parse_chip`.

    Example: load_chip("hermes", "pcm-nandakumar", settings={"adc": {"bits": 6}}).

    Raises:
        CimcError: as `chip_text` and `parse_chip`.
    """
    return parse_chip(chip_text(name_or_path), str(name_or_path), device=device, settings=settings)


def _changed(
    tables: Mapping[str, Any], source: str, device: str | Path | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The tables of a chip with its device written out, and with what stands in their place."""
    cell = settings.get("cell")
    if isinstance(cell, Mapping) and "device" in cell:
        device = cell["device"] if device is None else device
        settings = {**settings, "cell": {key: value for key, value in cell.items() if key != "device"}}
    if device is not None:
        is_path = isinstance(device, Path) or (isinstance(device, str) and (device.endswith(".toml") or "/" in device))
        tables = {**tables, "cell": {"device": str(Path(device).absolute()) if is_path else device}}
    return merged(with_device(tables, source), settings)


def _built_in() -> frozenset[str]:
    return frozenset(path.stem for path in CHIPS_FOLDER.glob("*.toml"))


def _plugged_in() -> dict[str, Any]:
    """The path of a TOML file, or its text, by chip name."""
    return plugins("cimc.chips", built_in=_built_in())
