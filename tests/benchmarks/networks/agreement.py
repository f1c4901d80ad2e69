"""How far two files of outputs agree, printed as JSON.

python -m tests.benchmarks.networks.agreement ORIGINAL.npz OTHER.npz
"""

import json
import sys

import numpy as np
from numpy.typing import NDArray

DECISIONS = 2  # a last axis of so many values or more is decided by the largest


def agreement(original: NDArray[np.generic], other: NDArray[np.generic]) -> dict[str, float | None]:
    """Agreement of one output.

    snr_db: power of the original over that of the difference. same: share of positions with the same largest value
    along the last axis; None where it has one. largest: the largest difference over the largest original value.
    """
    a, b = (np.asarray(array, np.float64).reshape(original.shape) for array in (original, other))
    power, error = float(np.sum(a * a)), float(np.sum((a - b) ** 2))
    largest = float(np.abs(a - b).max()) / (float(np.abs(a).max()) or 1.0)
    decided = a.ndim > 1 and original.shape[-1] >= DECISIONS
    same = float(np.mean(a.argmax(-1) == b.argmax(-1))) if decided else None
    return {
        "snr_db": 10 * float(np.log10(power / error)) if power and error else None,
        "same": same,
        "largest": largest,
    }


def main() -> None:
    """Print the agreement of each output, in the original's order."""
    with np.load(sys.argv[1]) as original, np.load(sys.argv[2]) as other:
        pairs = zip(original.files, other.files, strict=True)
        print(json.dumps({first: agreement(original[first], other[second]) for first, second in pairs}))


if __name__ == "__main__":
    main()
