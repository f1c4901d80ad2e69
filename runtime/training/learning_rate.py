"""The course of the learning rate over a run, and when it need not go on."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax
from numpy.typing import NDArray

from cimc.options import RateSchedule
from runtime.training.options import TrainingOptions

STAGNANT_EPOCHS = 5
# Of `step`: a tenth each time at these parts of the run; of `exponential`: the part that is left at its end.
DROPS = {0.5: 0.1, 0.75: 0.1}
REMAINS = 0.01


def course(options: TrainingOptions, total: int, per_epoch: int) -> NDArray[np.float64]:
    """The learning rate of every step [total], before what `plateau` makes of it.

    The warm-up rises linearly from 0; the course of the schedule is that of the steps after it.
    """
    warmup = min(options.warmup_steps(per_epoch), total)
    after = _SCHEDULES[options.schedule](options.lr, max(total - warmup, 1), total - warmup)
    rising = options.lr * np.arange(1, warmup + 1) / max(warmup, 1)
    return np.concatenate([rising, np.asarray(after, np.float64)])


def _cosine(lr: float, length: int, steps: int) -> list[float]:
    # Not that of optax, which rounds to float32 on the way: runs of before repeat to the bit.
    return [lr * 0.5 * (1 + math.cos(math.pi * step / length)) for step in range(steps)]


def _constant(lr: float, length: int, steps: int) -> NDArray[np.float64]:
    return np.full(steps, lr)


def _step(lr: float, length: int, steps: int) -> Any:
    drops = {round(part * length): factor for part, factor in DROPS.items()}
    return optax.piecewise_constant_schedule(lr, drops)(np.arange(steps))


def _linear(lr: float, length: int, steps: int) -> Any:
    return optax.linear_schedule(lr, 0.0, length)(np.arange(steps))


def _exponential(lr: float, length: int, steps: int) -> Any:
    return optax.exponential_decay(lr, length, REMAINS)(np.arange(steps))


_SCHEDULES: dict[RateSchedule, Callable[[float, int, int], Any]] = {
    RateSchedule.constant: _constant,
    RateSchedule.cosine: _cosine,
    RateSchedule.plateau: _constant,
    RateSchedule.step: _step,
    RateSchedule.linear: _linear,
    RateSchedule.exponential: _exponential,
}


def plateau_factor(options: TrainingOptions, history: Sequence[Mapping[str, Any]]) -> float:
    """What the schedule `plateau` has made of the learning rate: halved after five epochs without a lower loss."""
    if options.schedule is not RateSchedule.plateau:
        return 1.0
    best, stagnant, factor = math.inf, 0, 1.0
    for loss in map(watched_loss, history):
        stagnant = 0 if loss < best else stagnant + 1
        best = min(best, loss)
        if stagnant == STAGNANT_EPOCHS:
            stagnant, factor = 0, factor / 2
    return factor


def watched_loss(record: Mapping[str, Any]) -> float:
    """The loss of an epoch that decisions look at: of the validation samples where there are some."""
    return float(record["validation"]["loss"] if "validation" in record else record["loss"])


def is_best(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last epoch has the lowest loss so far."""
    *before, last = map(watched_loss, history)
    return last < min(before, default=math.inf)


def stops_early(options: TrainingOptions, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether so many epochs have brought no lower loss that the run ends."""
    if options.patience is None or not history:
        return False
    losses = [watched_loss(record) for record in history]
    return len(losses) - 1 - losses.index(min(losses)) >= options.patience
