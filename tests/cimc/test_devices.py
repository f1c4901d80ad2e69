"""`cimc devices`: list, description, drawing, fit; and the same from Python."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

import cimc
from cimc.commands.main import app
from cimc.device_file import device_names, device_text
from cimc.report.text_plot import text_plot
from tests.runtime.fitting.drawn_trains import drawn

DEVICE = "soft-bounds-10"
FULL = """name = "full"
description = "a device of a test"
technology = "test"
conductance_min_uS = 2.0
conductance_max_uS = 22.0
read_voltage_V = 0.1
read_noise_uS = 0.5
[programming]
error_sd_uS = [0.2, 1.0]
[pulse]
law = "soft-bounds"
step_uS = 2.0
c2c = 0.2
step_d2d = 0.1
[drift]
start_s = 20.0
exponent = { constant = 0.05 }
"""


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["devices", *words])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("full.toml").write_text(FULL, encoding="utf-8")
    trains = drawn("soft-bounds", devices=12, pulses=40)
    names = {1: "up", -1: "down", 0: "none"}
    rows = zip(trains.device, trains.pulse, trains.direction, trains.conductance, strict=True)
    lines = [f"{device},{pulse},{names[int(way)]},{held:.6g}" for device, pulse, way, held in rows]
    Path("data.csv").write_text("\n".join(["device,pulse,direction,conductance_uS", *lines]), encoding="utf-8")
    times = [20.0, 200.0, 2000.0, 20000.0]
    lines = [f"{n},{t},{10 * (t / 20) ** -(0.04 + 0.002 * n):.6f}" for n in range(10) for t in times]
    Path("retention.csv").write_text("\n".join(["device,time_s,conductance_uS", *lines]), encoding="utf-8")
    return tmp_path


def test_the_list_has_every_device_with_its_law() -> None:
    figures = json.loads(run("--json"))
    assert sorted(figures) == sorted(device_names())
    assert figures[DEVICE]["pulse"]["law"] == "soft-bounds"
    table = run()
    assert DEVICE in table
    assert "0 to 100" in table
    assert run("list") == table


def test_a_name_prints_the_file_and_json_its_values(folder: Path) -> None:
    assert run(DEVICE) == run("show", DEVICE) == device_text(DEVICE)
    assert run("./full.toml") == FULL
    assert json.loads(run("./full.toml", "--json"))["drift"]["exponent"]["constant"] == 0.05


def test_an_unknown_device_is_one_line() -> None:
    for words in (["soft-bound-10"], ["plot", "soft-bound-10"]):
        result = CliRunner().invoke(app, ["devices", *words])
        assert isinstance(result.exception, cimc.CimcError)
        assert "did you mean soft-bounds-10" in str(result.exception)


@pytest.mark.parametrize(
    "words", [["--help"], ["list", "--help"], ["show", "--help"], ["plot", "--help"], ["fit", "--help"]]
)
def test_every_command_shows_an_example(words: list[str]) -> None:
    assert "Example: cimc devices" in run(*words)


def test_figures_of_a_plot_are_those_of_the_description(folder: Path) -> None:
    figures = cimc.plot_device("full.toml", "full.png", devices=40, cycles=2)
    pulses, errors, time = (figures[key] for key in ("pulses", "errors", "time"))
    assert pulses["number"][0] == 0
    assert pulses["up"] == 12  # 1.25 windows of 20 uS in steps of 2 uS
    assert pulses["number"][-1] == 24
    # Soft bounds from the lower end: half the window is left after ln 2 / (step / half the window) pulses or so.
    middle = [2 + 20 * (1 - 0.8**n) for n in range(13)]
    np.testing.assert_allclose(pulses["mean_uS"][:13], middle, atol=1.0)
    assert all(
        low <= mean <= high
        for low, mean, high in zip(*(pulses[k] for k in ("p5_uS", "mean_uS", "p95_uS")), strict=True)
    )
    state = np.array(errors["conductance_uS"]) / 22.0
    np.testing.assert_allclose(errors["write_sd_uS"], 0.2 + state, rtol=0.1)
    np.testing.assert_allclose(errors["read_sd_uS"], 0.5, rtol=0.1)
    assert [one["target_uS"] for one in time["states"]] == [7.0, 12.0, 22.0]
    for one in time["states"]:
        wanted = one["target_uS"] * (np.maximum(np.array(time["time_s"]) / 20, 1)) ** -0.05
        np.testing.assert_allclose(one["mean_uS"], wanted, rtol=0.02)
    height, width = imread("full.png").shape[:2]
    assert width > 3 * height / 2


def test_noise_of_writes_does_not_add_up_along_a_plot(folder: Path) -> None:
    noisy = FULL.replace('law = "soft-bounds"', "write_noise_uS = 5.0")  # linear: all end at the lower bound, 2 uS
    Path("noisy.toml").write_text(noisy, encoding="utf-8")
    pulses = cimc.plot_device("noisy.toml", devices=400, cycles=1)["pulses"]
    ends = [pulses[name][-1] for name in ("p5_uS", "mean_uS", "p95_uS")]
    np.testing.assert_allclose(ends, [2 - 1.645 * 5, 2, 2 + 1.645 * 5], atol=1.5)


def test_a_plot_repeats_with_its_seed_and_needs_no_laws(folder: Path) -> None:
    assert cimc.plot_device(DEVICE, devices=4, cycles=1) == cimc.plot_device(DEVICE, devices=4, cycles=1)
    plain = "\n".join(FULL.splitlines()[:7])
    Path("plain.toml").write_text(plain, encoding="utf-8")
    figures = json.loads(run("plot", "plain.toml", "--json"))
    assert figures["pulses"] is None
    assert figures["time"] is None
    assert "⠀" in run("plot", "plain.toml", "-o", "plain.png")
    assert Path("plain.png").read_bytes().startswith(b"\x89PNG")
    run("plot", "plain.toml", "-o", "plain.SVG")
    assert "<svg" in Path("plain.SVG").read_text(encoding="utf-8")


def test_a_plot_does_not_overwrite_its_device(folder: Path) -> None:
    with pytest.raises(cimc.CimcError, match=r"full\.toml"):
        cimc.plot_device("full.toml", "full.toml")
    assert Path("full.toml").read_text(encoding="utf-8") == FULL
    Path("mydev").write_text(FULL, encoding="utf-8")
    with pytest.raises(cimc.CimcError, match="it is the input"):
        cimc.plot_device("./mydev", "mydev")
    assert Path("mydev").read_text(encoding="utf-8") == FULL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 100_001}, "devices is 100001; give a whole number from 2 to 100000"),
        ({"cycles": 1_001}, "cycles is 1001; give a whole number from 1 to 1000"),
        ({"devices": 10_000, "cycles": 1_000}, "more than 1000000 together"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"output": "none/x.png"}, "cannot write none/x.png"),
        ({"output": "x.jpg"}, "cannot write x.jpg: pictures are PNG, PDF or SVG"),
    ],
)
def test_a_plot_beyond_its_bounds_is_one_line(options: dict, message: str) -> None:
    with pytest.raises(cimc.CimcError, match=message):
        cimc.plot_device(DEVICE, **options)


def test_a_name_is_drawn_as_it_is_written(folder: Path) -> None:
    r"""$\frac$ is no formula."""
    Path("plain.toml").write_text(FULL.replace('"full"', "'$\\frac$'"), encoding="utf-8")
    assert cimc.plot_device("plain.toml", "x.png", devices=2, cycles=1)["device"] == "$\\frac$"
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_is_no_number_is_named_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"conductance_uS": [2.0, 22.0], "write_sd_uS": [0.1, float("nan")]}
    monkeypatch.setattr("cimc.api.plot_device._errors", lambda *_: errors)
    with pytest.raises(cimc.CimcError, match=r"errors\.write_sd_uS\.1 is no finite number"):
        cimc.plot_device("full.toml", "x.png", devices=2, cycles=1)
    assert not Path("x.png").exists()


def test_a_fit_writes_a_device_that_loads_and_compiles(folder: Path) -> None:
    words = ["fit", "data.csv", "retention.csv", "-o", "device.toml", "--plot", "fit.png", "--name", "mine"]
    printed = run(*words)
    assert "soft-bounds (taken)" in printed
    assert "not simulated until you add it: errors of verified writes" in " ".join(printed.split())
    text = Path("device.toml").read_text(encoding="utf-8")
    device = cimc.load_device("device.toml")
    assert device.name == "mine"
    assert device.pulse is not None
    assert device.pulse.law_name == "soft-bounds"
    assert device.pulse.step_uS == pytest.approx(2.5, rel=0.2)
    assert device.drift is not None
    assert device.drift.start_s == 20.0
    assert device.drift.exponent.constant == pytest.approx(0.049, abs=0.002)
    assert cimc.load_chip("ideal", "device.toml").cell.pulse == device.pulse
    for word in ("data.csv", "retention.csv", "12 devices", "95 %"):
        assert word in text
    assert tomllib.loads(text)["pulse"]["c2c_of"] == "step"
    assert Path("fit.png").read_bytes().startswith(b"\x89PNG")


def test_retention_alone_makes_a_device(folder: Path) -> None:
    figures = json.loads(run("fit", "retention.csv", "--json"))
    assert figures["pulses"] is None
    assert figures["drift"]["devices"] == 10
    assert figures["device"]["conductance_max_uS"] == 10.0


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (["data.csv", "data.csv"], {}, "second file of the same kind"),
        ("data.csv", {"output": "data.csv"}, r"data\.csv"),
        ("data.csv", {"picture": "data.csv"}, r"data\.csv: it is the input"),
        ("data.csv", {"output": "x", "picture": "./x"}, "another output"),
        ("data.csv", {"output": "x", "picture": "none/x.png"}, "none/x.png"),
        ("data.csv", {"output": "x", "picture": "fit.jpeg"}, "cannot write fit.jpeg: pictures are PNG, PDF or SVG"),
        ("data.csv", {"seed": -1}, "seed is -1"),
        ("data.csv", {"seed": 2**63}, "seed is 9223372036854775808"),
        ("data.csv", {"read_voltage_V": 0.0}, "read_voltage_V is 0"),
        ("retention.csv", {"picture": "x.png"}, "pulse trains"),
    ],
)
def test_a_wrong_fit_is_one_line(folder: Path, data: list[str] | str, options: dict, message: str) -> None:
    with pytest.raises(cimc.CimcError, match=message) as caught:
        cimc.fit_device(data, **options)
    assert "\n" not in str(caught.value)
    assert not Path("x").exists()
    assert not Path("x.png").exists()


@pytest.mark.parametrize(
    ("kind", "up_only"), [("binary", False), ("binary", True), ("jump", False), ("jump", True), ("noise", False)]
)
@pytest.mark.filterwarnings("error")
def test_pulses_that_tell_no_law_are_one_line_without_warnings(folder: Path, kind: str, up_only: bool) -> None:
    random, rows = np.random.default_rng(4), ["device,pulse,direction,conductance_uS"]
    for device in range(3):
        for pulse in range(31 if up_only else 61):
            way = 0 if pulse == 0 else 1 if pulse <= 30 else -1
            held = {"binary": 50 if way > 0 else 10, "noise": 20 + random.normal(), "jump": 50 if pulse == 15 else 10}
            rows.append(f"{device},{pulse},{way},{held[kind]}")
    Path("odd.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(cimc.CimcError, match=r"odd\.csv: .*no law"):
        cimc.fit_device("odd.csv", up_only=up_only)


def test_a_gap_of_many_pulses_is_drawn_at_once(folder: Path) -> None:
    text = Path("data.csv").read_text(encoding="utf-8")
    Path("data.csv").write_text(f"{text}\n0,900000000,down,20\n1,900000000,down,20\n", encoding="utf-8")
    cimc.fit_device("data.csv", picture="x.png")
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_fails_leaves_no_device_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cimc.CimcError("the disk is full")

    monkeypatch.setattr("cimc.report.device_pictures.fit_picture", fail)
    with pytest.raises(cimc.CimcError, match="disk"):
        cimc.fit_device("data.csv", "x.toml", picture="x.png")
    assert not Path("x.toml").exists()


def test_a_drawing_rises_with_its_curve() -> None:
    lines = text_plot([1.0, 2.0, 3.0], [[0.0, 5.0, 10.0]], width=12, height=4)
    inside = [line.partition("┤")[2] for line in lines[:4]]
    first = [next(i for i, dot in enumerate(line) if dot != "⠀") for line in inside]
    assert first == sorted(first, reverse=True)
    assert lines[0].split()[0] == "10"
    assert lines[3].split()[0] == "0"
    assert lines[-1].split() == ["1", "3"]
