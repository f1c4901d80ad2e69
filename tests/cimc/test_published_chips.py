"""Built-in chips hold the published figures."""

from typing import Any

import numpy as np
import pytest

from cimc.chip import chip_names, load_chip


def test_published_chips_are_built_in():
    assert {"brram-soc", "brram-256x64", "ideal"} <= set(chip_names())


def test_soc_has_the_published_figures():
    chip = load_chip("brram-soc")
    assert (chip.array.rows, chip.array.columns, chip.array.per_chip) == (64, 64, 4)
    assert chip.adc.lsb_uA == pytest.approx(0.1176, abs=5e-5)
    assert chip.adc.range_uA == 30.0
    assert chip.cost.mvm_us == pytest.approx(0.72)
    assert chip.cost.mvm_nj == pytest.approx(2.66)
    assert chip.cell.granularity == pytest.approx(1 / 3)
    volts = chip.cell.read_voltage_V
    programming: Any = chip.cell.programming  # one figure for all conductances
    assert chip.cell.conductance_min_uS * volts == pytest.approx(0.82)
    assert chip.cell.conductance_max_uS * volts == pytest.approx(3.29)
    assert programming.error_sd_uS * volts == pytest.approx(0.29)
    assert programming.error_sd_uS / chip.cell.window_uS == pytest.approx(0.117, abs=1e-3)
    assert programming.error_mean_uS * volts == pytest.approx(0.10)
    assert chip.cell.programming.trials == 2
    assert chip.cell.read_noise_uS * volts == pytest.approx(0.16)


def test_256x64_has_the_published_figures():
    chip = load_chip("brram-256x64")
    assert (chip.array.rows, chip.array.columns) == (256, 64)
    volts = chip.cell.read_voltage_V
    programming: Any = chip.cell.programming  # one figure for all conductances
    level = chip.cell.granularity * chip.cell.window_uS * volts
    assert chip.cell.granularity == pytest.approx(1 / 15)
    assert level == pytest.approx(0.4)
    assert chip.adc.range_uA == pytest.approx(10 * chip.cell.conductance_max_uS * volts)
    assert chip.adc.range_uA == pytest.approx(70.0)
    assert (chip.adc.bits, chip.adc.noise_lsb) == (8, 2.0)
    assert chip.cell.read_noise_uS * volts == pytest.approx(0.3 * level)
    assert programming.error_sd_uS * volts == pytest.approx(0.5 * level)
    assert chip.cost.mvm_us == pytest.approx(0.72)
    assert chip.cost.mvm_nj == pytest.approx(2.93)


@pytest.mark.parametrize(
    ("name", "states", "sds"),
    [
        # x = g / G_max, and the published polynomial worked out by hand
        ("hermes", (0.0, 0.5, 1.0), (0.16603, 0.99101, 1.09269)),
        ("neurram", (0.25, 0.5, 1.0), (2.25827, 2.02294, 1.10300)),
    ],
)
def test_the_error_follows_the_published_polynomial(name, states, sds):
    cell = load_chip(name).cell
    for x, sd in zip(states, sds, strict=True):
        assert cell.error_sd_uS(x * cell.conductance_max_uS) == pytest.approx(sd, abs=1e-5)
    array = cell.error_sd_uS(np.array(states) * cell.conductance_max_uS)
    np.testing.assert_allclose(array, sds, atol=1e-5)


def test_ideal_chip_has_no_noise_and_no_levels():
    chip = load_chip("ideal")
    assert chip.cell.programmable_uS is None
    assert (chip.cell.read_noise_uS, chip.cell.programming.error_sd_uS, chip.adc.noise_lsb) == (0, 0, 0)
    assert chip.adc.bits is None
    assert 0 < chip.target_step_uS <= chip.cell.conductance_max_uS / 2**19


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        # arrays on a chip, rows and columns of weights an array takes, columns, devices and physical arrays of a weight
        ("isaac", (16128, 128, 16, 8, 8, 1)),
        ("puma", (2208, 128, 128, 1, 8, 8)),
        ("hermes", (64, 256, 256, 2, 2, 1)),
        ("neurram", (48, 128, 256, 1, 2, 1)),
        ("pimcomp-a", (9216, 128, 128, 1, 8, 8)),
        ("pimcomp-a-800", (9216, 128, 128, 1, 8, 8)),
        ("aimc-128", (1, 128, 128, 8, 8, 1)),
        ("cimaq-256", (1, 256, 64, 4, 4, 1)),
        ("packing-256", (1024, 256, 256, 1, 1, 1)),
    ],
)
def test_published_geometry(name, figures):
    chip = load_chip(name)
    assert figures == (
        chip.arrays_per_chip,
        chip.weight_rows,
        chip.weight_columns,
        chip.columns_per_weight,
        chip.devices_per_weight,
        chip.physical_per_array,
    )


