"""The plain model of every scheme against numbers worked out by hand, and against x W where nothing is rounded."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from tests import reference_schemes as schemes
from tests.chips import case_of, chip_of, chips
from tests.reference_schemes import Conversion, Subtracted

# Weights of W = 1 in 4 bits: integers of M = 7. Cells of 2 bits, window 0 to 30 uS: a unit of a digit is 10 uS.
FOUR_BITS = {"bits": 4, "bits_per_cell": 2}


@pytest.mark.parametrize(
    ("weights", "cell", "weight", "expected"),
    [
        # -6 = -(1 x 4 + 2): digits 1, 2 in G-.
        ({"scheme": "differential", **FOUR_BITS}, {}, -6 / 7, (0, 10, 0, 20)),
        ({"scheme": "differential-rows", **FOUR_BITS}, {"conductance_min_uS": 6.0}, 7 / 7, (14, 6, 30, 6)),
        # -6 + 8 = 2: digits 0, 2; 5 + 8 = 13 = 3 x 4 + 1.
        ({"scheme": "offset", **FOUR_BITS}, {}, -6 / 7, (0, 20)),
        ({"scheme": "offset", **FOUR_BITS}, {}, 5 / 7, (30, 10)),
        # Two's complement of -6 in four bits: 1010; with its highest bit flipped 0010, the digits 0, 2.
        ({"scheme": "single", "bits": 4, "bits_per_cell": 1}, {}, -6 / 7, (30, 0, 30, 0)),
        ({"scheme": "single", **FOUR_BITS}, {}, -6 / 7, (0, 20)),
        # -9 in 5 bits is 10111, flipped 00111 = 7 = 1 x 4 + 3: three digits, the first of one bit.
        ({"scheme": "single", "bits": 5, "bits_per_cell": 2}, {}, -9 / 15, (0, 10, 30)),
        # Whole weights: half of the window above its middle.
        ({"scheme": "offset"}, {"conductance_min_uS": 10.0}, 0.5, (25,)),
        ({"scheme": "offset"}, {"levels": 4}, 0.5, (20,)),
        ({"scheme": "differential-rows"}, {"conductance_min_uS": 10.0}, -0.5, (10, 20)),
        ({"scheme": "differential"}, {}, 1.7, (30, 0)),
    ],
)
def test_targets_of_a_weight_are_those_worked_out_by_hand(
    weights: dict[str, Any], cell: dict[str, Any], weight: float, expected: tuple[float, ...]
) -> None:
    assert schemes.targets(weight, 1.0, chip_of(weights=weights, cell=cell)) == pytest.approx(expected)


def test_what_conversions_count_and_what_is_subtracted_are_those_worked_out_by_hand() -> None:
    columns = chip_of(weights={"scheme": "differential", **FOUR_BITS})
    plus, minus = [(((0, 1),), 4.0), (((2, 1),), 1.0)], [(((1, 1),), -4.0), (((3, 1),), -1.0)]
    assert schemes.conversions(columns) == [Conversion(*each) for each in plus + minus]
    rows = chip_of(weights={"scheme": "differential-rows"})
    assert schemes.conversions(rows) == [Conversion(((0, 1), (1, -1)), 1.0)]
    single = chip_of(weights={"scheme": "single", "bits": 3, "bits_per_cell": 1}, cell={"conductance_min_uS": 6.0})
    assert [counts for _, counts in schemes.conversions(single)] == [-4.0, 2.0, 1.0]
    assert schemes.subtracted(single) == Subtracted(-6.0, 0.0)  # (-4 + 2 + 1) x 6 uS
    # Bits: (4 + 1) x 6 uS of cells that hold 0, and 8 digits of 8 uS.
    offset = {"scheme": "offset", **FOUR_BITS}
    cell = {"conductance_min_uS": 6.0}
    assert schemes.subtracted(chip_of(weights=offset, cell=cell)) == Subtracted(94.0, 0.0)
    # A reference cell holds 6 + 8 = 14 uS and is taken 8 times; the rest is 94 - 112.
    assert schemes.subtracted(chip_of(weights={**offset, "offset_columns": 1}, cell=cell)) == Subtracted(-18.0, 8.0)
    # Whole weights around 15 uS with levels of 0, 10, 20, 30 uS: Python rounds 1.5 to 2.
    whole = chip_of(weights={"scheme": "offset", "offset_columns": 1}, cell={"levels": 4})
    assert schemes.reference_target(whole) == 20.0
    assert schemes.subtracted(whole) == Subtracted(-5.0, 1.0)


@pytest.mark.parametrize(
    ("inputs", "signed", "u", "expected"),
    [
        # 5 = 101, 6 = 110, least significant bit first.
        ({"bits": 3, "encoding": "bit-serial"}, False, [5, 6], [(1, [1, 0]), (2, [0, 1]), (4, [1, 1])]),
        # Two bits at a time; five bits end with one.
        (
            {"bits": 5, "encoding": "bit-serial", "bits_per_cycle": 2},
            False,
            [27, 6],  # 1 10 11, 0 01 10
            [(1, [3, 2]), (4, [2, 1]), (16, [1, 0])],
        ),
        # -3 in four bits is 1101, 5 is 0101: the sign bit counts -8.
        (
            {"bits": 4, "encoding": "bit-serial", "signed": "one-phase"},
            True,
            [-3, 5],
            [(1, [1, 1]), (2, [0, 0]), (4, [1, 1]), (-8, [1, 0])],
        ),
        (
            {"bits": 4, "encoding": "bit-serial", "signed": "one-phase", "bits_per_cycle": 2},
            True,
            [-3, 5],
            [(1, [1, 1]), (4, [1, 1]), (-8, [1, 0])],
        ),
        (
            {"bits": 2, "encoding": "bit-serial"},
            True,
            [-3, 2],
            [(1, [0, 0]), (2, [0, 1]), (-1, [1, 0]), (-2, [1, 0])],
        ),
        ({"bits": 4, "encoding": "pulse-width"}, True, [-3, 5], [(1, [0, 5]), (-1, [3, 0])]),
        ({"bits": 4, "encoding": "pulse-width", "signed": "one-phase"}, True, [-3, 5], [(1, [-3, 5])]),
        ({"bits": 4, "encoding": "bit-serial-accumulated", "signed": "one-phase"}, False, [3, 5], [(1, [3, 5])]),
        ({}, True, [-0.7, 0.2], [(1, [-0.7, 0.2])]),
    ],
)
def test_planes_of_inputs_are_those_worked_out_by_hand(
    inputs: dict[str, Any], signed: bool, u: list[float], expected: list[tuple[float, list[float]]]
) -> None:
    assert schemes.planes(u, chip_of(inputs=inputs), signed) == expected


@pytest.mark.parametrize(
    ("chip", "signed", "expected"),
    [
        # Ternary: of 2-bit inputs one is the sign, so -1, 0, 1. G+ - G- = 20 - 0 and 10 - 30 uS, driven 1 and -1: 40
        # uS, 0.5 V / 4 of that 5 uA, and a code of 3 bits of both signs 12 / 3 = 4 uA: round(1.25) = 1.
        (
            chip_of(
                weights={"scheme": "differential-rows"},
                inputs={"bits": 2, "encoding": "pulse-width", "signed": "one-phase"},
                adc={"bits": 3, "range_uA": 12.0},
            ),
            True,
            1.0,
        ),
        # In two columns and two phases: 2.5 and 1.25 uA of G+, 0 and 3.75 of G-, in codes of 4 / 7 uA: 4 - 2 - (0 - 7).
        (
            chip_of(inputs={"bits": 2, "encoding": "pulse-width"}, adc={"bits": 3, "range_uA": 4.0}),
            True,
            9.0,
        ),
        # One digit unit of 10 uS a code: (2 - 1) - (0 - 3).
        (
            chip_of(cell={"levels": 4}, inputs={"bits": 2, "encoding": "bit-serial"}, adc={"bits": 3}),
            True,
            4.0,
        ),
    ],
)
def test_digital_sums_are_those_worked_out_by_hand(chip: Any, signed: bool, expected: float) -> None:
    g = np.array([[20.0, 10.0], [0.0, 30.0]])[:, :, None]
    u = np.array([1.0, -1.0])[:, None, None]
    assert reference.sums(chip, u, g, [(0, 2)], signed, None).d.item() == expected


def test_an_offset_and_its_reference_column_are_subtracted_as_worked_out_by_hand() -> None:
    """Inputs 2 and 3 in two bits, weights 1 and -1 in 2-bit cells: 1 + 2 and -1 + 2 units, at 1 code a unit."""
    inputs, adc = {"bits": 2, "encoding": "bit-serial"}, {"bits": 3}
    offset = {"scheme": "offset", "bits": 2, "bits_per_cell": 2}
    g, u = np.array([30.0, 10.0])[None, :, None], np.array([2.0, 3.0])[:, None, None]
    digital = chip_of(weights=offset, inputs=inputs, adc=adc)
    # Codes 1 and 3 + 1 = 4: 1 + 2 x 4 = 9, less 2 x (2 + 3).
    assert reference.sums(digital, u, g, [(0, 2)], False, None).d.item() == -1.0
    column = chip_of(weights={**offset, "offset_columns": 1}, inputs=inputs, adc=adc)
    exact = reference.sums(column, u, g, [(0, 2)], False, None, reference_column=[10.0, 10.0])
    assert exact.d.item() == -1.0
    # The second cell of the reference column holds 1.7 units: its codes are round(1.7) and round(1 + 1.7).
    wrong = reference.sums(column, u, g, [(0, 2)], False, None, reference_column=[10.0, 17.0])
    assert wrong.d.item() == 9 - 2 * (2 + 2 * 3)


def test_a_settled_voltage_is_the_mean_over_the_conductance_of_the_column_and_multiplied_back() -> None:
    """(30 - 10 + 15 - 5) / 60 of 0.5 V is 250 mV: with 280 mV of 3 codes 2.7, so the third, and d = 3 x 60."""
    chip = chip_of(
        weights={"scheme": "differential-rows"},
        inputs={"bits": 2, "encoding": "pulse-width", "signed": "one-phase"},
        adc={"bits": 3, "sense": "voltage", "range_mV": 280.0},
    )
    g = np.array([[30.0, 5.0], [10.0, 15.0]])[:, :, None]
    u = np.array([1.0, -1.0])[:, None, None]
    assert reference.sums(chip, u, g, [(0, 2)], True, None).d.item() == 180.0


@settings(deadline=None, max_examples=150)
@given(chip=chips(), signed=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_without_rounding_every_scheme_gives_the_product_of_the_inputs_and_weights_it_holds(
    chip: Any, signed: bool, seed: int
) -> None:
    chip = chip.model_copy(update={"adc": type(chip.adc)()})
    case = case_of(chip, signed, seed)
    u = reference.vectors(reference.dac_codes(case.x, case.input_range, chip, signed), None)
    g = np.array([[schemes.targets(w, case.weight_range, chip) for w in row] for row in case.weight.tolist()])
    g = np.moveaxis(g, 2, 0)
    column = np.full(len(case.weight), schemes.reference_target(chip))
    d = reference.sums(chip, u, g, [(0, 5), (5, 7)], signed, None, reference_column=column).d[..., 0]
    held = np.array(
        [[schemes.weight_of(g[:, r, c].tolist(), case.weight_range, chip) for c in range(3)] for r in range(7)]
    )
    applied = u[..., 0] * (1 if chip.input.bits is None else case.input_range / schemes.largest_input(chip, signed))
    y = d * reference.output_scale(case.weight_range, case.input_range, chip, signed)
    np.testing.assert_allclose(y, held.T @ applied, rtol=1e-9, atol=1e-9)
    # What is held is the weight to half a step of it.
    clipped = np.clip(case.weight, -case.weight_range, case.weight_range)
    if chip.weights.bits is not None:
        half = case.weight_range / (2 ** (chip.weights.bits - 1) - 1) / 2
        assert np.abs(held - clipped).max() <= half * (1 + 1e-6)
    elif chip.cell.programmable_uS is None:
        np.testing.assert_allclose(held, clipped, rtol=1e-6, atol=1e-9)


def test_the_noise_of_drawn_reads_has_the_variance_of_every_cell_and_converter() -> None:
    """Weights in two slices of 3 rows: 4^2 + 1 times the noise of their cells, of each plane as it counts."""
    cell = {"read_noise_uS": 0.3, "read_noise_polynomial_uS": (0.2, 0.5)}
    chip = chip_of(weights={"scheme": "offset", **FOUR_BITS}, cell=cell, inputs={"bits": 3, "encoding": "bit-serial"})
    g = np.array([[0.0, 20.0, 30.0], [10.0, 0.0, 30.0]])[:, :, None]
    u = np.array([1.0, 6.0, 7.0])[:, None, None]
    d = reference.sums(chip, u, g, [(0, 3)], False, np.random.default_rng(0), draws=100_000).d.ravel()
    sd = np.array([[0.3**2 + (0.2 + 0.5 * value / 30) ** 2 for value in row] for row in g[..., 0]]) ** 0.5
    # u^2 by plane: 1; 4 + 16 of the second; 1 + 4 + 16 of the third row.
    applied = np.array([1.0, 20.0, 21.0])
    assert d.std() == pytest.approx(np.sqrt((16 * sd[0] ** 2 + sd[1] ** 2) @ applied), rel=0.01)
