"""Samples of the training set that are kept apart: schedules and early stop look at them, never at the test set."""

from dataclasses import replace

import numpy as np

from cimc.dataset import Dataset
from cimc.errors import CimcError
from runtime.training.options import TrainingOptions

SPLIT = 4  # beside the other purposes of a run's seed


def split_validation(data: Dataset, options: TrainingOptions) -> Dataset:
    """The data with that share of the training samples, drawn by the seed, as validation samples.

    Raises:
        CimcError: one of the two parts would be empty.
    """
    if not options.validation:
        return data
    samples = len(data.train)
    apart = round(samples * options.validation)
    if not 0 < apart < samples:
        raise CimcError(
            f"--validation {options.validation:g} of {samples} training samples leaves one part empty; choose another"
        )
    order = np.random.default_rng([options.seed, SPLIT]).permutation(samples)
    return replace(data, train=data.train.take(np.sort(order[apart:])), validation=data.train.take(order[:apart]))
