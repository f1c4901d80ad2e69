"""What a sweep is asked for: its fields with their values, how points are chosen, how often each is repeated."""

import difflib
import itertools
import math
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cimc.chip import Chip
from cimc.dotted import dotted
from cimc.errors import CimcError
from cimc.layer_options import layer_key
from cimc.options import check_choice, check_seed, check_whole
from cimc.sweep_values import Interval, Values, canonical, parse_values, value_text, values_of

MOST_POINTS = 100_000
SETTINGS = ("do", "seeds", "random", "search", "objective", "devices")  # of a TOML file, beside `vary`
# Beside the sections of a chip: the functions whose options are fields, with those that a sweep may change.
OPTIONS = {
    "compile": (
        "input_range", "max_chips", "row_split", "rows_per_read", "groups_per_read", "objective", "arrays",
        "share_weights", "fill_rows", "digital",
    ),
    "train": None,  # checked where the options of training are made
    "eval": ("exact", "noise", "metric"),
    "export": ("chip", "weights", "noise", "correct", "digital", "rows_per_read", "groups_per_read"),
    "deploy": ("chips", "required", "baseline", "metric", "at", "temperature", "compensate"),
}  # fmt: skip
CHIP_SECTIONS = tuple(sorted(set(Chip.model_fields) - {"name", "description", "row_split"}))
LAYER = "layer"  # `layer.NAME.KEY`: what a compile options file says of one layer
ALIASES = {"energy": "energy_mj", "area": "area_mm2", "latency": "latency_ms"}
Fields = Mapping[str, Any]


class Do(StrEnum):
    """The part of the road that a point goes: evaluation; training and evaluation; export and virtual chips."""

    eval = "eval"
    train = "train"
    deploy = "deploy"


class Devices(StrEnum):
    """What is evaluated of a trained file: its devices as they are, or its weights written on the point's chip.

    auto: kept where every field of the chip that varies is one of reading alone.
    """

    auto = "auto"
    keep = "keep"
    write = "write"


@dataclass(frozen=True)
class Objective:
    """A figure to be made large or small."""

    figure: str
    largest: bool

    def __str__(self) -> str:
        return f"{self.figure}:{'max' if self.largest else 'min'}"


OBJECTIVES = (Objective("accuracy", True),)  # where none are given


@dataclass(frozen=True)
class SweepSpec:
    """A sweep. Checked when it is made.

    fields: by name their values, in the user's order; without the seed. seeds: each point is computed with all of them.
    random, search: so many points are drawn, or found by Optuna; both None: all combinations. do: None: what fits the
    source.
    """

    fields: Mapping[str, Values]
    seeds: tuple[int, ...] = (0,)
    random: int | None = None
    search: int | None = None
    objectives: tuple[Objective, ...] = OBJECTIVES
    do: Do | None = None
    devices: Devices = Devices.auto

    def __post_init__(self) -> None:
        """Raises CimcError for what does not fit together."""
        for field in self.fields:
            _check_field(field)
        if self.random is not None and self.search is not None:
            raise CimcError("--random and --search both choose the points; leave one of them out")
        for option, number in (("--random", self.random), ("--search", self.search)):
            if number is not None:
                check_whole(option, number, 1, MOST_POINTS)
        if len({one.figure for one in self.objectives}) < len(self.objectives):
            raise CimcError("--objective names a figure twice; give each once")
        count = (self.random or self.search or self.grid_size) * len(self.seeds)
        if self.random is None and self.search is None:
            for field, values in self.fields.items():
                if isinstance(values, Interval):
                    raise CimcError(
                        f"{field}={values} is an interval, which has no end of values; give it a step such as "
                        f"{values.low!r}:{values.high!r}:{(values.high - values.low) / 4 or 1:.3g}, or draw from it "
                        "with --random N or --search N"
                    )
        if count > MOST_POINTS:
            less = "vary less, or --random N" if self.random is None and self.search is None else "take fewer, or seeds"
            raise CimcError(f"the sweep has {count:,} points with its seeds; {MOST_POINTS:,} is the most: {less}")

    @property
    def varied(self) -> list[str]:
        """The fields with more than one value."""
        return [field for field, values in self.fields.items() if isinstance(values, Interval) or len(values) > 1]

    @property
    def grid_size(self) -> int:
        """How many combinations there are; of intervals without bound."""
        return math.prod(
            MOST_POINTS if isinstance(values, Interval) else len(values) for values in self.fields.values()
        )

    def points(self) -> Iterator[Fields]:
        """The fields of each point, of a grid or drawn; each once. The same specification gives the same points."""
        if self.random is None:
            lists = [() if isinstance(values, Interval) else values for values in self.fields.values()]
            yield from (dict(zip(self.fields, chosen, strict=True)) for chosen in itertools.product(*lists))
            return
        draw, seen = random.Random(self.seeds[0]), set()
        for _ in range(100 * self.random):  # a small grid may have fewer points than were asked for
            fields = {field: _drawn(values, draw) for field, values in self.fields.items()}
            if canonical(fields) not in seen:
                seen.add(canonical(fields))
                yield fields
            if len(seen) == min(self.random, self.grid_size):
                return

    def json(self) -> dict[str, Any]:
        """As JSON values, the same for the same sweep, but for objectives where none is searched by."""
        values = {
            field: str(of) + (" whole" if of.whole else "") if isinstance(of, Interval) else list(of)
            for field, of in self.fields.items()
        }
        return {
            "vary": values,
            "seeds": list(self.seeds),
            "random": self.random,
            "search": self.search,
            "objectives": [str(one) for one in self.objectives],
            "do": None if self.do is None else str(self.do),
            "devices": str(self.devices),
        }


