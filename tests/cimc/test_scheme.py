"""How a signed weight becomes devices."""

from typing import get_args

import numpy as np
import pytest

from cimc.chip import Weights, chip_names, load_chip
from cimc.scheme import FOOTPRINTS, SCHEMES, weighted_sum


def test_every_scheme_that_a_chip_file_may_name_has_a_footprint() -> None:
    assert set(get_args(Weights.model_fields["scheme"].annotation)) == set(FOOTPRINTS)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_the_devices_of_a_weight_fill_its_footprint_and_add_up_to_it(name: str) -> None:
    scheme, footprint = SCHEMES[name], FOOTPRINTS[name]
    fraction = np.linspace(-1, 1, 9, dtype=np.float32)
    shares = scheme.shares(fraction)
    assert len(shares) == len(scheme.signs) == footprint.rows * footprint.columns
    assert shares.min() >= 0
    assert shares.max() <= 1
    np.testing.assert_array_equal(weighted_sum(shares, scheme.signs), fraction)


def test_a_chip_is_simulated_only_with_a_scheme_that_the_runtime_reads() -> None:
    chips = [load_chip(name) for name in chip_names()]
    assert {chip.weights.scheme for chip in chips if chip.not_simulated is None} == set(SCHEMES)
    for chip in chips:
        if chip.weights.scheme not in SCHEMES:
            assert chip.not_simulated == f'weights.scheme = "{chip.weights.scheme}"'


def test_a_weighted_sum_multiplies_only_where_a_weight_is_not_one() -> None:
    terms = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], np.float32)
    np.testing.assert_array_equal(weighted_sum(terms, (-1, 4, -2)), [-1 + 40 - 200, -2 + 80 - 400])
    np.testing.assert_array_equal(weighted_sum(list(terms[:1]), (1,)), terms[0])
