"""Measurements from CSV: every unit and spelling is read as what it is, and what cannot be used is told in one line."""

from pathlib import Path

import numpy as np
import pytest

from cimc.data.measured import read_measurements
from cimc.errors import CimcError
from runtime.fitting.drift import RetentionData
from runtime.fitting.pulse_trains import PulseTrains

HEAD = "device,pulse,direction,conductance_uS"


def rows(devices: int = 2, pulses: int = 25, up: str = "up", down: str = "down") -> list[str]:
    """Up and down again in steps of 1 uS."""
    found = []
    for device in range(devices):
        found.append(f"d{device},0,none,10")
        found += [f"d{device},{n},{up},{10 + n}" for n in range(1, pulses + 1)]
        found += [f"d{device},{pulses + n},{down},{10 + pulses - n}" for n in range(1, pulses + 1)]
    return found


def written(folder: Path, lines: list[str], head: str = HEAD) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def trains(path: Path, read_voltage_V: float | None = None, *, up_only: bool = False) -> PulseTrains:
    found = read_measurements(path, read_voltage_V, up_only=up_only)
    assert isinstance(found, PulseTrains)
    return found


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("up", "down"),
        ("SET", "RESET"),
        ("potentiation", "depression"),
        ("LTP", "LTD"),
        ("1", "-1"),
        ("+1", "-1"),
        ("2.5", "-1.5"),
    ],
)
def test_directions_are_read(tmp_path: Path, up: str, down: str) -> None:
    found = trains(written(tmp_path, rows(up=up, down=down)))
    assert found.direction.tolist() == 2 * ([0] + [1] * 25 + [-1] * 25)
    assert found.conductance[:3].tolist() == [10, 11, 12]
    assert found.devices == 2


@pytest.mark.parametrize(
    ("head", "factor", "volts"),
    [
        ("conductance_uS", 1.0, None),
        ("conductance_S", 1e-6, None),
        ("current_uA", 0.1, 0.1),
        ("current_A", 2e-7, 0.2),
    ],
)
def test_units_end_in_micro_siemens(tmp_path: Path, head: str, factor: float, volts: float | None) -> None:
    lines = [f"{line.rpartition(',')[0]},{float(line.rpartition(',')[2]) * factor!r}" for line in rows()]
    found = trains(written(tmp_path, lines, HEAD.replace("conductance_uS", head)), volts)
    np.testing.assert_allclose(found.conductance, trains(written(tmp_path, rows())).conductance)


def test_a_voltage_tells_the_direction_by_its_sign(tmp_path: Path) -> None:
    lines = [line.replace("none", "0") for line in rows(up="1.2", down="-0.9")]
    found = trains(written(tmp_path, lines, HEAD.replace("direction", "voltage_V")))
    assert found.direction.tolist() == 2 * ([0] + [1] * 25 + [-1] * 25)


def test_rows_in_any_order_and_comments_and_empty_lines(tmp_path: Path) -> None:
    found = trains(written(tmp_path, ["# a note", *reversed(rows()), "", ",,,"]))
    assert found.conductance[:3].tolist() == [10, 11, 12]


def test_numbers_that_begin_anew_in_each_direction_are_trains_of_their_own(tmp_path: Path) -> None:
    lines = [
        f"{d},{n},{way},{30 + sign * n}" for d in "ab" for way, sign in (("up", 1), ("down", -1)) for n in range(30)
    ]
    found = trains(written(tmp_path, lines))
    assert len(np.unique(found.train)) == 2


def test_cycles_are_trains_of_their_own(tmp_path: Path) -> None:
    lines = [f"{line},{cycle}" for cycle in (1, 2) for line in rows()]
    found = trains(written(tmp_path, lines, f"{HEAD},cycle"))
    assert len(np.unique(found.train)) == 2
    assert found.devices == 2


def test_retention_is_told_by_its_time(tmp_path: Path) -> None:
    lines = [f"{d},{t},{10 / t**0.1:.5f}" for d in "ab" for t in (1, 10, 100)]
    found = read_measurements(written(tmp_path, lines, "device,time_s,conductance_uS"))
    assert isinstance(found, RetentionData)
    assert found.time_s.tolist() == [1, 10, 100, 1, 10, 100]


def edited(old: str, new: str) -> list[str]:
    """The rows with one of them replaced."""
    assert old in rows()
    return [new if line == old else line for line in rows()]


