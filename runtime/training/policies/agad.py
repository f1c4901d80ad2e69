"""AGAD, analog gradient accumulation with dynamic reference (Rasch et al. 2024, s41467-024-51221-z).

As chopped Tiki-Taka of version 2, with the zero of A measured on the way. The chopper c of a word line flips regularly,
after every `chop_every` of its reads, and with r = read(A) of a row in turn

    p <- (1 - b) p + b r
    H += rate lr sweep c (r - p_ref) / dA
    p_ref <- p                                   where c flips

so that A needs no calibrated reference: what it holds when the sign of its inputs changes is taken as its zero.
"""

from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from runtime.training.policies.policy import Change, LayerState, Wish
from runtime.training.policies.pulsed import Steps, take_turn
from runtime.training.policies.tiki_taka_v2 import FLIPPED, Buffered, policy_of, transfer

MEAN, REFERENCE = "mean", "reference"  # p and p_ref


@dataclass(frozen=True)
class Agad(Buffered):
    """Options: as of all with a buffer, and chop_every: reads of a row between two flips; b: of the running mean."""

    chop_every: Steps = 10
    b: Annotated[float, Field(gt=0, le=1)] = 0.5


def update(options: Agad, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """Sent is what A was read to hold beside its reference."""
    memory = layer.memory
    flips = take_turn(change, options.sweep) & (change.number // options.sweep % options.chop_every == 0)

    def sent(read: Array, chopper: Array, turn: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        mean = jnp.where(turn, (1 - options.b) * memory[MEAN] + options.b * read, memory[MEAN])
        new = {
            FLIPPED: jnp.where(flips, 1 - memory[FLIPPED], memory[FLIPPED]),
            MEAN: mean,
            REFERENCE: jnp.where(flips, mean, memory[REFERENCE]),
        }
        return chopper * (read - memory[REFERENCE]), new

    return transfer(options, chip, layer, change, key, 1 - 2 * memory[FLIPPED], sent)


POLICY = policy_of("agad", Agad, (FLIPPED, MEAN, REFERENCE), update)
