"""Chip descriptions: how they are read, and an error names the key to correct."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.chip import Cell, Chip, chip_names, chip_text, load_chip, parse_chip
from cimc.errors import CimcError

TEXT = chip_text("brram-soc")


def refusal(text: str) -> str:
    """The one line with which a description is refused."""
    with pytest.raises(CimcError) as caught:
        parse_chip(text, "my.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert "my.toml" in message
    return message


def edited(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, f"{old!r} is not in the description once"
    return TEXT.replace(old, new)


@pytest.mark.parametrize("name", chip_names())
def test_built_in_chip_loads_under_its_own_name(name):
    assert load_chip(name).name == name


def test_chip_is_the_same_by_name_and_by_path(tmp_path):
    path = tmp_path / "copy.toml"
    path.write_text(TEXT, encoding="utf-8")
    assert load_chip(str(path)) == load_chip("brram-soc")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("range_uA", "range_mA", ("adc.range_mA", "wrong unit", "range_uA")),
        ("mvm_us", "mvm_ns", ("cost.mvm_ns", "wrong unit", "mvm_us")),
        ("read_voltage_V", "read_voltage_mV", ("cell.read_voltage_mV", "wrong unit", "read_voltage_V")),
        ("error_sd_uS", "error_sd_uA", ("cell.programming.error_sd_uA", "wrong unit", "error_sd_uS")),
        ("columns_per_adc", "columns_per_adcs", ("unknown key", "array.columns_per_adcs", "did you mean")),
        ("[cost]", "[costs]", ("unknown key", "costs", "did you mean cost")),
        ("per_chip = 4 ", "", ("array.per_chip", "missing")),
        ("rows = 64 ", "rows = 0 ", ("array.rows", "greater than 0", "got 0")),
        ("rows = 64 ", "rows = 64.5 ", ("array.rows", "64.5")),
        ("rows = 64 ", "rows = '64' ", ("array.rows", "'64'")),
        ("range_uA = 30.0", "range_uA = nan", ("adc.range_uA", "nan")),
        ("mvm_nj = 2.66", "mvm_nj = inf", ("cost.mvm_nj", "inf")),
        ("read_noise_uS = 1.6", "read_noise_uS = -1.6", ("cell.read_noise_uS", "-1.6")),
        ("conductance_max_uS = 32.9", "conductance_max_uS = 8.0", ("conductance_max_uS", "above")),
        ("granularity_uS = 8.2333333", "levels = 1", ("cell.levels", "got 1")),
        ("granularity_uS = 8.2333333", "granularity_uS = 0.0", ("cell.granularity_uS", "greater than 0")),
        ("granularity_uS = 8.2333333", "granularity_uS = 30.0", ("granularity_uS 30", "window of 24.7")),
        ("granularity_uS = 8.2333333", "levels = 4\nlevel_uS = [8.2, 32.9]", ("levels and level_uS exclude",)),
        ("granularity_uS = 8.2333333", "level_uS = [8.2, 20.0, 15.0]", ("ascending", "20.0, 15.0")),
        ("granularity_uS = 8.2333333", "level_uS = [8.2]", ("at least two",)),
        ("granularity_uS = 8.2333333", "level_uS = [9.0, 20.0]", ("begin at G_min, 8.2 uS", "from 9")),
        ("granularity_uS = 8.2333333", "level_uS = [8.2, 40.0]", ("end at or below G_max, 32.9 uS", "to 40")),
        ("granularity_uS = 8.2333333", "level_uS = ['a', 40.0]", ("cell.level_uS.0", "'a'")),
        ("granularity_uS = 8.2333333", "limits_uS = [9.0, 40.0]", ("limits_uS", "8.2 to 32.9", "[9.0, 40.0]")),
        ("granularity_uS = 8.2333333", "limits_uS = [5.0]", ("limits_uS", "[low, high]")),
        ("error_sd_uS = 2.9", "error_sd_uS = -2.9", ("cell.programming.error_sd_uS", "not negative", "-2.9")),
        ("error_sd_uS = 2.9", "error_sd_uS = []", ("cell.programming.error_sd_uS", "list of coefficients")),
        ("error_sd_uS = 2.9", "error_sd_uS = [1.0, true]", ("cell.programming.error_sd_uS", "finite number")),
        ("error_mean_uS = 1.0", "error_mean_uS = 'x'", ("cell.programming.error_mean_uS", "finite number")),
        ("error_sd_uS = 2.9", "error_sd_uS = [1.0, 2.0]", ("polynomial needs trials = 1",)),
        ("error_mean_uS = 1.0", "error_mean_uS = [1.0, 2.0]", ("polynomial needs trials = 1",)),
        ('row_split = "channel"', 'row_split = "rows"', ("row_split", "channel")),
        ("[array]", "[array", ("not valid TOML",)),
    ],
)
def test_error_names_the_key(old, new, words):
    message = refusal(edited(old, new))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("bits = 8\nrange_uA = 30.0", "range_uA = 30.0", "a range needs bits"),
        ("range_uA = 30.0", 'sense = "voltage"', 'sense = "voltage" needs bits and range_mV'),
        ("range_uA = 30.0", "range_uA = 30.0\nrange_mV = 3.0", 'range_mV needs sense = "voltage"'),
        ("[input]", '[weights]\nscheme = "single"\n\n[input]', "needs bits and bits_per_cell"),
        ("[input]", "[weights]\nbits = 1\nbits_per_cell = 1\n\n[input]", "bits is at least 2"),
    ],
)
def test_half_an_adc_or_half_a_weight_is_refused(old, new, words):
    assert words in refusal(edited(old, new))


def test_an_adc_without_a_range_reaches_to_the_largest_current_of_a_full_array():
    chip = parse_chip(edited("range_uA = 30.0", ""), "test")
    cell, top = chip.cell, 255
    assert chip.lsb_uS(False) * top == pytest.approx(chip.array.rows * cell.conductance_max_uS * top)


def test_an_adc_without_a_range_counts_states_of_bit_serial_reads():
    chip = load_chip("isaac")
    assert chip.lsb_uS(False) == pytest.approx(1 / 3)  # of four states from 0 to 1 uS
    assert (chip.top_input(False), chip.top_input(True), chip.top_code(True)) == (2**16 - 1, 2**15 - 1, 255)


def test_adc_behind_an_ideal_input_is_refused():
    start, stop = TEXT.index("[input]"), TEXT.index("[adc]")
    assert "input converter" in refusal(TEXT[:start] + TEXT[stop:])


def test_trials_without_a_tolerance_are_refused():
    assert "tolerance_uS" in refusal(edited("tolerance_uS = 4.1", ""))


def test_unknown_name_lists_the_chips_and_the_closest():
    with pytest.raises(CimcError, match=r"unknown chip 'brram-sok'.*brram-256x64.*did you mean brram-soc\?"):
        chip_text("brram-sok")


@pytest.mark.parametrize("content", [None, b"name = '\xff'"])
def test_chip_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "chip.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CimcError, match=r"cannot read chip file .*chip\.toml"):
        chip_text(str(path))


def largest_product(chip: Chip) -> float:
    """The largest sum of DAC integers times conductance that the ADC resolves, in target steps."""
    assert chip.adc.range_uA is not None
    assert chip.input.bits is not None
    return chip.adc.range_uA / chip.cell.read_voltage_V * 2**chip.input.bits / chip.target_step_uS


@pytest.mark.parametrize("name", ["brram-soc", "brram-256x64"])
def test_target_step_is_exact_in_float32_and_too_fine_to_matter(name):
    chip = load_chip(name)
    assert largest_product(chip) <= 2**24
    assert math.frexp(chip.target_step_uS)[0] == 0.5  # a power of two
    assert chip.target_step_uS < chip.cell.read_noise_uS / 50


@given(
    range_uA=st.floats(1e-3, 1e5),
    volts=st.floats(1e-3, 10),
    bits=st.integers(1, 16),
)
def test_target_step_keeps_products_below_the_adc_range_in_24_bits(range_uA, volts, bits):
    base = load_chip("brram-soc")
    chip = base.model_copy(
        update={
            "adc": base.adc.model_copy(update={"range_uA": range_uA}),
            "cell": base.cell.model_copy(update={"read_voltage_V": volts}),
            "input": base.input.model_copy(update={"bits": bits}),
        }
    )
    assert 2**22 < largest_product(chip) <= 2**24 * (1 + 1e-12)


@pytest.mark.parametrize("name", ["brram-soc", "brram-256x64"])
def test_sums_below_the_adc_range_are_the_same_in_any_order(name):
    chip = load_chip(name)
    random = np.random.default_rng(0)
    steps = random.integers(
        math.ceil(chip.cell.conductance_min_uS / chip.target_step_uS),
        math.floor(chip.cell.conductance_max_uS / chip.target_step_uS),
        chip.array.rows,
    )
    assert chip.input.bits is not None
    codes = random.integers(0, 2**chip.input.bits, chip.array.rows)
    codes[np.cumsum(codes * steps) > largest_product(chip)] = 0
    products = (codes * steps).astype(np.float32) * np.float32(chip.target_step_uS)
    exact = float(int(np.sum(codes * steps)) * chip.target_step_uS)
    assert exact > 0.5 * largest_product(chip) * chip.target_step_uS
    for order in (products, products[::-1], random.permutation(products)):
        assert float(np.cumsum(order, dtype=np.float32)[-1]) == exact


def cell_of(**changes: object) -> Cell:
    """The cell of brram-256x64 without its stated granularity, checked again after the changes."""
    return Cell.model_validate({**load_chip("brram-256x64").cell.model_dump(), "granularity_uS": None} | changes)


@pytest.mark.parametrize(
    ("changes", "granularity", "origin"),
    [
        ({"granularity_uS": 6.0, "levels": 4}, 0.1, "stated"),
        ({"levels": 4}, 1 / 3, "one level"),
        ({"level_uS": [10.0, 22.0, 25.0, 70.0]}, 3 / 60, "smallest level"),
        ({}, 2 * 2 / 60, "2 x the largest sd"),
        ({"programming": {"error_sd_uS": [0.0, 1.0, 2.0]}}, 2 * 3 / 60, "2 x the largest sd"),
        ({"programming": {"error_sd_uS": 0.01}}, 1e-3, "of the window"),
        ({"programming": {}}, 1e-3, "of the window"),
    ],
)
def test_an_update_is_due_at_the_stated_step_or_a_level_or_two_errors(changes, granularity, origin):
    cell = cell_of(**changes)
    assert cell.granularity == pytest.approx(granularity)
    assert origin in cell.granularity_origin


def test_no_built_in_chip_has_updates_due_at_every_step():
    for name in chip_names():
        cell = load_chip(name).cell
        assert 1e-3 <= cell.granularity <= 1, name
        assert cell.granularity * cell.window_uS >= cell.largest_error_sd_uS, name


def test_the_reference_chips_take_any_target_and_keep_their_step():
    for name, levels in (("brram-soc", 4), ("brram-256x64", 16)):
        cell = load_chip(name).cell
        assert cell.programmable_uS is None
        assert cell.granularity == pytest.approx(1 / (levels - 1))


def test_an_sd_that_is_negative_somewhere_in_the_window_is_refused_with_the_place():
    """4 (x - 1/2)^2 - 0.01 with G_max = 70: negative around 35 uS only, between all round states."""
    text = chip_text("brram-256x64").replace("error_sd_uS = 2.0", "error_sd_uS = [0.99, -4.0, 4.0]")
    message = refusal(text)
    assert "programming.error_sd_uS is negative" in message
    assert "-0.01 uS at 35 uS" in message
    # Beyond the window it may be: 1 - x / 1.2 turns negative at 84 uS.
    assert cell_of(programming={"error_sd_uS": [1.0, -1 / 1.2]}).largest_error_sd_uS == pytest.approx(1 - 10 / 84)


def test_codes_beyond_what_float32_counts_are_named():
    chip = load_chip("isaac")
    wide = (
        {"input": chip.input.model_copy(update={"bits": 24})},
        {"weights": chip.weights.model_copy(update={"bits": 24})},
    )
    for update in wide:
        assert "more than 23 bits" in (chip.model_copy(update=update).not_simulated or "")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mvm_nj = 2.66", "", ("mvm_nj is missing",)),
        ("mvm_nj = 2.66", "mvm_nj = 2.66\nadc_pj = 1.0", ("exclude each other",)),
        ("[input]", '[weights]\nscheme = "offset"\nbits = 8\n\n[input]', ("bits and bits_per_cell",)),
        ("[input]", "[weights]\noffset_columns = 1\n\n[input]", ("offset_columns needs",)),
        ("[input]", "[cores]\ncount = 4\n\n[input]", ("must hold all cores",)),
        ("[input]", "[weights]\nbits = 128\nbits_per_cell = 1\n\n[input]", ("weights.bits", "got 128")),
        ("[input]", "[weights]\nbits = 64\nbits_per_cell = 1\n\n[input]", ("hold no weight",)),
    ],
)
def test_error_in_the_keys_of_the_mapper(old, new, words):
    message = refusal(edited(old, new))
    for word in words:
        assert word in message


def test_slices_that_no_chip_can_hold_are_refused() -> None:
    chip = load_chip("isaac").model_dump()
    chip["array"]["per_chip"] = 1
    chip["weights"] |= {"slices_in": "arrays"}
    with pytest.raises(ValueError, match=r"the slices of a weight take \d+ arrays but array\.per_chip is 1"):
        Chip.model_validate(chip)


@pytest.mark.parametrize(
    ("chip", "settings", "words"),
    [
        ("isaac", {"input": {"bits_per_cycle": 17}}, "input: bits_per_cycle 17 is more than bits 16"),
        (
            "pimcomp-a",
            {"cores": {"link_bytes_per_ns": 1.0}},
            "cores: bus_bytes_per_ns is of one bus in place of the links",
        ),
        (
            "isaac",
            {"cell": {"levels": 5}},
            "bits_per_cell takes 4 states .* none of the cell's 5 levels is at 0.3333 uS",
        ),
        ("isaac", {"cell": {"levels": 2}}, "none of the cell's 2 levels"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(chip: str, settings: dict, words: str) -> None:
    with pytest.raises(CimcError, match=words):
        load_chip(chip, settings=settings)


@pytest.mark.parametrize("levels", [4, 7, 10, 16, 256])
def test_a_cell_with_the_states_of_a_bit_slice_among_its_levels_takes_it(levels: int) -> None:
    assert load_chip("isaac", settings={"cell": {"levels": levels}}).cell.levels == levels
    cell = load_chip("isaac").cell
    listed = [cell.conductance_min_uS + cell.window_uS * share for share in (0, 1 / 3, 0.4, 2 / 3, 1)]
    other = cell.model_copy(update={"levels": None, "level_uS": tuple(listed)})
    other.require_states(4)
    with pytest.raises(ValueError, match="takes 16 states"):
        other.require_states(16)
