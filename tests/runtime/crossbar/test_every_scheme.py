"""The read of every chip that a file can state against the plain model, sum by sum; with noise its mean and its sd."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cimc.chip import Chip
from cimc.units import count_scale, device_targets, reference_target
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.product import apply_inputs, read
from runtime.crossbar.xla import jit
from tests import reference
from tests import reference_schemes as schemes
from tests.chips import ROWS, Case, case_of, chip_of, chips

jitted_read = jit(read)
COLUMNS = 2  # of an array, so that three columns lie in two, each with a reference column of its own


def block(chip: Chip, signed: bool) -> Crossbar:
    return Crossbar(chip, ROWS, COLUMNS, signed)


def held(case: Case, random: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Conductances [devices, rows, columns] and those of reference columns [rows, arrays], with errors of writes."""
    chip = case.chip
    g = np.asarray(device_targets(case.weight, np.float32(case.weight_range), chip))
    column = np.full((len(case.weight), 2), schemes.reference_target(chip))
    return tuple((x + random.uniform(0, 1, x.shape)).astype(np.float32) for x in (g, column))  # type: ignore[return-value]


def expected_sums(
    case: Case, u: npt.NDArray[np.float64], g: npt.ArrayLike, column: npt.NDArray[np.float32]
) -> reference.Sums:
    """Of the columns of each array with its own reference column [columns, images]."""
    g = np.asarray(g)
    parts = [
        reference.sums(
            case.chip,
            u,
            g[..., start : start + COLUMNS],
            [(start_row, min(start_row + ROWS, len(u))) for start_row in range(0, len(u), ROWS)],
            case.signed,
            None,
            reference_column=column[:, start // COLUMNS],
        )
        for start in range(0, g.shape[2], COLUMNS)
    ]
    return reference.Sums(*(np.concatenate(each)[..., 0] for each in zip(*parts, strict=True)))


def rounding(case: Case, u: npt.NDArray[np.float64], g: npt.ArrayLike) -> float:
    """How far a d may be off: float32 of all that is added to or subtracted from it, and of a reference column the grid
    of targets on which its cells lie.
    """
    chip, signed = case.chip, case.signed
    per_uS = schemes.signal_per_product(chip, signed) / schemes.lsb(chip, signed)
    times = schemes.subtracted(chip).reference_codes
    counts = sum(abs(c.counts) for c in schemes.conversions(chip)) + times
    applied = max(np.sum(np.abs(u), axis=0).max(), 1.0)
    if chip.input.bits is not None and schemes.is_one_phase(chip, signed) and schemes.is_bit_serial(chip):
        applied += len(u) * 2.0**chip.input.bits
    return float(applied * per_uS * (1e-6 * counts * np.max(g) + times * chip.target_step_uS))


@settings(deadline=None, max_examples=25)
@given(chip=chips(), signed=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_every_sum_of_any_chip_is_that_of_the_plain_model(chip: Chip, signed: bool, seed: int) -> None:
    case = case_of(chip, signed, seed)
    layer = block(chip, signed)
    g, column = held(case, np.random.default_rng(seed))
    u, vectors = apply_inputs(layer.reading, jnp.asarray(case.x.T), jnp.float32(case.input_range))
    codes = reference.vectors(reference.dac_codes(case.x, case.input_range, chip, signed), None)
    np.testing.assert_allclose(u, codes[..., 0], rtol=1e-6)
    d = np.asarray(jitted_read(layer.reading, vectors, jnp.asarray(g), None, jnp.asarray(column)), np.float64)
    expected = expected_sums(case, codes, g, column)
    assert (np.abs(d - expected.d) <= expected.ties * (1 + 1e-6) + rounding(case, codes, g)).all()
    assume(np.count_nonzero(expected.ties) <= 1)  # else the comparison means little, and the example does not count
    scale = count_scale(np.float32(case.weight_range), np.float32(case.input_range), chip, signed)
    assert scale == pytest.approx(reference.output_scale(case.weight_range, case.input_range, chip, signed), rel=1e-6)


@settings(deadline=None, max_examples=100)
@given(chip=chips(), seed=st.integers(0, 2**32 - 1))
def test_every_target_of_any_chip_is_that_of_the_plain_model(chip: Chip, seed: int) -> None:
    case = case_of(chip, False, seed)
    g = np.asarray(device_targets(case.weight, np.float32(case.weight_range), chip), np.float64)
    expected = [[schemes.targets(w, case.weight_range, chip) for w in row] for row in case.weight.tolist()]
    # On the grid of targets, and within the window: its ends may lie a whole step off.
    np.testing.assert_allclose(g, np.moveaxis(np.array(expected), 2, 0), atol=chip.target_step_uS, rtol=2e-7)


# A scheme, an encoding and a converter each at least once, with every law of the read noise and noise of the ADC.
CONSTANT, BY_STATE = {"read_noise_uS": 3.0}, {"read_noise_uS": 1.5, "read_noise_polynomial_uS": (0.5, 2.0)}
SERIAL = {"bits": 4, "encoding": "bit-serial"}
SLICED = {"bits": 4, "bits_per_cell": 2}
NOISY = {
    "pairs in columns, pulses in two phases": (
        chip_of(cell=CONSTANT, inputs={"bits": 6, "encoding": "pulse-width"}, adc={"bits": 7, "range_uA": 30.0}),
        True,
    ),
    "slices of pairs, bit by bit, exact codes": (
        chip_of(
            weights={"scheme": "differential", **SLICED},
            cell=BY_STATE,
            inputs=SERIAL,
            adc={"bits": 5, "noise_lsb": 0.4},
        ),
        False,
    ),
    "slices of pairs in rows, two bits at a time": (
        chip_of(
            weights={"scheme": "differential-rows", **SLICED},
            cell=BY_STATE,
            inputs={**SERIAL, "bits_per_cycle": 2},
            adc={"bits": 6, "noise_lsb": 0.3},
        ),
        True,
    ),
    "ternary rows, settled voltage": (
        chip_of(
            weights={"scheme": "differential-rows"},
            cell={**CONSTANT, "conductance_min_uS": 2.0},
            inputs={"bits": 4, "encoding": "bit-serial-accumulated", "signed": "one-phase"},
            adc={"bits": 6, "sense": "voltage", "range_mV": 200.0, "noise_lsb": 0.2},
        ),
        True,
    ),
    "offset, reference column": (
        chip_of(
            weights={"scheme": "offset", "offset_columns": 1, **SLICED}, cell=CONSTANT, inputs=SERIAL, adc={"bits": 6}
        ),
        False,
    ),
    "whole offset, two's complement inputs, no converter": (
        chip_of(weights={"scheme": "offset"}, cell=BY_STATE, inputs={**SERIAL, "signed": "one-phase"}),
        True,
    ),
    "stored bits, two's complement": (
        chip_of(
            weights={"scheme": "single", "bits": 4, "bits_per_cell": 1},
            cell={**BY_STATE, "conductance_min_uS": 1.0},
            inputs={**SERIAL, "signed": "one-phase"},
            adc={"bits": 4, "range_uA": 60.0},
        ),
        True,
    ),
}
DRAWS = 100_000


@pytest.mark.parametrize("name", NOISY)
def test_noise_of_any_chip_has_the_mean_and_the_sd_of_cells_drawn_one_by_one(name: str) -> None:
    """10^5 draws of either: sds to 1 %, which are three times what draws leave open."""
    chip, signed = NOISY[name]
    random = np.random.default_rng(7)
    case = case_of(chip, signed, 11, images=1, rows=ROWS, columns=COLUMNS)
    g, column = held(case, random)
    layer = block(chip, signed)
    _, vectors = apply_inputs(layer.reading, jnp.asarray(case.x.T), jnp.float32(case.input_range))
    many = jnp.broadcast_to(vectors, (ROWS, DRAWS))
    d = np.asarray(
        jitted_read(layer.reading, many, jnp.asarray(g), jax.random.key(3), jnp.asarray(column[:, :1])), np.float64
    )
    codes = reference.vectors(reference.dac_codes(case.x, case.input_range, chip, signed), None)
    cells = reference.sums(chip, codes, g, [(0, ROWS)], signed, random, reference_column=column[:, 0], draws=DRAWS).d[
        :, 0, 0
    ]
    one_code = 1.0 if chip.adc.bits is not None else 1e-3
    assert (cells.std(axis=1) > 0.1 * one_code).all(), "columns without noise would mean little"
    np.testing.assert_allclose(d.std(axis=1), cells.std(axis=1), rtol=0.01)
    assert (np.abs(d.mean(axis=1) - cells.mean(axis=1)) < 5 * cells.std(axis=1) * np.sqrt(2 / DRAWS)).all()


def test_a_settled_voltage_of_single_bits_is_that_of_the_plain_model() -> None:
    chip = chip_of(
        weights={"scheme": "differential-rows"},
        inputs={"bits": 2, "encoding": "bit-serial"},
        adc={"bits": 3, "sense": "voltage", "range_mV": 280.0},
    )
    g, u = np.array([[30.0, 5.0], [10.0, 15.0]], np.float32)[:, :, None], np.array([1.0, 0.0], np.float32)[:, None]
    expected = reference.sums(chip, u[:, :, None].astype(np.float64), g, [(0, 2)], False, None).d
    assert expected.item() == pytest.approx(120.0)  # 20 / 60 of 0.5 V is 167 mV, 1.8 of 93 mV: the second code
    assert (
        np.asarray(read(Crossbar(chip, 2, 1, False).reading, jnp.asarray(u), jnp.asarray(g), None)).item()
        == expected.item()
    )


def test_a_reference_column_holds_what_a_weight_of_0_holds() -> None:
    chip = chip_of(weights={"scheme": "offset", "offset_columns": 1}, cell={"levels": 4})
    zero = np.asarray(device_targets(np.zeros((1, 1), np.float32), np.float32(1), chip)).item()
    assert reference_target(chip) == zero == schemes.reference_target(chip)
