"""Options of a training run, and the course of its learning rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.update import Policy

# The rate without --lr, for weights with the variance of He's initial ones, 2 / rows, and for digital parameters.
DEFAULT_LR = 0.005
STAGNANT_EPOCHS = 5


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a run.

    lr: in the network's own weight unit, as for plain training. None: `DEFAULT_LR` for digital parameters, and for each
    layer as many times that as its weight range is larger than that of He's initial weights, so that the run does not
    hang on the unit or the distribution in which the file's weights were drawn. schedule: constant; cosine from lr to 0
    over the run; plateau: halved after five epochs without a lower training loss. weight_decay: decoupled, on crossbar
    weights.
    """

    policy: Policy = field(default_factory=Policy)
    epochs: int = 10
    steps_per_epoch: int | None = None
    batch_size: int = 64
    lr: float | None = None
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    weight_decay: float = 0.01
    seed: int = 0

    def steps(self, images: int) -> int:
        """Steps of one epoch."""
        return self.steps_per_epoch or max(images // self.batch_size, 1)


def learning_rate(options: TrainingOptions, history: tuple[Mapping[str, Any], ...], step: int, total: int) -> float:
    """The learning rate of a step (0 .. total - 1); without --lr that of the digital parameters."""
    first = DEFAULT_LR if options.lr is None else options.lr
    if options.schedule == "cosine":
        return first * 0.5 * (1 + math.cos(math.pi * step / total))
    if options.schedule == "constant":
        return first
    best, stagnant, factor = math.inf, 0, 1.0
    for record in history:
        stagnant = 0 if record["loss"] < best else stagnant + 1
        best = min(best, record["loss"])
        if stagnant == STAGNANT_EPOCHS:
            stagnant, factor = 0, factor / 2
    return first * factor