def test_isaac_adds_up_to_its_tile():
    """Table I: a tile has 0.372 mm2; an IMA's arrays with their converters take 16 + 4 + 2.4 + 0.2 mW at work."""
    chip = load_chip("isaac")
    assert chip.area is not None
    mm2 = chip.area.model_dump()
    array = mm2["array_mm2"] + mm2["adc_mm2"] + 128 * mm2["dac_mm2"] + mm2["shift_add_mm2"]
    assert 96 * array + mm2["core_mm2"] == pytest.approx(0.372, rel=0.01)
    cost: Any = chip.cost  # it states all figures
    conversions = 128 * chip.input.conversions
    mvm_pj = conversions * (cost.adc_pj + cost.shift_add_pj) + 128 * cost.dac_pj + cost.array_pj
    assert mvm_pj / (cost.mvm_us * 1e3) == pytest.approx((16 + 4 + 2.4 + 0.2) / 8, rel=0.01)


def test_an_mvm_of_puma_takes_its_power():
    """19.09 mW an MVM unit for 2,304 ns: 43.97 nJ."""
    chip = load_chip("puma")
    cost: Any = chip.cost  # it states all figures
    array_pj = 128 * chip.input.conversions * (cost.adc_pj + cost.shift_add_pj) + 128 * cost.dac_pj + cost.array_pj
    assert chip.physical_per_array * array_pj * 1e-3 == pytest.approx(43.97, rel=0.01)


def test_hermes_and_neurram_have_their_published_peaks():
    hermes: Any = load_chip("hermes")
    neurram: Any = load_chip("neurram")
    # HERMES, four phases: 16.1 TOPS and 52.8 nJ a core.
    assert 64 * 2 * 256 * 256 / (2 * hermes.cost.mvm_us * 1e6) == pytest.approx(16.1, rel=1e-3)
    assert 2 * hermes.cost.mvm_nj == pytest.approx(52.8)
    # NeuRRAM, 6-bit outputs and 4-bit inputs: 0.744 TOPS, 15.95 TOPS/W.
    assert 48 * 2 * 128 * 256 / (neurram.cost.mvm_us * 1e6) == pytest.approx(0.744, rel=1e-3)
    assert 2 * 128 * 256 / (neurram.cost.mvm_nj * 1e3) == pytest.approx(15.95, rel=1e-3)


def test_peers_constants():
    slow, fast = load_chip("pimcomp-a"), load_chip("pimcomp-a-800")
    assert (slow.cost.mvm_us, fast.cost.mvm_us) == (4.0, 0.8)
    assert slow.cores == fast.cores
    assert (slow.cores.count, slow.cores.mvm_start_ns, slow.cores.vector_bytes_per_ns) == (144, 200.0, 6.4)
    cimaq: Any = load_chip("cimaq-256")
    assert 256 * cimaq.cost.row_write_us == pytest.approx(56)
    assert cimaq.cost.mvm_us == pytest.approx(8 * 1.4)
    aimc = load_chip("aimc-128")
    assert aimc.area is not None
    mm2 = aimc.area.model_dump()
    area = 1024 * (mm2["adc_mm2"] + mm2["shift_add_mm2"]) + mm2["array_mm2"]
    assert area == pytest.approx(2.2878, abs=1e-4)


def test_every_chip_that_comes_with_the_tool_is_simulated():
    assert [name for name in chip_names() if load_chip(name).not_simulated is not None] == []
