"""Another device on a chip, and other values: what is read, what is printed, and what a compiled file keeps."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from onnx import helper, save
from typer.testing import CliRunner

import cimc
from cimc.chip import Chip, chip_text, load_chip, parse_chip
from cimc.chip_to_toml import chip_to_toml
from cimc.commands.main import app
from cimc.commands.options import parse_settings
from cimc.device_file import device_text
from tests.networks import network_proto, weights

DEVICE = "soft-bounds-10"
OWN = """name = "mine"
description = "a device of a test"
technology = "test"
conductance_min_uS = 1.0
conductance_max_uS = 17.0
read_voltage_V = 0.1
read_noise_uS = 0.25
[drift]
start_s = 20.0
exponent = { constant = 0.05 }
"""


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.stdout


def cell_of(device: str) -> dict[str, Any]:
    """The values that a device file states."""
    table = tomllib.loads(device)
    return {key: value for key, value in table.items() if key not in ("name", "description")}


def test_a_device_takes_the_place_of_the_whole_cell_and_of_nothing_else() -> None:
    before, after = load_chip("hermes"), load_chip("hermes", DEVICE)
    assert after.cell == parse_chip(chip_text("hermes"), "x", settings={"cell": {"device": DEVICE}}).cell
    stated = cell_of(device_text(DEVICE))
    assert after.cell.model_dump(exclude_unset=True) == stated
    assert after.cell.programming.error_sd_uS == 0.0  # not that of hermes
    assert after.model_copy(update={"cell": before.cell}) == before


def test_settings_go_before_chip_and_device() -> None:
    chip = load_chip("hermes", DEVICE, settings={"adc": {"bits": 6}, "cell": {"pulse": {"c2c": 0.5}}})
    assert chip.adc.bits == 6
    assert chip.adc.range_uA == load_chip("hermes").adc.range_uA
    assert chip.cell.pulse is not None
    assert (chip.cell.pulse.c2c, chip.cell.pulse.step_uS) == (0.5, 10.0)


def test_a_pulse_of_another_law_replaces_the_whole_of_one() -> None:
    chip = load_chip("hermes", DEVICE, settings={"cell": {"pulse": {"law": "linear", "step_uS": 2.0}}})
    assert chip.cell.pulse is not None
    assert chip.cell.pulse.model_dump(exclude_unset=True) == {"law": "linear", "step_uS": 2.0}


@pytest.mark.parametrize(
    ("texts", "tables"),
    [
        (["adc.bits=6"], {"adc": {"bits": 6}}),
        (["cell.device=pcm", "cell.limits_uS=[0, 1.5]"], {"cell": {"device": "pcm", "limits_uS": [0, 1.5]}}),
        (['name="a=b"'], {"name": "a=b"}),
        (["cell.pulse={law='linear', step_uS=1.0}"], {"cell": {"pulse": {"law": "linear", "step_uS": 1.0}}}),
        (["description=two words"], {"description": "two words"}),
        (["name=1\nother = 2"], {"name": "1\nother = 2"}),
    ],
)
def test_values_are_those_of_toml_and_bare_words_are_text(texts: list[str], tables: dict[str, Any]) -> None:
    assert parse_settings(texts) == tables


def test_the_printed_chip_loads_as_the_changed_one(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN, encoding="utf-8")
    printed = run("chips", "hermes", "--device", str(tmp_path / "mine.toml"), "--set", "adc.bits=6")
    chip = parse_chip(printed, "printed")
    assert (chip.cell.conductance_max_uS, chip.cell.read_noise_uS, chip.adc.bits) == (17.0, 0.25, 6)
    assert chip.cell.drift is not None
    assert chip.cell.drift.exponent.constant == 0.05
    first = printed.partition("\n")[0]
    assert "hermes" in first
    assert "mine.toml" in first
    assert "adc.bits" in first


def test_explain_and_json_are_of_the_changed_chip() -> None:
    assert '"bits": 5' in run("chips", "hermes", "--set", "adc.bits=5", "--json")
    assert '"levels": null' in run("chips", "ideal", "--device", DEVICE, "--explain", "--json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "soft-bound-10"], "did you mean soft-bounds-10"),
        (["--device", "./none.toml"], "cannot read device file"),
        (["--set", "adc.bit=6"], "unknown key adc.bit; did you mean bits"),
        (["--set", "adc.bits=six"], "adc.bits"),
        (["--set", "cell=3"], "cell"),
        (["--set", "cell.device=3"], "cell.device is 3"),
    ],
)
def test_a_wrong_change_is_one_line(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["chips", "hermes", *words])
    assert isinstance(result.exception, cimc.CimcError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("words", [["adc.bits"], ["a..b=1"], ["=1"], ["a=1", "a=2"], ["a=1", "a.b=2"], ["a="]])
def test_what_is_no_setting_is_a_wrong_use(words: list[str]) -> None:
    given = [part for word in words for part in ("--set", word)]
    assert CliRunner().invoke(app, ["chips", "hermes", *given]).exit_code == 2


def test_a_change_needs_a_chip() -> None:
    assert CliRunner().invoke(app, ["chips", "--device", DEVICE]).exit_code == 2


# --- What a compiled file keeps ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network and a device of one's own."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="fc")
    save(network_proto([node], {"x": ["N", 6]}, {"y": ["N", 3]}, {"w": weights(6, 3)}), tmp_path / "model.onnx")
    (tmp_path / "mine.toml").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chip_naming(device: str) -> str:
    """A chip file whose cell is that device, with one value of its own."""
    tables = load_chip("ideal").model_dump(exclude_none=True)
    text = chip_to_toml(Chip.model_validate(tables))
    start, end = text.index("[cell]"), text.index("[weights]")
    return f'{text[:start]}[cell]\ndevice = "{device}"\nread_noise_uS = 0.5\n\n{text[end:]}'


@pytest.mark.parametrize("named_in", ["option", "file"])
def test_a_compiled_file_does_not_follow_later_changes_of_the_device(folder: Path, named_in: str) -> None:
    (folder / "chip.toml").write_text(chip_naming("mine.toml"), encoding="utf-8")
    noise = {"option": 0.25, "file": 0.5}[named_in]
    chip, device = ("chip.toml", None) if named_in == "file" else ("ideal", "mine.toml")
    compiled = cimc.compile("model.onnx", chip, output="model.cim", verify=False, device=device)
    (folder / "mine.toml").write_text(OWN.replace("17.0", "99.0"), encoding="utf-8")
    read = cimc.read_artifact("model.cim")
    assert read.chip == compiled.artifact.chip
    assert (read.chip.cell.conductance_max_uS, read.chip.cell.read_noise_uS) == (17.0, noise)
    assert "device" not in tomllib.loads(read.chip_text)["cell"]
    first = read.chip_text.partition("\n")[0]
    assert first.startswith("# ")
    assert read.chip.name in first
    assert "mine.toml" in first


def test_a_chip_without_a_device_keeps_the_text_of_its_file(folder: Path) -> None:
    cimc.compile("model.onnx", "ideal", output="model.cim", verify=False)
    assert cimc.read_artifact("model.cim").chip_text == chip_text("ideal")


def test_a_chip_in_memory_takes_a_device(folder: Path) -> None:
    compiled = cimc.compile("model.onnx", load_chip("ideal"), device=DEVICE, verify=False)
    assert compiled.artifact.chip == load_chip("ideal", DEVICE)


def test_the_command_takes_a_device(folder: Path) -> None:
    run("compile", "model.onnx", "--chip", "ideal", "--device", "mine.toml", "-o", "model.cim", "--no-verify")
    assert cimc.read_artifact("model.cim").chip.cell.conductance_max_uS == 17.0


def test_a_device_file_is_not_overwritten_by_what_is_compiled_for_it(folder: Path) -> None:
    with pytest.raises(cimc.CimcError, match=r"mine\.toml"):
        cimc.compile("model.onnx", "ideal", device="mine.toml", output="mine.toml", verify=False)
    assert (folder / "mine.toml").read_text(encoding="utf-8") == OWN
