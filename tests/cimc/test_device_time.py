"""What a description of time may say, and the laws of the state."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cimc.device_file import load_device
from cimc.device_time import Flicker, Relaxation, StateLaw, state_law_at


@pytest.mark.parametrize(
    ("model", "values", "words"),
    [
        (Flicker, {"read_s": 1e-6, "after_s": 1.0}, "give either q or q_uS"),
        (Flicker, {"read_s": 1e-6, "after_s": 1.0, "q": {}, "q_uS": {}}, "give either q or q_uS"),
        (Relaxation, {"times_s": [1.0, 2.0], "sd_uS": [1.0]}, "one entry for each of times_s"),
        (Relaxation, {"times_s": [2.0, 1.0], "sd_uS": [1.0, 1.0]}, "ascend"),
        (Relaxation, {"times_s": [1.0, 2.0], "sd_uS": [1.0, 1.0], "of": "nothing"}, "'target' or 'written'"),
        (StateLaw, {"beyond": 0.5}, "beyond and polynomial go together"),
    ],
)
def test_a_law_that_says_nothing_or_twice_is_refused(model: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        model.model_validate(values)


def test_a_law_of_the_state_keeps_its_bounds_and_turns_into_its_polynomial() -> None:
    law = StateLaw(constant=0.5, log=-0.1, scale=2.0, power=2.0, least=0.6, most=1.5, beyond=0.9, polynomial=(1.0, 2.0))
    x = np.array([1e-9, 0.3, 0.8, 0.9, 1.0])
    expected = [1.5, 0.5 - 0.1 * np.log(0.3) + 2 * 0.09, 1.5, 2.8, 3.0]
    np.testing.assert_allclose(state_law_at(law, x), expected, rtol=1e-6)


def test_noise_of_a_read_adds_variances_and_beyond_the_window_is_that_of_its_end() -> None:
    cell = load_device("sonos").model_copy(update={"read_noise_uS": 0.03, "conductance_min_uS": 1.6})
    inside = cell.read_noise_variance(np.array([1.6, 16.0]))
    assert inside == pytest.approx(
        0.03**2 + (0.1258037 * (1 - np.exp(-np.array([160, 1600]) / 215.36557))) ** 2, rel=5e-3
    )
    np.testing.assert_array_equal(cell.read_noise_variance(np.array([0.0, 500.0])), inside)


def test_the_noise_of_pcm_grows_with_the_time_since_the_write() -> None:
    cell = load_device("pcm-nandakumar")
    g = np.array([20.0])
    soon, late = (float(cell.read_noise_variance(g, after_s=after)[0]) for after in (1.0, 1e6))
    assert late / soon == pytest.approx(np.log(1e6 / 500e-9) / np.log(1.0 / 500e-9), rel=1e-4)
    assert float(cell.read_noise_variance(g)[0]) == float(cell.read_noise_variance(g, after_s=20.0)[0])
