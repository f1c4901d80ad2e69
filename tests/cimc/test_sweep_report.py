"""Pictures of a sweep: what their lines, bars, marks and names say."""

import xml.etree.ElementTree as ElementTree
from itertools import product

import pytest

from cimc.report.figure import Figure
from cimc.report.svg import text_width
from cimc.report.sweep import front, heat_map, lines
from cimc.sweep_result import SweepResult
from cimc.sweep_results import Row
from cimc.sweep_spec import Objective

NOISE, ERROR, BITS = "cell.read_noise_uS", "cell.programming.error_sd_uS", "adc.bits"


def value_of(noise: float, error: float, bits: int, seed: int = 0) -> float:
    return 0.9 - 0.1 * noise - 0.05 * error + 0.01 * bits + 0.02 * seed


def result_of(seeds: int) -> SweepResult:
    points = product((0.5, 1.0, 1.5), (0.25, 0.5, 0.75), (1, 2, 3), range(seeds))
    rows = tuple(
        Row(
            number,
            {NOISE: noise, ERROR: error, BITS: bits},
            seed,
            {"accuracy": value_of(noise, error, bits, seed)},
            None,
            0,
        )
        for number, (noise, error, bits, seed) in enumerate(points)
    )
    return SweepResult("lenet1", (NOISE, ERROR, BITS), rows, (Objective("accuracy", True),))


def texts(figure: Figure) -> list[str]:
    drawn = ElementTree.fromstring(figure.svg)
    return [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("seeds", [1, 2])
def test_lines_are_values_of_another_field_and_bars_the_spread_over_seeds(seeds: int) -> None:
    result = result_of(seeds)
    figure = lines(result.groups, NOISE, "accuracy", result.varied).figure
    shown = {(name, noise): (mean, sd) for name, noise, mean, sd in figure.rows}
    assert shown.keys() == set(product((f"{ERROR} {error}" for error in (0.25, 0.5, 0.75)), (0.5, 1.0, 1.5)))
    mean, sd = shown[f"{ERROR} 0.75", 1.5]
    assert mean == pytest.approx(value_of(1.5, 0.75, 2) + 0.01 * (seeds - 1)), "mean over the three resolutions"
    assert sd == pytest.approx(0.0 if seeds == 1 else 0.02 / 2**0.5), "resolutions do not spread"
    bars = [part for part in figure.svg.split("<path ") if 'stroke-width="1"' in part and "var(--line)" not in part]
    assert len(bars) == (0 if seeds == 1 else 9)


def test_two_other_fields_of_few_values_get_a_line_a_combination() -> None:
    result = result_of(1)
    groups = [group for group in result.groups if group.fields[BITS] != 3]
    figure = lines(groups, NOISE, "accuracy", result.varied).figure
    assert len({row[0] for row in figure.rows}) == 6


def test_pictures_name_their_axes_and_have_shares_in_percent() -> None:
    result = result_of(1)
    drawn = lines(result.groups, NOISE, "accuracy", result.varied).figure
    assert NOISE in texts(drawn), "the field alone: its title stands over it"
    assert drawn.title not in texts(drawn)
    table = heat_map(result.groups, NOISE, ERROR, "accuracy").figure
    assert f"{100 * value_of(0.5, 0.25, 2):.2f} %" in texts(table)
    aims = (Objective("accuracy", True), Objective("accuracy", True))
    marks = texts(front(result.groups, result.groups[:1], aims).figure)
    for found in (texts(drawn), marks):
        assert [text for text in found if text.endswith(" %")]
        assert not [text for text in found if text.startswith("0.8")]


def test_names_of_fields_are_whole_below_a_heat_map() -> None:
    figure = heat_map(result_of(1).groups, NOISE, long := f"cell.{'w' * 60}", "accuracy").figure
    width = float(ElementTree.fromstring(figure.svg).attrib["width"])
    below = [text for text in texts(figure) if text.startswith(("across: ", "up: "))]
    assert below == [f"across: {NOISE}", f"up: {long}"]
    assert all(4 + text_width(text, 10) <= width for text in below)
