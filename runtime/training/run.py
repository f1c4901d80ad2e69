"""A training run between two steps, and the random keys of its parts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import jax
from jax import Array

from runtime.crossbar.keys import new_key
from runtime.system.state import State
from runtime.system.watch import Watch
from runtime.training.options import TrainingOptions

# One epoch: figures by name, and `layers`: figures by name of every layer.
Record = dict[str, Any]


class Clock(NamedTuple):
    """Wall time of training in this process.

    start_up_s: to the end of the first steps, compilation included. seconds, images: of all steps after these, without
    evaluation and checkpoints; images is 0 where there were none.
    """

    start_up_s: float = 0.0
    seconds: float = 0.0
    images: int = 0


@dataclass(frozen=True)
class Run:
    """A training run between two steps: what is needed to go on exactly as if it had not stopped.

    history: one record an epoch (epoch, loss, accuracy, lr, updates, writes, trials; row_writes and write_us where
    devices are written; layers: of each its ranges, clipping shares and updates;
    measures: where the test set is not measured by an accuracy alone; accuracy: then None or one of
    them). loss_sum: of the current epoch. watch: the input ranges. first_trials: by layer and column, of the first
    programming before step 0, which the counters of the state leave out. clock: of this process. best: the state of the
    best epoch so far, where the run is to end with it.
    """

    state: State
    optimizer: Any
    step: int
    loss_sum: Array
    history: tuple[Record, ...]
    watch: Watch
    first_trials: dict[str, Array]
    clock: Clock = field(default_factory=Clock)
    best: State | None = None


# Called with the run so far and the number of steps of the whole run.
Progress = Callable[[Run, int], None]


class Purpose(IntEnum):
    """What a run draws random numbers for."""

    start, look, step, test, validation, statistics = range(6)


def key_of(options: TrainingOptions, purpose: Purpose, step: int | None = None) -> Array:
    """The key of a run for a purpose, and of that step where it is drawn anew."""
    key = jax.random.fold_in(new_key(options.seed), int(purpose))
    return key if step is None else jax.random.fold_in(key, step)
