"""One layer takes a step as training lets it, all of it at one word line and without a budget."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.row_cost import row_cost
from runtime.devices.device import NONE
from runtime.devices.traits import Traits
from runtime.training.compute import ARRAYS, Compute
from runtime.training.policies.policy import Change, LayerState, UpdateRule
from runtime.training.row_writes import Lines
from runtime.training.writes import Scheduler, no_schedule


def one_line(shape: tuple[int, ...]) -> Lines:
    """Weights of that shape at one word line of one array."""
    none, zeros = jnp.zeros(1, jnp.int32), jnp.zeros(shape, jnp.int32)
    return Lines((zeros,), none, none + 1, none, none, none, jnp.zeros(1), jnp.zeros(1))


@partial(jax.jit, static_argnums=(0, 1), static_argnames="compute")
def update_one(
    rule: UpdateRule,
    chip: Chip,
    layer: LayerState,
    change: Change,
    *,
    weight_range: Array,
    key: Array,
    traits: Traits = NONE,
    compute: Compute = ARRAYS,
) -> LayerState:
    """The layer after the step; arguments as `runtime.training.update.update_layers` takes them of one layer.

    One program for a rule, a chip and sizes, which outlives what a test puts in the place of a function of JAX
    (`forget_programs`).
    """
    cost = row_cost(chip, blind=False, row_reads=0)
    lines, scheduler = one_line(change.step.shape), Scheduler(cost, cost)
    (layer,), _ = compute.apply(
        rule,
        chip,
        (layer,),
        (change,),
        ranges=(weight_range,),
        traits=(traits,),
        lines=lines,
        scheduler=scheduler,
        schedule=no_schedule(scheduler, lines),
        key=key,
    )
    return layer


def forget_programs() -> None:
    """Compile `update_one` anew."""
    compiled: Any = update_one
    compiled.clear_cache()
