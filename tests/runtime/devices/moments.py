"""Mean and sd of many devices against what a chip's figures promise."""

import numpy as np
import numpy.typing as npt

COUNT = 1 << 20  # devices in a sample


def assert_moments(sample: npt.ArrayLike, mean: float, sd: float) -> None:
    """Mean and sd agree within five standard errors (and the 1e-4 of the noise generator)."""
    values = np.asarray(sample, np.float64)
    n = values.size
    deviation = values - values.mean()
    spread = np.sqrt((np.mean(deviation**4) - np.mean(deviation**2) ** 2) / n) / (2 * sd)
    assert abs(values.mean() - mean) < 5 * sd / np.sqrt(n) + 1e-5
    assert abs(values.std() - sd) < 5 * spread + 2e-4 * sd
