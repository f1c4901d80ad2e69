"""Options of a training run, and the course of its learning rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cimc.errors import CimcError
from cimc.options import RateSchedule, check_choice, check_number, check_whole
from runtime.training.update import Policy

DEFAULT_LR = 0.005
# A layer whose weight range is so many sd of He's initial weights, variance 2 / rows, trains at the stated rate.
REFERENCE_SDS = 2.0
STAGNANT_EPOCHS = 5


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a run.

    lr: of digital parameters, and of a layer whose weight range is `REFERENCE_SDS` sd of He's initial weights; a layer
    with another range takes as much larger or smaller steps, the same part of its threshold in whatever unit and
    distribution the file's weights were drawn. With method float that of all parameters, as in plain training.
    schedule: constant; cosine from lr to 0 over the run; plateau: halved after five epochs without a lower training
    loss. weight_decay: decoupled, on crossbar weights.
    """

    policy: Policy = field(default_factory=Policy)
    epochs: int = 10
    steps_per_epoch: int | None = None
    batch_size: int = 64
    lr: float = DEFAULT_LR
    schedule: RateSchedule = RateSchedule.cosine
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """The name of a rate schedule becomes it. Raises CimcError for a value that is none."""
        if not isinstance(self.policy, Policy):
            raise CimcError(f"policy is {self.policy!r}; give a Policy, such as Policy(method='naive')")
        checked: dict[str, Any] = {"schedule": check_choice(RateSchedule, "schedule", self.schedule)}
        if self.steps_per_epoch is not None:
            checked["steps_per_epoch"] = check_whole("steps_per_epoch", self.steps_per_epoch, 1)
        checked |= {field: check_whole(field, getattr(self, field), 1) for field in ("epochs", "batch_size")}
        checked |= {field: check_number(field, getattr(self, field), least=0) for field in ("lr", "weight_decay")}
        checked["seed"] = check_whole("seed", self.seed, 0)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def steps(self, images: int) -> int:
        """Steps of one epoch."""
        return self.steps_per_epoch or max(images // self.batch_size, 1)


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
