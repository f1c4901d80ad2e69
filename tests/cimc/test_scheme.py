"""How a signed weight becomes devices."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.chip import Weights
from cimc.scheme import FOOTPRINTS, DeviceWindow, Scheme, make_scheme, weighted_sum

WINDOW = DeviceWindow(least_uS=2.0, width_uS=6.0, middle_uS=5.0)


def scheme_of(name: str, bits: int | None = None, cell_bits: int | None = None, *, reference: bool = False) -> Scheme:
    return make_scheme(name, bits=bits, cell_bits=cell_bits, window=WINDOW, reference=reference)


def test_every_scheme_that_a_chip_file_may_name_has_a_footprint() -> None:
    assert set(get_args(Weights.model_fields["scheme"].annotation)) == set(FOOTPRINTS)


@pytest.mark.parametrize("name", ["differential", "differential-rows", "offset"])
def test_the_devices_of_a_whole_weight_fill_its_footprint_and_add_up_to_it(name: str) -> None:
    scheme, footprint = scheme_of(name), FOOTPRINTS[name]
    fraction = np.linspace(-1, 1, 9, dtype=np.float32)
    shares = scheme.shares(fraction, True)
    assert len(shares) == scheme.devices == len(scheme.counts) == footprint.rows * footprint.columns
    assert shares.min() >= 0
    assert shares.max() <= 1
    value = scheme.value(np.float32(WINDOW.least_uS) + shares * np.float32(WINDOW.width_uS))
    np.testing.assert_allclose(value / scheme.full_uS, fraction, atol=1e-6)


@settings(deadline=None)
@given(st.sampled_from(list(FOOTPRINTS)), st.integers(2, 12), st.integers(1, 8), st.data())
def test_the_digits_of_a_weight_are_its_code(name: str, bits: int, cell_bits: int, data: st.DataObject) -> None:
    """With integers alone: digits are those of the code, and the weight is its steps."""
    scheme, base, slices = scheme_of(name, bits, cell_bits), 2**cell_bits, -(-bits // cell_bits)
    steps = 2 ** (bits - 1) - 1
    code = data.draw(st.integers(-steps, steps))
    shares = scheme.shares(np.array([code / steps], np.float32), True)[:, 0]
    digits = np.round(shares * (base - 1)).astype(int)
    np.testing.assert_allclose(shares * (base - 1), digits, atol=1e-4)
    assert digits.min() >= 0
    assert digits.max() < base

    def number(held: np.ndarray) -> int:
        return sum(int(digit) * base**place for place, digit in enumerate(reversed(held.tolist())))

    if name.startswith("differential"):
        assert len(digits) == 2 * slices
        assert (number(digits[0::2]), number(digits[1::2])) == (max(code, 0), max(-code, 0))
    elif name == "single" and cell_bits == 1:
        assert number(digits) == code % 2**bits
    else:
        assert number(digits) == code + 2 ** (bits - 1)
    value = scheme.value(np.float32(WINDOW.least_uS) + shares * np.float32(WINDOW.width_uS))
    assert value / scheme.full_uS == pytest.approx(code / steps, abs=1e-6 * base**slices / steps)


def test_what_is_between_two_codes_stays_in_the_last_digit() -> None:
    scheme = scheme_of("differential", 4, 2)
    fraction = np.array([2.75 / 7, -5.5 / 7], np.float32)
    shares = scheme.shares(fraction, False) * 3
    np.testing.assert_allclose(shares, np.array([[0, 0], [0, 1], [2.75, 0], [0, 1.5]]), atol=1e-5)


def test_a_reference_column_holds_one_digit_or_the_middle_and_is_taken_for_the_offset() -> None:
    assert scheme_of("offset", 16, 2, reference=True).reference == (4.0, 2**15)
    assert scheme_of("offset", reference=True).reference == (5.0, 1.0)
    assert scheme_of("offset", 16, 2).reference is None


def test_a_weighted_sum_multiplies_only_where_a_weight_is_not_one() -> None:
    terms = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], np.float32)
    np.testing.assert_array_equal(weighted_sum(terms, (-1, 4, -2)), [-1 + 40 - 200, -2 + 80 - 400])
    np.testing.assert_array_equal(weighted_sum(list(terms[:1]), (1,)), terms[0])
