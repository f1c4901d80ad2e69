"""Fit of drift exponents: drawn ones return, outliers and missing readings or not."""

import numpy as np
import pytest

from runtime.fitting.drift import RetentionData, fit_drift


@pytest.mark.parametrize("dirty", [False, True])
def test_drawn_exponents_return_within_their_confidence(dirty: bool) -> None:
    random = np.random.default_rng(3)
    times = 20.0 * 4.0 ** np.arange(9)
    exponent = 0.06 + 0.02 * random.standard_normal(200)
    start = random.uniform(5, 25, 200)
    conductance = (
        start[:, None] * (times / 20.0) ** -exponent[:, None] * np.exp(0.01 * random.standard_normal((200, 9)))
    )
    device, time = np.repeat(np.arange(200), 9), np.tile(times, 200)
    kept = np.ones(1800, bool)
    if dirty:
        conductance[random.random(conductance.shape) < 0.02] *= 3.0
        kept = random.random(1800) > 0.05
    found = fit_drift(RetentionData(device[kept], time[kept], conductance.ravel()[kept]))
    assert found.start_s == 20.0
    assert found.exponent.low < 0.06 < found.exponent.high
    assert found.exponent_sd.low < 0.02 < found.exponent_sd.high
    assert found.exponent.high - found.exponent.low < 0.01
    assert found.residual == pytest.approx(0.01, rel=0.15)
