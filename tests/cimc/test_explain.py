"""What follows from a chip description: all built-in chips explain themselves, with figures that a simulation gives."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from cimc.api.explain import explain
from cimc.chip import Cell, Chip, chip_names, load_chip
from cimc.commands.explain_table import show_explanations
from cimc.units import levels_per_product
from tests.reference import conversion, pair_target


def chip_with(name: str = "brram-256x64", **changes: Any) -> Chip:
    chip = load_chip(name)
    cell = Cell.model_validate({**chip.cell.model_dump(), "granularity_uS": None} | changes)
    return chip.model_copy(update={"cell": cell})


@cache
def explained(name: str) -> dict[str, Any]:
    """The figures of a built-in chip, which many tests look at."""
    return explain(load_chip(name))


@pytest.mark.parametrize("name", chip_names())
def test_every_built_in_chip_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    chip = load_chip(name)
    figures = json.loads(json.dumps(explained(name), allow_nan=False))
    assert figures["updates"]["granularity_uS"] == pytest.approx(chip.cell.granularity * chip.cell.window_uS)
    for state in figures["programming"]["states"]:
        assert state["mean_uS"] == pytest.approx(state["stated_mean_uS"], abs=1e-3 * chip.cell.window_uS)
        assert state["sd_uS"] == pytest.approx(state["stated_sd_uS"], rel=1e-3)
    assert figures["mvm"]["energy_nj"] >= 0
    assert (figures["converters"]["clipped_conversions"] is None) == (chip.adc.range_uA is None)
    show_explanations({name: explained(name)})
    shown = capsys.readouterr().out
    for words in (name, "one trial", "granularity", "threshold", "ADC LSB", "energy", "time"):
        assert words in shown
    assert ("not simulated" in shown) == (chip.not_simulated is not None)


def test_of_few_levels_the_states_are_the_levels() -> None:
    for levels, targets in ((2, [10, 70]), (3, [10, 40, 70]), (16, [10, 25, 40, 55, 70])):
        states = explain(chip_with(levels=levels))["programming"]["states"]
        assert [state["target_uS"] for state in states] == pytest.approx(targets)


def test_a_solved_error_of_a_trial_is_shown_with_its_tails() -> None:
    """Five trials within 2.5 uS that leave an sd of 2.5 uS: single trials of 5.28 uS, and a heavy tail."""
    chip = chip_with(programming={"error_sd_uS": 2.5, "trials": 5, "tolerance_uS": 2.5})
    figures = explain(chip)["programming"]
    assert figures["trial_error_sd_uS"] == pytest.approx(5.28, abs=0.005)
    state = figures["states"][2]
    # The same by plain simulation of the trials.
    random = np.random.default_rng(0)
    error = np.zeros(1_000_000)
    pending, taken = np.ones(error.shape, bool), 0
    for trial in range(5):
        error[pending] = random.normal(0, figures["trial_error_sd_uS"], pending.sum())
        taken += pending.sum()
        pending = np.abs(error) > 2.5
        if trial == 0:
            assert state["accepted_first"] == pytest.approx(1 - pending.mean(), abs=0.002)
    deviation = (error - error.mean()) / error.std()
    assert error.std() == pytest.approx(2.5, rel=0.005)
    assert state["beyond_3_sd"] == pytest.approx((np.abs(deviation) > 3).mean(), abs=0.001)
    assert state["beyond_3_sd"] == pytest.approx(0.025, abs=0.001)
    assert state["excess_kurtosis"] == pytest.approx(np.mean(deviation**4) - 3, abs=0.15)
    assert state["excess_kurtosis"] == pytest.approx(6.9, abs=0.1)
    assert state["trials"] == pytest.approx(taken / error.size, abs=0.005)


def test_limits_show_the_mean_and_sd_that_result() -> None:
    """A Gaussian cut in half at its mean: mean sd / sqrt(2 pi), sd sqrt(1/2 - 1 / (2 pi)) sd."""
    idle = explain(chip_with(limits_uS=[10.0, 90.0]))["programming"]["states"][0]
    assert (idle["stated_mean_uS"], idle["stated_sd_uS"]) == (0.0, 2.0)
    assert idle["mean_uS"] == pytest.approx(2 / np.sqrt(2 * np.pi), rel=1e-3)
    assert idle["sd_uS"] == pytest.approx(2 * np.sqrt(0.5 - 1 / (2 * np.pi)), rel=1e-3)
    assert idle["beyond_window"] == 0


def test_the_share_beyond_the_window_is_that_of_written_pairs() -> None:
    chip = load_chip("hermes")
    random = np.random.default_rng(1)
    weights = random.normal(0, 1 / 3, 20_000).tolist()
    targets = np.array([pair_target(weight, 1.0, chip) for weight in weights])
    written = targets + random.normal(0, 1, targets.shape) * chip.cell.error_sd_uS(targets)
    beyond = ((written < 0) | (written > 20.7)).mean()
    assert explained(chip.name)["programming"]["beyond_window"] == pytest.approx(beyond, abs=0.01)


@pytest.mark.parametrize("name", ["brram-soc", "brram-256x64", "hermes"])
def test_the_share_of_clipped_conversions_is_that_of_the_reference(name: str) -> None:
    chip = load_chip(name)
    top = 2**chip.adc.bits - 1 if chip.adc.bits else 0
    random = np.random.default_rng(5)
    clipped = []
    for _ in range(300):
        codes = np.round(random.uniform(0, 255, chip.array.rows)) * (random.uniform(size=chip.array.rows) < 0.5)
        plus = np.array([pair_target(w, 1.0, chip)[0] for w in random.normal(0, 1 / 3, chip.array.rows).tolist()])
        current = float(codes @ plus) * levels_per_product(chip, False) * chip.adc.lsb_uA
        clipped.append(round(current / chip.adc.lsb_uA) > top == conversion(current, chip, None)[0])
    spread = np.sqrt(0.25 / len(clipped))
    assert explained(name)["converters"]["clipped_conversions"] == pytest.approx(np.mean(clipped), abs=4 * spread)


def test_converters_of_the_simulated_reference_chip() -> None:
    """ADC of 70 uA for cells of 7 uA at 0.1 V: ten of them, and 256 idle ones of 1 uA; an LSB of 70/255 uA."""
    figures = explained("brram-256x64")["converters"]
    assert figures["dac_step_of_input_range"] == pytest.approx(1 / 255)
    assert figures["adc_lsb_uA"] == pytest.approx(70 / 255)
    assert figures["adc_lsb_uS"] == pytest.approx(700 / 255)
    assert figures["fully_on_cells_in_adc_range"] == pytest.approx(10 * 256 / 255)
    assert figures["idle_column_of_adc_range"] == pytest.approx(256 / 70 * 255 / 256)


def test_a_range_that_is_left_out_is_shown_with_its_rule() -> None:
    """isaac: 255 codes of one state of 1/3 uS at 1 V, or 85 cells fully on. 256 cells of 70 uS at 0.1 V x 255/256."""
    counted = explained("isaac")["converters"]
    assert counted["adc_range_origin"] == "one code for one state"
    assert (counted["adc_range_uA"], counted["fully_on_cells_in_adc_range"]) == pytest.approx((85, 85))
    chip = load_chip("brram-256x64")
    reached = explain(chip.model_copy(update={"adc": chip.adc.model_copy(update={"range_uA": None})}))["converters"]
    assert reached["adc_range_origin"] == "the largest current of a full array"
    assert (reached["adc_range_uA"], reached["fully_on_cells_in_adc_range"]) == pytest.approx(
        (256 * 7 * 255 / 256, 256)
    )
    assert explained("brram-256x64")["converters"]["adc_range_origin"] == "stated"


def test_energy_by_part_adds_up_to_that_of_the_published_tile() -> None:
    """ISAAC, an array of 129 columns at work: 2 + 0.5 + 0.3 + 0.025 mW for 1.6 us (its Table I, by 8 arrays)."""
    figures = explained("isaac")["mvm"]
    parts = [figures[key] for key in ("adc_nj", "shift_add_nj", "dac_nj", "array_nj")]
    assert figures["energy_nj"] == pytest.approx(sum(parts))
    assert parts == pytest.approx([2 * 1.6, 0.025 * 1.6, 0.5 * 1.6, 0.3 * 1.6], rel=0.01)
    whole = explained("brram-soc")["mvm"]
    assert (whole["energy_nj"], whole["adc_nj"], whole["time_us"]) == (2.66, None, 0.72)


def test_updates_say_where_their_step_comes_from() -> None:
    cases = {"hermes": "largest sd", "brram-soc": "stated", "isaac": "one level", "ideal": "of the window"}
    levels = []
    for name, origin in cases.items():
        figures = explained(name)["updates"]
        assert origin in figures["granularity_origin"]
        assert figures["threshold_of_weight_range"] == load_chip(name).weight_granularity
        levels.append(figures["levels"])
    assert levels == [None, None, 4, None]


def test_of_a_write_by_pulses_and_reads_the_loop_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps of exactly a quarter of the window, perfect reads: the figures are those of the staircase."""
    chip = chip_with(
        pulse={"step_uS": 15.0},
        read_noise_uS=0.0,
        programming={"tolerance_uS": 2.0, "train": {"pulses": 9, "reads": 2}},
    )
    figures = explain(chip)
    assert [state["pulses"] for state in figures["write_loop"]] == [0, 1, 2, 3, 4]
    assert [state["reads"] for state in figures["write_loop"]] == [2, 4, 6, 8, 10]
    assert all(state["mean_uS"] == state["sd_uS"] == 0 for state in figures["write_loop"])
    assert all(state["within_tolerance"] == 1 for state in figures["write_loop"])
    show_explanations({chip.name: figures})
    assert "pulses and reads" in capsys.readouterr().out
    assert explain(chip_with())["write_loop"] is None
