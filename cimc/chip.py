"""Chip descriptions: one TOML file a chip, every value with its unit in the key and its source in a comment."""

import difflib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cimc.errors import CimcError

CHIPS_FOLDER = Path(__file__).parent / "chips"
UNITS = frozenset(["s", "ms", "us", "ns", "v", "mv", "a", "ma", "ua", "na", "j", "mj", "uj", "nj", "pj", "fj"])

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Array(_Section):
    """One physical crossbar: word lines (rows, inputs) by bit lines (columns, outputs)."""

    rows: int = Field(gt=0, le=1 << 16)
    columns: int = Field(gt=1, le=1 << 16)
    columns_per_adc: int = Field(default=1, gt=0)
    per_chip: int = Field(gt=0, description="physical arrays on one chip")


class Programming(_Section):
    """Closed-loop write-verify: the error of a device after at most `trials` trials, as measured.

    A trial ends within `tolerance_uS` of the target or is repeated; the last trial is accepted as it is. The error
    of a single trial is derived from these figures (`runtime.cells.trial_error`).
    """

    error_sd_uS: NonNegative = 0.0
    error_mean_uS: Finite = 0.0
    trials: int = Field(default=1, ge=1, le=1000)
    tolerance_uS: Positive | None = None
    pulse_us: NonNegative | None = None
    pulse_nj: NonNegative | None = None

    @model_validator(mode="after")
    def _check_tolerance(self) -> "Programming":
        if self.trials > 1 and self.tolerance_uS is None:
            raise ValueError("tolerance_uS is needed when trials > 1")
        return self


class Pulse(_Section):
    """Open-loop response to one blind SET or RESET pulse: dG = step (1 + c2c z), z standard normal, hard bounds."""

    step_uS: Positive
    c2c: NonNegative = 0.0


class Cell(_Section):
    """One device. `levels` sets the granularity of updates, (G_max - G_min) / (levels - 1); None: continuous."""

    technology: str
    conductance_min_uS: NonNegative
    conductance_max_uS: Positive
    read_voltage_V: Positive
    levels: int | None = Field(default=None, ge=2, le=1 << 16)
    read_noise_uS: NonNegative = 0.0
    programming: Programming = Programming()
    pulse: Pulse | None = None

    @model_validator(mode="after")
    def _check_range(self) -> "Cell":
        if self.conductance_max_uS <= self.conductance_min_uS:
            raise ValueError("conductance_max_uS must be above conductance_min_uS")
        return self

    @property
    def window_uS(self) -> float:
        """G_max - G_min."""
        return self.conductance_max_uS - self.conductance_min_uS

    @property
    def granularity(self) -> float:
        """The step between two levels as a fraction of the window; 0 for a continuous device."""
        return 0.0 if self.levels is None else 1.0 / (self.levels - 1)


class Weights(_Section):
    """How one signed weight becomes devices. Differential: two adjacent columns, G+ and G-, the idle one at G_min."""

    scheme: Literal["differential"] = "differential"


class Input(_Section):
    """The input converter (DAC). `bits` None: ideal, no rounding and no limit.

    bit-serial-accumulated: the bit currents are halved and added in the analog domain and converted once.
    signed: a layer with negative inputs is read in two phases (positive part, negative part) and subtracted digitally.
    """

    bits: int | None = Field(default=None, ge=1, le=16)
    encoding: Literal["ideal", "bit-serial-accumulated"] = "ideal"
    signed: Literal["two-phase"] = "two-phase"


class Adc(_Section):
    """The output converter. `bits` None: ideal, no rounding and no limit. The range starts at 0 uA."""

    bits: int | None = Field(default=None, ge=1, le=16)
    range_uA: Positive | None = None
    noise_lsb: NonNegative = 0.0

    @model_validator(mode="after")
    def _check_range(self) -> "Adc":
        if (self.bits is None) != (self.range_uA is None):
            raise ValueError("bits and range_uA go together")
        if self.bits is None and self.noise_lsb:
            raise ValueError("noise_lsb needs bits and range_uA")
        return self

    @property
    def lsb_uA(self) -> float:
        """Step of one code: range / (2^bits - 1). Only for a converter with bits."""
        if self.bits is None or self.range_uA is None:
            raise ValueError("an ideal ADC has no LSB")
        return self.range_uA / (2**self.bits - 1)


class Cost(_Section):
    """Time and energy of one MVM of one array (a tile op), converters included."""

    mvm_us: NonNegative
    mvm_nj: NonNegative


class Chip(_Section):
    """A chip description. See the TOML files in `cimc/chips` for the meaning and source of every value."""

    name: str = Field(min_length=1)
    description: str
    array: Array
    cell: Cell
    weights: Weights = Weights()
    input: Input = Input()
    adc: Adc = Adc()
    row_split: Literal["channel", "flat"] = "channel"
    cost: Cost

    @model_validator(mode="after")
    def _check_converters(self) -> "Chip":
        if self.adc.bits is not None and self.input.bits is None:
            raise ValueError("an ADC with bits needs an input converter with bits")
        return self

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
    """Names of the built-in chips, sorted."""
    return sorted(path.stem for path in CHIPS_FOLDER.glob("*.toml"))


def chip_text(name_or_path: str) -> str:
    """The TOML text of a built-in chip or of a file.

    Raises:
        CimcError: no such chip or file, or not readable as text.
    """
    built_in = CHIPS_FOLDER / f"{name_or_path}.toml"
    is_path = name_or_path.endswith(".toml") or "/" in name_or_path or Path(name_or_path).is_file()
    path = Path(name_or_path) if is_path else built_in
    if not is_path and name_or_path not in chip_names():
        close = difflib.get_close_matches(name_or_path, chip_names(), n=1)
        hint = f"did you mean {close[0]}?" if close else "give the path of a .toml file"
        raise CimcError(f"unknown chip {name_or_path!r}; built in are {', '.join(chip_names())}; {hint}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CimcError(f"cannot read chip file {path}: {reason}; check the path") from None


def parse_chip(text: str, source: str) -> Chip:
    """Check a chip description and return it. `source` names it in errors.

    Raises:
        CimcError: not TOML, an unknown or missing key, a wrong unit, or a value out of range; the first one is named.
    """
    try:
        return Chip.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CimcError(f"chip file {source} is not valid TOML: {error}; correct that line") from None
    except ValidationError as error:
        raise CimcError(f"chip file {source}: {_explain(error)}") from None


def load_chip(name_or_path: str) -> Chip:
    """The chip of that name, or in that file. Raises CimcError as `chip_text` and `parse_chip` do."""
    return parse_chip(chip_text(name_or_path), name_or_path)


def _explain(error: ValidationError) -> str:
    """The first problem in one line: which key, what is wrong, which key was meant."""
    problems = error.errors()
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in first["loc"]) or "the description"
    if first["type"] == "extra_forbidden":
        known = _keys_of(first["loc"][:-1])
        key = str(first["loc"][-1])
        stem = _without_unit(key)
        same = [k for k in known if _without_unit(k) == stem and k != key]
        if same:
            # Of several keys with that stem (mvm_us, mvm_nj) the one that ends most alike is meant.
            return f"{where}: wrong unit; the key is {max(same, key=lambda k: _likeness(k, key))}"
        close = difflib.get_close_matches(key, known, n=1)
        return f"unknown key {where}; " + (f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}")
    if first["type"] == "missing":
        return f"{where} is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]} (got {first['input']!r:.60}); correct it"


def _without_unit(key: str) -> str:
    stem, _, unit = key.rpartition("_")
    return stem if stem and unit.lower() in UNITS else key


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _keys_of(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Chip
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
