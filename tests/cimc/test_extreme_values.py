"""Numbers that no physics has, in chip files: one line that names the key, and never a Python warning."""

import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cimc.api.compile import compile_model
from cimc.artifact import read_artifact
from cimc.chip import chip_text, parse_chip
from cimc.errors import CimcError
from cimc.toml_text import toml_text

CHIPS = ("brram-256x64", "hermes", "isaac")
LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"
EXTREME = (1e308, -1e308, 1e30)


def _numbers(tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, (*path, key))
        elif isinstance(value, float):
            yield (*path, key)


def _with(tables: Mapping[str, Any], path: tuple[str, ...], value: float) -> dict[str, Any]:
    key, *rest = path
    return {**tables, key: _with(tables[key], tuple(rest), value) if rest else value}


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("value", EXTREME)
def test_no_figure_of_a_chip_is_beyond_physics(name: str, value: float) -> None:
    tables = tomllib.loads(chip_text(name))
    for path in _numbers(tables):
        with pytest.raises(CimcError, match=path[-1]):
            parse_chip(toml_text(_with(tables, path, value)), "f")


@pytest.mark.parametrize("key", ["cell.read_voltage_V", "adc.range_uA", "cost.mvm_us"])
@pytest.mark.parametrize("value", [1e308, 1e12, 1e-12, 1e-308, 5e-324])
def test_extreme_figures_compile_without_a_warning_or_are_refused(key: str, value: float, tmp_path: Path) -> None:
    path = tuple(key.split("."))
    (tmp_path / "chip.toml").write_text(toml_text(_with(tomllib.loads(chip_text("brram-256x64")), path, value)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile_model(LENET1, tmp_path / "chip.toml", output=tmp_path / "net.cim", verify=False)
        except CimcError as error:
            assert path[-1] in str(error)  # noqa: PT017 - both ends are right
        else:
            read_artifact(tmp_path / "net.cim")


@pytest.mark.parametrize("text", [f"a = {'9' * 5000}", "a = " + "[" * 5000 + "]" * 5000, "[" + "a." * 5000 + "a]"])
def test_deep_nesting_and_numbers_of_thousands_of_digits(text: str) -> None:
    with pytest.raises(CimcError):
        parse_chip(text, "f")
