"""Accuracy by class and expected calibration error, against their definitions sample by sample."""

import numpy as np
import pytest

from runtime.system.confidence import BINS, calibration_error, class_accuracy, confidence_sums
from runtime.system.measures import merge

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (3, 200, 4)).astype(np.float32)
LABELS = RANDOM.integers(-1, 3, 200).astype(np.int32)  # no sample of class 3; some are not counted


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("probabilities", [False, True])
def test_sums_of_batches_give_what_the_definitions_give(probabilities: bool) -> None:
    outputs = softmax(LOGITS).astype(np.float32) if probabilities else LOGITS
    sums = None
    for part in (slice(0, 70), slice(70, 200)):
        sums = merge(sums, confidence_sums(outputs[:, part], LABELS[part], softmax=probabilities))
    assert sums is not None
    counted = LABELS >= 0
    for chip in range(3):
        shares, answers = softmax(LOGITS[chip])[counted], LOGITS[chip][counted].argmax(axis=1)
        right, sure = answers == LABELS[counted], shares.max(axis=1)
        for k in range(4):
            found, of_class = class_accuracy(sums)[chip, k], LABELS[counted] == k
            assert np.isnan(found) if k == 3 else found == pytest.approx(right[of_class].mean())
        error = 0.0
        for index in range(BINS):
            inside = (sure > index / BINS) & (sure <= (index + 1) / BINS)
            if inside.any():
                error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
        assert calibration_error(sums)[chip] == pytest.approx(error, abs=1e-6)
