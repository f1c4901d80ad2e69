"""Of a classifier's outputs on several chips: the accuracy of each class, and whether confidence is what it says."""

import numpy as np
from numpy.typing import NDArray

from runtime.system.measures import Sums

BINS = 15  # of confidence, as usual for the expected calibration error (Guo et al. 2017)


def confidence_sums(outputs: NDArray[np.float32], labels: NDArray[np.integer], *, softmax: bool) -> Sums:
    """What a batch adds, arrays [chips, ...].

    Args:
        outputs: [chips, N, classes].
        labels: [N]; below 0 is not counted.
        softmax: whether outputs are probabilities; else they are logits.
    """
    counted = labels >= 0
    outputs, labels = outputs[:, counted], labels[counted]
    chips, _, classes = outputs.shape
    right = np.argmax(outputs, axis=-1) == labels
    highest = np.max(outputs, axis=-1)
    # The largest of a softmax is one over the sum of what the others are beside it.
    sure = highest if softmax else 1 / np.sum(np.exp(outputs - highest[..., None]), axis=-1)
    place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1) + BINS * np.arange(chips)[:, None]

    def binned(weights: NDArray[np.generic] | None = None) -> NDArray[np.float64]:
        flat = None if weights is None else weights.ravel().astype(np.float64)
        return np.bincount(place.ravel(), flat, BINS * chips).reshape(chips, BINS).astype(np.float64)

    one_hot = labels[:, None] == np.arange(classes)
    return {
        "in_class": np.broadcast_to(one_hot.sum(axis=0), (chips, classes)),
        "right_in_class": right.astype(np.float64) @ one_hot,
        "in_bin": binned(),
        "right_in_bin": binned(right),
        "confidence_in_bin": binned(sure),
    }


def class_accuracy(sums: Sums) -> NDArray[np.float64]:
    """The accuracy of each class on each chip [chips, classes]; NaN of a class that does not occur."""
    count = sums["in_class"].astype(np.float64)
    accuracy: NDArray[np.float64] = np.divide(
        sums["right_in_class"], count, out=np.full(count.shape, np.nan), where=count > 0
    )
    return accuracy


def calibration_error(sums: Sums) -> NDArray[np.float64]:
    """Expected calibration error of each chip [chips]: mean distance of confidence and accuracy over the bins."""
    apart = np.abs(sums["confidence_in_bin"] - sums["right_in_bin"]).sum(axis=1)
    error: NDArray[np.float64] = apart / np.maximum(sums["in_bin"].sum(axis=1), 1)
    return error
