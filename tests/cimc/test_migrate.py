"""Chip texts written when levels were the update step alone: the step stays, all else of the text too."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.chip import chip_text, parse_chip
from cimc.errors import CimcError
from cimc.migrate import with_granularity

# With the window of its files of that time, whose step no decimal fraction writes.
TEXT = chip_text("cimaq-256").replace("conductance_max_uS = 15.0", "conductance_max_uS = 1.0")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("levels = 16", "granularity_uS = {}"),
        ("levels=16", "granularity_uS={}"),
        ("  levels\t =  16  # 4 bit, levels = 15 once", "  granularity_uS\t =  {}  # 4 bit, levels = 15 once"),
        ("# levels = 4\nlevels = 16", "# levels = 4\ngranularity_uS = {}"),
        ("levels = 0x10 # hex", "granularity_uS = {} # hex"),
        ("levels = +1_6", "granularity_uS = {}"),
        ('"levels" = 16', "granularity_uS = {}"),
        ("'levels' = 16", "granularity_uS = {}"),
    ],
)
def test_step_takes_the_place_of_levels_and_the_rest_of_the_text_stays(before, after):
    changed = with_granularity(TEXT.replace("levels = 16", before), "old.toml")
    assert changed == TEXT.replace("levels = 16", after.format(repr(1 / 15)))
    cell = parse_chip(changed, "old.toml").cell
    assert (cell.levels, cell.programmable_uS, cell.granularity_uS) == (None, None, 1 / 15)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('description = "one', 'description = "levels = 3; one'),
        ("[array]", "[array] # levels = 7"),
        ("levels = 16\n", 'levels = 16\n[note]\ntext = """\nlevels = 16\n"""\nlevels = 16\n'),
        ("levels = 16\n", "levels = 16\r\n"),
    ],
)
def test_only_the_key_of_the_cell_is_replaced(before, after):
    text = TEXT.replace(before, after)
    changed = with_granularity(text, "old.toml")
    wanted = tomllib.loads(text)
    del wanted["cell"]["levels"]
    wanted["cell"]["granularity_uS"] = 1 / 15
    assert tomllib.loads(changed) == wanted
    assert len(changed) == len(text) + len(f"granularity_uS = {1 / 15!r}") - len("levels = 16")


@pytest.mark.parametrize(
    "cell",
    [
        "cell = {levels = 5, conductance_min_uS = 2, conductance_max_uS = 4.0}",
        "cell.levels = 5\ncell.conductance_min_uS = 2\ncell.conductance_max_uS = 4.0",
        "[ cell ]\r\nlevels = 5\r\nconductance_min_uS = 2\r\nconductance_max_uS = 4.0",
        "[weights]\nlevels = 5\n[cell]\nconductance_min_uS = 2\nlevels = 5\nconductance_max_uS = 4.0",
    ],
)
def test_key_is_found_however_the_table_is_written(cell):
    read = tomllib.loads(with_granularity(cell, "old.toml"))
    assert read["cell"] == {"granularity_uS": 0.5, "conductance_min_uS": 2, "conductance_max_uS": 4.0}
    assert read.get("weights", {"levels": 5}) == {"levels": 5}


@given(
    levels=st.integers(2, 1 << 16),
    low=st.floats(0, 100),
    window=st.floats(0.01, 1000),
)
def test_updates_stay_due_at_the_step_of_one_level(levels, low, window):
    text = (
        TEXT.replace("levels = 16", f"levels = {levels}")
        .replace("conductance_min_uS = 0.0", f"conductance_min_uS = {low!r}")
        .replace("conductance_max_uS = 1.0", f"conductance_max_uS = {low + window!r}")
    )
    cell = parse_chip(with_granularity(text, "old.toml"), "old.toml").cell
    assert cell.programmable_uS is None
    assert cell.granularity_origin == "stated"
    assert cell.granularity == pytest.approx(1 / (levels - 1), rel=1e-15)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("levels = 16", ""),
        ("levels = 16", "granularity_uS = 0.5"),
        ("levels = 16", "levels = 16\ngranularity_uS = 0.5"),
        ("levels = 16", "levels = 16\nlimits_uS = [0.0, 1.0]"),
        ("levels = 16", "levels = 1"),
        ("levels = 16", "levels = 16.0"),
        ("levels = 16", "levels = [16]"),
        ("levels = 16", "levels = "),
        ("levels = 16", "levels = 16\nlevels = 16"),
        ("conductance_max_uS = 1.0", "conductance_max_uS = 0.0"),
        ("conductance_max_uS = 1.0", "conductance_max_uS = inf"),
        ("conductance_max_uS = 1.0", "conductance_max_uS = 1" + 400 * "0"),
        ("conductance_max_uS = 1.0", "conductance_max_uS = 'x'"),
        ("conductance_max_uS = 1.0", ""),
    ],
)
def test_text_without_old_levels_or_not_valid_stays_as_it_is(before, after):
    text = TEXT.replace(before, after)
    assert text != TEXT
    assert with_granularity(text, "old.toml") == text


def test_text_that_is_no_chip_stays_as_it_is():
    for text in ("", "cell = 3", "cell = [{levels = 3}]", "[cell"):
        assert with_granularity(text, "old.toml") == text


@pytest.mark.parametrize("name", [r'"le\u0076els" = 16', "#" + 30 * " levels = 4" + "\nlevels = 16"])
def test_key_that_cannot_be_replaced_is_refused_in_one_line(name):
    with pytest.raises(CimcError, match=r"in a\.cim: cell\.levels is of an earlier version") as caught:
        with_granularity(TEXT.replace("levels = 16", name), "in a.cim")
    assert "\n" not in str(caught.value)
    assert f"granularity_uS = {1 / 15!r}" in str(caught.value)