def make_spec(vary: Mapping[str, Any], **settings: Any) -> SweepSpec:
    """The specification of values by field and settings by name, as TOML or Python state them; None: not stated.

    A field `seed` gives the seeds; `seeds` how many there are, from 0.

    Raises:
        CimcError: an unknown field or setting, or wrong values.
    """
    unknown = settings.keys() - set(SETTINGS)
    if unknown:
        raise CimcError(f"a sweep has no {min(unknown)!r}; it has vary, {', '.join(SETTINGS)}")
    fields = {field: values_of(field, given) for field, given in vary.items()}
    given = {name: value for name, value in settings.items() if value is not None}
    seeds = fields.pop("seed", None)
    if seeds is not None and "seeds" in given:
        raise CimcError("seed is varied and --seeds given; leave one of them out")
    if isinstance(seeds, Interval):
        raise CimcError(f"seed={seeds}: give whole numbers such as seed=0:2")
    if seeds is None:
        seeds = tuple(range(check_whole("seeds", given.get("seeds", 1), 1, MOST_POINTS)))
    checked: dict[str, Any] = {"seeds": tuple(map(check_seed, seeds))}
    checked |= {name: given[name] for name in ("random", "search") if name in given}
    if "objective" in given:
        written = given["objective"]
        listed = written if isinstance(written, list | tuple) else [written]
        if not listed:
            raise CimcError("objective is an empty list; give such as accuracy:max, or leave it out")
        checked["objectives"] = tuple(map(parse_objective, listed))
    for name, kind in (("do", Do), ("devices", Devices)):
        if name in given:
            checked[name] = check_choice(kind, name, given[name])
    return SweepSpec(fields, **checked)


def parse_objective(text: Any) -> Objective:
    """FIGURE:max or FIGURE:min; energy, area and latency stand for energy_mj, area_mm2 and latency_ms."""
    figure, _, aim = str(text).partition(":")
    if not figure or aim not in ("max", "min"):
        raise CimcError(f"objective {text!r} is not FIGURE:max or FIGURE:min, such as accuracy:max or energy:min")
    return Objective(ALIASES.get(figure, figure), aim == "max")


def parse_vary(texts: Sequence[str]) -> dict[str, Values]:
    """Values by field from FIELD=VALUES. Raises CimcError for what is not that, and for a field that comes twice."""
    fields: dict[str, Values] = {}
    for text in texts:
        field, equals, written = text.partition("=")
        field = field.strip()
        if not equals or not field or not written.strip():
            raise CimcError(f"--vary {text!r} is not FIELD=VALUES, such as adc.bits=6:9 or train.lr=1e-3,4e-3")
        if field in fields:
            raise CimcError(f"--vary gives {field} twice; put its values into one list")
        fields[field] = parse_values(field, written)
    return fields


def read_toml(path: str | Path) -> dict[str, Any]:
    """The settings of a sweep file: those of `SETTINGS`, and under `vary` values by field, in tables or dotted keys.

    Raises:
        CimcError: the file cannot be read, is not TOML, or has other keys.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        vary = tables.get("vary", {})
        fields = dotted(vary) if isinstance(vary, Mapping) else None
    except OSError as error:
        raise CimcError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise CimcError(f"sweep file {path} is not valid TOML: {str(error)[:200]}; correct that line") from None
    unknown = tables.keys() - {"vary", *SETTINGS}
    if unknown:
        raise CimcError(f"sweep file {path}: no key {min(unknown)!r}; it may have [vary], {', '.join(SETTINGS)}")
    if fields is None:
        raise CimcError(f"sweep file {path}: vary is a table, [vary], of values by field")
    return {**tables, "vary": fields}


def point_text(fields: Fields) -> str:
    """The fields of a point in one line."""
    return ", ".join(f"{field} {value_text(value)}" for field, value in fields.items())


def _drawn(values: Values, draw: random.Random) -> Any:
    if not isinstance(values, Interval):
        return draw.choice(values)
    if values.log:
        number = math.exp(draw.uniform(math.log(values.low), math.log(values.high)))
    else:
        number = draw.uniform(values.low, values.high)
    number = min(max(number, values.low), values.high)
    return round(number) if values.whole else number


def _check_field(field: str) -> None:
    """Raises CimcError for a field that nothing takes."""
    section, _, option = field.partition(".")
    if field in ("chip", "device") or (option and section in ("train", *CHIP_SECTIONS)):
        return
    if option and section == LAYER:
        try:
            layer_key(option)
        except CimcError as error:
            raise CimcError(f"a sweep cannot vary {field}: {error}") from None
        return
    known = OPTIONS.get(section)
    if option and known is not None:
        if option in known:
            return
        near = difflib.get_close_matches(option, known, 1)
        hint = f"; did you mean {section}.{near[0]}?" if near else f"; it takes {', '.join(known)}"
        raise CimcError(f"a sweep cannot vary {field}{hint}")
    near = difflib.get_close_matches(section, ["chip", "device", "seed", LAYER, *OPTIONS, *CHIP_SECTIONS], 1)
    meant = f"{near[0]}.{option}" if near and option else near[0] if near else ""
    hint = f" (did you mean {meant}?)" if near else ""
    raise CimcError(
        f"there is no field {field!r} to vary{hint}; fields are chip, device, seed, those of chip files "
        f"({', '.join(f'{name}.' for name in CHIP_SECTIONS)}), options ({', '.join(f'{name}.' for name in OPTIONS)}) "
        f"and {LAYER}.NAME.KEY of one layer"
    )
