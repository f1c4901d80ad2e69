"""Chip descriptions: one TOML file a chip, every value with its unit in the key and its source in a comment."""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import Field, ValidationError, model_validator

from cimc.chip_cell import Cell, Programming
from cimc.chip_energy import ReadEnergy
from cimc.chip_sections import Adc, Area, Array, Cores, Cost, Input, Section, Weights
from cimc.chip_wires import Wires
from cimc.chip_writes import RowWrites
from cimc.device_file import merged, with_device
from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid
from cimc.named_text import named_text
from cimc.options import RowSplit
from cimc.plugins import plugins
from cimc.scheme import FOOTPRINTS, SCHEMES, Scheme

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


class Chip(Section):
    """A chip description; the TOML files in `cimc/chips` give the source of every value."""

    name: str = Field(min_length=1, description="name of the chip, as files and tables show it")
    description: str = Field(description="the chip in one line, with its source")
    array: Array = Field(description="one physical crossbar")
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
        if self.adc.bits is not None and self.adc.range_uA is None and self.not_simulated is None:
            raise ValueError("adc: bits and range_uA go together")
        return self

    @model_validator(mode="after")
    def _check_wires(self) -> "Chip":
        if self.wires.ir_drop == "per-input" and (self.input.bits is None or self.input.signed == "one-phase"):
            raise ValueError('wires.ir_drop = "per-input" needs input.bits and input.signed = "two-phase"')
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> "Chip":
        if self.weight_columns < 1 or self.weight_rows < 1:
            raise ValueError(
                f"array.columns and array.rows hold no weight: one takes {self.columns_per_weight} columns and "
                f"{self.rows_per_weight} rows, beside {self.array.spare_columns} spare and "
                f"{self.weights.offset_columns} offset columns"
            )
        return self

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
        """How a weight becomes devices. KeyError where the runtime does not read it (see `not_simulated`)."""
        return SCHEMES[self.weights.scheme]

    @property
    def not_simulated(self) -> str | None:
        """What of this chip the runtime does not simulate, in a few words; None: all is."""
        if self.weights.scheme not in SCHEMES:
            return f'weights.scheme = "{self.weights.scheme}"'
        if self.weights.slices > 1:
            return f"{self.weights.slices} bit slices a weight"
        if self.weights.depthwise == "digital":
            return 'weights.depthwise = "digital"'
        if self.input.encoding == "bit-serial":
            return 'input.encoding = "bit-serial"'
        if self.input.signed == "one-phase":
            return 'input.signed = "one-phase"'
        return None

    @property
    def pulse_ns(self) -> float:
        """How long a word line is driven for one cycle of an input, or for the largest input."""
        if self.energy.pulse_ns is not None:
            return self.energy.pulse_ns
        serial = self.input.encoding in ("bit-serial", "bit-serial-accumulated")
        return self.cost.mvm_us * 1e3 / (-(-(self.input.bits or 1) // self.input.bits_per_cycle) if serial else 1)

    @property
    def target_step_uS(self) -> float:
        """Resolution of conductance targets: a power of two, so fine that it never matters to a device.

        With it every product sum below the ADC's range is an exact float32 integer multiple of the step, in any
        order of addition: the exported network and the runtime then agree code by code.
        """
        if self.adc.range_uA is None or self.input.bits is None:
            return 2.0 ** math.ceil(math.log2(self.cell.conductance_max_uS / 2**20))
        range_uS = self.adc.range_uA / self.cell.read_voltage_V
        return 2.0 ** math.ceil(math.log2(range_uS * 2**self.input.bits / 2**24))


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