@pytest.mark.parametrize(
    ("head", "lines", "words"),
    [
        ("device,pulse,direction,conductance", rows(), ["conductance", "unit", "conductance_uS"]),
        ("device,pulse,direction,conductance_mS", rows(), ["conductance_mS", "conductance_uS"]),
        ("device,pulse,voltage,conductance_uS", rows(), ["voltage", "voltage_V"]),
        ("device,pulse,direction,current_uA", rows(), ["--read-voltage"]),
        ("device,pulse,direction,colour", rows(), ["unknown column 'colour'"]),
        ("device,pulse,way,conductance_uS", rows(), ["unknown column 'way'"]),
        ("chip,pulse,direction,conductance_uS", rows(), ["unknown column 'chip'"]),
        ("device,device,direction,conductance_uS", rows(), ["twice", "device"]),
        (HEAD, edited("d0,3,up,13", "d0,3,up,nan"), ["line 5", "nan", "leave rows out"]),
        (HEAD, edited("d0,3,up,13", "d0,3,up,"), ["line 5", "not a number"]),
        (HEAD, edited("d0,3,up,13", "d0,3,up,thirteen"), ["line 5", "'thirteen'"]),
        (HEAD, edited("d0,3,up,13", "d0,3,up,-13"), ["line 5", "negative"]),
        (HEAD, edited("d0,3,up,13", "d0,3.5,up,13"), ["line 5", "whole"]),
        (HEAD, edited("d0,3,up,13", "d0,3,sideways,13"), ["line 5", "'sideways'", "up or down"]),
        (HEAD, edited("d0,3,up,13", "d0,3,up"), ["line 5", "3 values"]),
        (HEAD, [*rows(), "d1,50,down,9"], ["pulse 50 of device d1 comes twice", "line 104"]),
        (HEAD, rows(devices=1), ["one device only"]),
        (HEAD, [line for line in rows() if "down" not in line], ["no down pulses", "--up-only"]),
        (HEAD, rows(pulses=5), ["only 10 up pulses"]),
        (HEAD, rows(up="down", down="up"), ["up pulses lower", "swap the directions"]),
        (HEAD, [f"{line.rpartition(',')[0]},0" for line in rows()], ["no two devices change"]),
        (HEAD, edited("d0,3,up,13", "d0,3,up,2e6"), ["line 5", "2e+06 uS", "is the unit right?"]),
        (HEAD, edited("d0,3,up,13", "d0,3000000000,up,13"), ["line 5", "beyond 1e+09"]),
        (HEAD, [], ["a head and no rows"]),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, head: str, lines: list[str], words: list[str]) -> None:
    with pytest.raises(CimcError) as caught:
        read_measurements(written(tmp_path, lines, head))
    message = str(caught.value)
    assert "\n" not in message
    assert "data.csv" in message
    for word in words:
        assert word in message


def test_a_device_that_only_goes_up_may_have_no_down_pulses(tmp_path: Path) -> None:
    lines = [line for line in rows() if "down" not in line]
    assert set(trains(written(tmp_path, lines), up_only=True).direction) == {0, 1}
    with pytest.raises(CimcError, match=r"50 down pulses, .* leave --up-only or their rows out"):
        trains(written(tmp_path, rows()), up_only=True)


def test_noise_about_a_bound_is_no_wrong_direction(tmp_path: Path) -> None:
    """Pulses at the bounds change nothing but noise: as many go down as up."""
    random = np.random.default_rng(0)
    held = np.clip(np.concatenate([np.arange(100), np.arange(100, -1, -1)]), 10, 20)
    ways = ["none", *["up"] * 100, *["down"] * 100]
    lines = [f"{d},{n},{way},{held[n] + random.normal()}" for d in "ab" for n, way in enumerate(ways)]
    assert trains(written(tmp_path, lines)).devices == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe\x00d", "UTF-8"), (b"", "empty"), (b"device,time_s,conductance_uS\na,1,1\n", "one")],
)
def test_what_is_no_table_is_one_clear_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(CimcError, match=words):
        read_measurements(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CimcError, match=r"none\.csv"):
        read_measurements(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,1,1", "a,2,1", "a,3,1", "b,0,1", "b,2,1", "b,3,1"], "time_s is not above 0"),
        (["a,1,1", "a,2,0", "a,3,1", "b,1,1", "b,2,1", "b,3,1"], "conductance is not above 0"),
        (["a,1,1", "a,2,1", "b,1,1", "b,2,1"], "three times"),
        (["a,1,1", "a,2,1", "a,3,1", "b,1,2", "b,2,2", "b,3,2"], "no conductance changes"),
    ],
)
def test_retention_that_says_no_exponent_is_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(CimcError, match=words):
        read_measurements(written(tmp_path, lines, "device,time_s,conductance_uS"))


@pytest.mark.parametrize(("mark", "named"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_than_commas_is_named(tmp_path: Path, mark: str, named: str) -> None:
    """It was told as one unknown column."""
    path = written(tmp_path, [line.replace(",", mark) for line in rows()], HEAD.replace(",", mark))
    with pytest.raises(CimcError, match=f"its columns are separated by {named}; save it with commas"):
        read_measurements(path)
