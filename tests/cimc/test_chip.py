"""Chip descriptions: the built-in chips hold the published figures, and an error names the key to correct."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.chip import Chip, chip_names, chip_text, load_chip, parse_chip
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


def test_published_chips_are_built_in():
    assert {"brram-soc", "brram-256x64", "ideal"} <= set(chip_names())


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
        ("levels = 4 ", "levels = 1 ", ("cell.levels", "got 1")),
        ('row_split = "channel"', 'row_split = "rows"', ("row_split", "channel")),
        ("[array]", "[array", ("not valid TOML",)),
    ],
)
def test_error_names_the_key(old, new, words):
    message = refusal(edited(old, new))
    for word in words:
        assert word in message


def test_half_an_adc_is_refused():
    assert "range_uA" in refusal(edited("range_uA = 30.0", ""))


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


def test_soc_has_the_published_figures():
    chip = load_chip("brram-soc")
    assert (chip.array.rows, chip.array.columns, chip.array.per_chip) == (64, 64, 4)
    assert chip.adc.lsb_uA == pytest.approx(0.1176, abs=5e-5)
    assert chip.adc.range_uA == 30.0
    assert chip.cost.mvm_us == pytest.approx(0.72)
    assert chip.cost.mvm_nj == pytest.approx(2.66)
    assert chip.cell.granularity == pytest.approx(1 / 3)
    volts = chip.cell.read_voltage_V
    assert chip.cell.conductance_min_uS * volts == pytest.approx(0.82)
    assert chip.cell.conductance_max_uS * volts == pytest.approx(3.29)
    assert chip.cell.programming.error_sd_uS * volts == pytest.approx(0.29)
    assert chip.cell.programming.error_sd_uS / chip.cell.window_uS == pytest.approx(0.117, abs=1e-3)
    assert chip.cell.programming.error_mean_uS * volts == pytest.approx(0.10)
    assert chip.cell.programming.trials == 2
    assert chip.cell.read_noise_uS * volts == pytest.approx(0.16)


def test_256x64_has_the_published_figures():
    chip = load_chip("brram-256x64")
    assert (chip.array.rows, chip.array.columns) == (256, 64)
    volts = chip.cell.read_voltage_V
    level = chip.cell.granularity * chip.cell.window_uS * volts
    assert chip.cell.granularity == pytest.approx(1 / 15)
    assert level == pytest.approx(0.4)
    assert chip.adc.range_uA == pytest.approx(10 * chip.cell.conductance_max_uS * volts)
    assert chip.adc.range_uA == pytest.approx(70.0)
    assert (chip.adc.bits, chip.adc.noise_lsb) == (8, 2.0)
    assert chip.cell.read_noise_uS * volts == pytest.approx(0.3 * level)
    assert chip.cell.programming.error_sd_uS * volts == pytest.approx(0.5 * level)
    assert chip.cost.mvm_us == pytest.approx(0.72)
    assert chip.cost.mvm_nj == pytest.approx(2.93)


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
    codes = random.integers(0, 2**chip.input.bits, chip.array.rows)
    codes[np.cumsum(codes * steps) > largest_product(chip)] = 0
    products = (codes * steps).astype(np.float32) * np.float32(chip.target_step_uS)
    exact = float(int(np.sum(codes * steps)) * chip.target_step_uS)
    assert exact > 0.5 * largest_product(chip) * chip.target_step_uS
    for order in (products, products[::-1], random.permutation(products)):
        assert float(np.cumsum(order, dtype=np.float32)[-1]) == exact


def test_ideal_chip_has_no_noise_and_no_levels():
    chip = load_chip("ideal")
    assert chip.cell.granularity == 0
    assert (chip.cell.read_noise_uS, chip.cell.programming.error_sd_uS, chip.adc.noise_lsb) == (0, 0, 0)
    assert chip.adc.bits is None
    assert 0 < chip.target_step_uS <= chip.cell.conductance_max_uS / 2**19
