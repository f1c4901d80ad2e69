"""Fields and values of a sweep: ranges, lists, intervals, TOML; every mistake is one line. And the Pareto front."""

import json
import sqlite3
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.api.sweep import costs_that_stay
from cimc.errors import CimcError
from cimc.pareto import pareto_front
from cimc.sweep_result import read_sweep
from cimc.sweep_results import Results, claimed
from cimc.sweep_spec import make_spec, parse_objective, parse_vary, read_toml
from cimc.sweep_values import Interval, parse_values


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("6:9", (6, 7, 8, 9)),
        ("4:16:4", (4, 8, 12, 16)),
        ("0.1:0.5:0.1", (0.1, 0.2, 0.3, 0.4, 0.5)),
        ("0:1:0.25", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("1e-3,4e-3", (0.001, 0.004)),
        ("isaac,puma", ("isaac", "puma")),
        ("true,false", (True, False)),
        ("[1.0, 2.0], 0.5", ([1.0, 2.0], 0.5)),
        ("8,8,4", (8, 4)),
        ("my chip.toml", ("my chip.toml",)),
        ("0.4:1.6", Interval(0.4, 1.6)),
        ("1e-4:1e-2:log", Interval(1e-4, 1e-2, log=True)),
        ("8:512:log", Interval(8.0, 512.0, log=True, whole=True)),
    ],
)
def test_values_are_read_as_written(written: str, values: object) -> None:
    assert repr(parse_values("x", written)) == repr(values)  # 1 is not 1.0


@given(
    low=st.integers(-500, 500), steps=st.integers(0, 40), step=st.integers(1, 60), places=st.integers(0, 4),
    beyond=st.floats(0, 0.99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_range_holds_every_step_up_to_its_end_exactly(
    low: int, steps: int, step: int, places: int, beyond: float
) -> None:
    def text(number: int) -> str:
        sign, digits = "-" * (number < 0), f"{abs(number):0{places + 1}d}"
        return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"

    high = low + steps * step + int(beyond * step)
    found = parse_values("x", f"{text(low)}:{text(high)}:{text(step)}")
    assert found == tuple(float(Fraction(low + step * index, 10**places)) for index in range(steps + 1))


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["adc.bits"], "is not FIELD=VALUES"),
        (["adc.bits="], "is not FIELD=VALUES"),
        (["adc.bits=1,,2"], "no values"),
        (["adc.bits=9:6"], "lower to its upper end, as adc.bits=6:9"),
        (["adc.bits=1:9:0"], "step above 0"),
        (["adc.bits=1:1000000"], "at most 10000 values"),
        (["train.lr=0:1:log"], "above 0"),
        (["adc.bits=6", "adc.bits=7"], "twice"),
        (["cell.read_noise_uS=0.4:1.6"], "give it a step such as 0.4:1.6:0.3"),
        (["cel.read_noise_uS=1"], "did you mean cell.read_noise_uS"),
        (["cell.read_noise_uS=1:2:1e-9999999"], "at most 10000 values"),
        (["cell.read_noise_uS=nan"], "no finite number"),
        (["cell=1"], "no field 'cell'"),
        (["layer.conv1.adc.bit=3"], "'conv1.adc.bit' is not a layer and a key"),
        (["layer.adc.bits=3"], "is not a layer and a key"),
        (["deploy.chip=3"], "did you mean deploy.chips"),
        (["seed=0.5"], "seed is 0.5"),
        (["seed=1:2:log"], "whole numbers such as seed=0:2"),
        (["adc.bits=2:40", *(f"cell.x{index}=0:99" for index in range(3))], "is the most"),
    ],
)
def test_a_wrong_field_or_value_is_told_in_one_line(vary: list[str], message: str) -> None:
    with pytest.raises(CimcError, match=message) as raised:
        make_spec(parse_vary(vary))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"random": 3, "search": 3}, "leave one of them out"),
        ({"do": "fly"}, "do is 'fly'"),
        ({"devices": "all"}, "devices is 'all'"),
        ({"objective": "accuracy"}, "is not FIGURE:max"),
        ({"objective": ["energy:min", "energy:max"]}, "twice"),
        ({"objective": ["energy:min", "energy:max"], "search": 3}, "twice"),
        ({"objective": 5}, "objective 5 is not FIGURE:max"),
        ({"objective": []}, "objective is an empty list"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 2}, "leave one of them out"),
        ({"worker": 2}, "no 'worker'"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(settings: dict[str, object], message: str) -> None:
    vary = {"adc.bits": [6, 7], **({"seed": [1]} if settings == {"seeds": 2} else {})}
    with pytest.raises(CimcError, match=message):
        make_spec(vary, **settings)


def test_a_sweep_file_gives_what_options_give(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        'seeds = 3\nobjective = ["accuracy:max", "energy:min"]\n[vary]\n"adc.bits" = "6:8"\n'
        'chip = "isaac"\n[vary.cell]\nread_noise_uS = [0.4, 0.8]\n'
    )
    found = read_toml(path)
    written = make_spec(found.pop("vary"), **found)
    typed = make_spec(
        parse_vary(["adc.bits=6:8", "chip=isaac", "cell.read_noise_uS=0.4,0.8"]),
        seeds=3,
        objective=["accuracy:max", "energy_mj:min"],
    )
    assert written == typed
    assert [point["adc.bits"] for point in written.points()] == [6, 6, 7, 7, 8, 8]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vary = 3", "vary is a table"),
        ("[vary", "not valid TOML"),
        (f"[vary{'.a' * 5000}]\nb = 1", "not valid TOML"),
        ("[fields]\na = 1", "no key 'fields'"),
    ],
)
def test_a_wrong_sweep_file_is_told_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(CimcError, match=message):
        read_toml(tmp_path / "sweep.toml")
    with pytest.raises(CimcError, match="cannot read"):
        read_toml(tmp_path / "none.toml")


