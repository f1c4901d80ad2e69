"""The course of the learning rate over a run."""

import math
from collections.abc import Mapping
from typing import Any

from cimc.options import RateSchedule
from runtime.training.options import TrainingOptions

STAGNANT_EPOCHS = 5


def learning_rate(options: TrainingOptions, history: tuple[Mapping[str, Any], ...], step: int, total: int) -> float:
    """The learning rate of a step (0 .. total - 1)."""
    if options.schedule is RateSchedule.cosine:
        return options.lr * 0.5 * (1 + math.cos(math.pi * step / total))
    if options.schedule is RateSchedule.constant:
        return options.lr
    best, stagnant, factor = math.inf, 0, 1.0
    for record in history:
        stagnant = 0 if record["loss"] < best else stagnant + 1
        best = min(best, record["loss"])
        if stagnant == STAGNANT_EPOCHS:
            stagnant, factor = 0, factor / 2
    return options.lr * factor
