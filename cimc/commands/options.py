"""What several commands share: their options, how a result is printed, how data are loaded."""

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cimc.errors import CimcError

if TYPE_CHECKING:
    from cimc.dataset import Dataset

T = TypeVar("T")

# Panels of --help.
DATA, MAPPING, MEASURING = "Data", "Mapping", "Measuring"


def complete_chip(incomplete: str) -> list[str]:
    """Names of chips that begin so, for the shell."""
    from cimc.chip import chip_names

    return [name for name in chip_names() if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Names of devices that begin so, for the shell."""
    from cimc.device_file import device_names

    return [name for name in device_names() if name.startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    """Names of data sets, and files, that begin so, for the shell."""
    names = [name for name in ("digits", "mnist", "fashion-mnist", "cifar10") if name.startswith(incomplete)]
    return [*names, *complete_files(".npz")(incomplete)]


def complete_files(*suffixes: str) -> Callable[[str], list[str]]:
    """What completes files with such endings and folders; where there is none, the shell lists all files itself."""

    def complete(incomplete: str) -> list[str]:
        folder, _, start = incomplete.rpartition("/")
        place = Path(folder or ("/" if incomplete.startswith("/") else "."))
        try:
            entries = sorted(place.iterdir())
        except OSError:
            return []
        prefix = incomplete[: len(incomplete) - len(start)]
        return [
            f"{prefix}{entry.name}{'/' * entry.is_dir()}"
            for entry in entries
            if entry.name.startswith(start)
            and (start or not entry.name.startswith("."))
            and (entry.is_dir() or entry.name.endswith(suffixes))
        ]

    return complete


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="mnist, fashion-mnist, cifar10, digits, a FILE.npz, or a FOLDER of .npy files.",
        rich_help_panel=DATA,
        autocompletion=complete_data,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where the data lies; else $CIMC_DATA, else the user's cache.", rich_help_panel=DATA),
]
Metric = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MEASURING,
        help="Measure: top1, top5, positions, edit, perplexity, mse, mae, cosine, binary, multilabel, miou, or a "
        "function MODULE:FUNCTION of outputs and labels. Default: by the labels; without, agreement with float32.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=MEASURING,
        help="For the values between layers, such as 500M or 2G; no result depends on it. Default: a share of what is "
        "free.",
    ),
]
Energy = Annotated[
    bool,
    typer.Option(
        "--energy",
        help="Energy of the reads by their data: least, mean and largest over the inputs.",
        rich_help_panel=MEASURING,
    ),
]
Carry = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OUT=IN",
        rich_help_panel=DATA,
        help="An input that takes an output of the step before, such as stateN=state: the samples are the steps of one "
        "stream; repeatable.",
    ),
]
FillRows = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LAYER=]N",
        rich_help_panel=MAPPING,
        help="Word lines that layers with fewer rows fill, each row held as often as fits, beyond those of an array in "
        "several: more of the ADC's codes, less noise and errors of devices, for more cells; of all layers, or of one; "
        "repeatable.",
    ),
]
Options = Annotated[
    Path | None,
    typer.Option(
        "--options",
        metavar="FILE",
        rich_help_panel=MAPPING,
        help="Options of single layers, a TOML file with tables \\[layer.NAME]: converters (input.bits, adc.bits, "
        "adc.range_uA, ...), array (of a chip with several kinds), digital, rows_per_read.",
        autocompletion=complete_files(".toml"),
    ),
]
RowsPerRead = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LAYER=]N",
        rich_help_panel=MAPPING,
        help="Most weight rows of an array that are driven at once: of all layers, or of one; the others "
        "follow in further reads; repeatable.",
    ),
]
GroupsPerRead = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[LAYER=]N",
        rich_help_panel=MAPPING,
        help="Most groups of a convolution in one array that are driven at once, with the idle current of each in the "
        "others' columns; default: all, and none; repeatable.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="NUMBERS",
        help="Taken off the inputs (pixels: of 0 to 1), by channel.",
        rich_help_panel=DATA,
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="NUMBERS", help="What they are divided by then, by channel.", rich_help_panel=DATA),
]
ChannelsLast = Annotated[
    bool,
    typer.Option("--channels-last", help="The images are stored with their channels last.", rich_help_panel=DATA),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        autocompletion=complete_device,
        help="Device (see `cimc devices`) or path of its TOML file, in place of the whole of the chip's \\[cell].",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes of this machine that share the work.")]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A dask scheduler whose workers share the work, such as tcp://host:8786."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]


def require_finite(value: float | None) -> float | None:
    """A callback of number options: typer's own bounds let nan and inf pass."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """What `parse` makes of an option's text. Raises typer.BadParameter where it refuses it."""
    try:
        return parse(text)
    except CimcError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def parse_memory(text: str | None) -> int | None:
    """Bytes, from a number with K, M, G or T behind it. Raises typer.BadParameter when it is not that."""
    if text is None:
        return None
    unit = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:].upper())
    number = text if unit is None else text[:-1]
    try:
        size = float(number) * 2 ** (unit or 0)
    except ValueError:
        size = 0.0
    if not 1 <= size < 2**60:
        raise typer.BadParameter(f"{text!r} is not a size such as 500M or 2G", param_hint="--memory")
    return int(size)


def parse_carry(texts: list[str] | None) -> dict[str, str]:
    """Inputs by output. Raises typer.BadParameter for what is not OUT=IN, and for an output that comes twice."""
    carry: dict[str, str] = {}
    for text in texts or ():
        output, _, name = text.partition("=")
        if not output or not name or output in carry:
            raise typer.BadParameter(f"{text!r} is not OUT=IN with one input an output", param_hint="--carry")
        carry[output] = name
    return carry


def parse_by_layer(option: str, texts: list[str] | None) -> dict[str, int]:
    """Numbers by layer, "" for all others. Raises typer.BadParameter for what is not N or LAYER=N, or comes twice."""
    found: dict[str, int] = {}
    for text in texts or ():
        layer, named, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or bool(named) != bool(layer) or layer in found:
            raise typer.BadParameter(
                f"{text!r} is not N or LAYER=N with N from 1 on, one for each layer", param_hint=option
            )
        found[layer] = int(number)
    return found


def parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """Tables from KEY.PATH=VALUE with values as TOML has them; a bare word is a string.

    Raises typer.BadParameter for what is not that, for a key that comes twice, and for a value where a section stands.
    """
    tables: dict[str, Any] = {}
    for text in texts or ():
        path, _, written = text.partition("=")
        *sections, key = keys = [part.strip() for part in path.split(".")]
        table: Any = tables
        for section in sections:
            table = table.setdefault(section, {}) if isinstance(table, dict) else None
        if not all(keys) or not written.strip() or not isinstance(table, dict) or key in table:
            raise typer.BadParameter(f"{text!r} is not KEY.PATH=VALUE with one value a key", param_hint="--set")
        table[key] = _toml_value(written.strip())
    return tables


def parse_policy_settings(texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """The two parts of each FIELD=VALUE. Raises typer.BadParameter for what is not that."""
    pairs = []
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            raise typer.BadParameter(f"{text!r} is not FIELD=VALUE", param_hint="--set")
        pairs.append((name, value))
    return tuple(pairs)


def _toml_value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if list(read) == ["value"] else text


def emit(figures: Mapping[str, Any], show: Callable[[], None], *, as_json: bool) -> None:
    """Print a result: the figures as one JSON object, or what `show` prints."""
    if as_json:
        typer.echo(json.dumps(figures, allow_nan=False))
    else:
        show()


def load_data(name: str, folder: Path | None, *, mean: str | None, std: str | None, channels_last: bool) -> "Dataset":
    """The data that `--data` and `--data-dir` name, as `--mean`, `--std` and `--channels-last` say."""
    from cimc.data.load import load

    means, deviations = _numbers("--mean", mean), _numbers("--std", std)
    return load(name, folder, mean=means, std=deviations, channels_last=channels_last)


def _numbers(option: str, text: str | None) -> list[float]:
    """Numbers with commas between. Raises typer.BadParameter for others."""
    try:
        return [float(number) for number in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not NUMBER,NUMBER,...", param_hint=option) from None