def test_drawn_points_are_within_their_values_and_none_comes_twice() -> None:
    spec = make_spec({"train.lr": "1e-4:1e-1:log", "train.batch_size": "8:64:log", "adc.bits": "6:8"}, random=40)
    points = list(spec.points())
    assert points == list(spec.points())
    assert len({tuple(point.values()) for point in points}) == 40
    assert all(1e-4 <= point["train.lr"] <= 1e-1 and 8 <= point["train.batch_size"] <= 64 for point in points)
    assert sum(point["train.lr"] < 3.16e-3 for point in points) in range(10, 31)  # half of them, by the logarithm
    assert all(isinstance(point["train.batch_size"], int) and point["adc.bits"] in (6, 7, 8) for point in points)
    assert len(list(make_spec({"adc.bits": "6:8"}, random=40).points())) == 3


def test_an_objective_by_its_short_name() -> None:
    assert str(parse_objective("area:min")) == "area_mm2:min"


@given(
    points=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30), aims=st.tuples(*[st.booleans()] * 3)
)
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, ...]], aims: tuple[bool, ...]) -> None:
    def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        signed = [(a if largest else -a, b if largest else -b) for a, b, largest in zip(one, other, aims, strict=True)]
        return all(a >= b for a, b in signed) and any(a > b for a, b in signed)

    expected = [not any(beats(other, one) for other in points) for one in points]
    assert pareto_front(np.array(points), aims).tolist() == expected


def test_a_point_without_a_figure_is_not_on_the_front() -> None:
    assert pareto_front([[float("nan"), 9.0], [1.0, 1.0]], [True, True]).tolist() == [False, True]


@pytest.mark.parametrize("chosen", [{}, {"random": 60_000}, {"search": 60_000}])
def test_seeds_count_among_the_most_points(chosen: dict[str, int]) -> None:
    with pytest.raises(CimcError, match="points with its seeds; 100,000 is the most"):
        make_spec({"adc.bits": "1:9000"}, seeds=20, **chosen)


def test_one_number_is_one_value_however_it_is_written() -> None:
    assert repr(parse_values("x", "1,1.0,2.0")) == "(1, 2.0)"
    assert str(parse_values("x", "0.12345678:0.2")) == "0.12345678:0.2"


SPEC: dict[str, Any] = {"format": 1, "source": "net", "vary": {"adc.bits": [6, 7]}, "points": 1, "objectives": []}
CELLS: dict[str, Any] = {
    "number": 0,
    "key": "",
    "fields": "{}",
    "seed": 0,
    "figures": "{}",
    "error": None,
    "seconds": 1.0,
}


def test_a_folder_in_which_a_sweep_was_killed_at_its_first_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".sweep.json.x1.cimc-part").write_text("{")
    with claimed(tmp_path, SPEC):
        assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "results.sqlite", "files"}
    (tmp_path / "sweep.json").rename(tmp_path / "mine.json")
    with pytest.raises(CimcError, match="holds other files"), claimed(tmp_path, SPEC):
        pass


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        *(({name: wrong}, {}) for name, wrong in (("source", 1), ("points", "x"), ("vary", []), ("objectives", [1]))),
        ({"vary": {"adc.bits": True}}, {}),
        ({"done": 1}, {}),
        *(({}, {"fields": wrong}) for wrong in ("[]", "1", "{", "[" * 100_000, b"\xff")),
        *(({}, {"figures": f'{{"accuracy": {wrong}}}'}) for wrong in ("NaN", "1e300", "true", '"1"', "[1]", "{}")),
        ({}, {"seed": "x"}),
        ({}, {"error": b"\xff"}),
    ],
)
def test_a_damaged_folder_is_told_in_one_line(spec: dict[str, Any], cells: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(SPEC | spec))
    Results(tmp_path).close()
    with sqlite3.connect(tmp_path / "results.sqlite") as connection:
        connection.execute("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", tuple((CELLS | cells).values()))
    with pytest.raises(CimcError, match="damaged"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    ("fields", "objective", "stays"),
    [
        (["adc.bits=4:6", "array.rows=64,128"], "energy:min", ["adc.bits", "array.rows"]),
        (["adc.bits=4:6"], "accuracy:max", []),  # nobody looks at it
        (["adc.bits=4:6", "cost.adc_pj=1,2"], "energy:min", []),  # the user says what it takes
        (["layer.*.adc.bits=4:6"], "energy:min", []),  # by rule
    ],
)
def test_a_cost_that_does_not_follow_what_varies_is_told(fields: list[str], objective: str, stays: list[str]) -> None:
    """A search for the least energy over converters found the most bits as cheap as the fewest."""
    assert costs_that_stay(make_spec(parse_vary(fields), objective=objective)) == stays
