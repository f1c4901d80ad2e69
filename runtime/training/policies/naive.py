"""Naive: every step is programmed and nothing is remembered (the ablation of arXiv 2305.14547, Fig. 4)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.options import Sync, Write
from runtime.training.policies import pair_writes
from runtime.training.policies.pair_writes import ACCUMULATOR, PairWrites
from runtime.training.policies.policy import Aim, Change, LayerState, UpdatePolicy, Wish


@dataclass(frozen=True)
class Naive:
    """Options. write: only closed-loop. sync: as of `PairWrites`."""

    write: Write = Write.verify
    sync: Sync = Sync.auto


def check(options: Naive, chip: Chip) -> None:
    """Raises CimcError for options that do not fit the chip."""
    if options.write == "pulse":
        raise CimcError("--update naive programs every step, which blind pulses cannot; use --write verify")
    pair_writes.check(_writes(options), chip)


def update(options: Naive, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """Due is every weight that changes."""
    return pair_writes.accumulate(_writes(options), chip, layer, change.step, weight_range, 0.0, key)


def aim(options: Naive, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """Goals as of mixed precision."""
    return pair_writes.aim(_writes(options), chip, layer, wish, weight_range, 0.0, key)


def settle(
    options: Naive, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """The digital copy as of mixed precision; nothing stays."""
    settled = pair_writes.settle(_writes(options), chip, layer, wish, aim, weight_range, key)
    return settled._replace(memory={ACCUMULATOR: jnp.zeros_like(settled.memory[ACCUMULATOR])})


def _writes(options: Naive) -> PairWrites:
    return PairWrites(write=options.write, sync=options.sync)


POLICY = UpdatePolicy(
    name="naive",
    options=Naive,
    memory=(ACCUMULATOR,),
    check=check,
    threshold=lambda options, chip: 0.0,
    update=update,
    aim=aim,
    settle=settle,
)
