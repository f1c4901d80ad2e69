"""Mixed precision: acc += step; where |acc| > threshold the pair is programmed (arXiv 2305.14547, section 3)."""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from cimc.options import Residual, Sync, Write
from runtime.crossbar.figures import figure
from runtime.training.policies import pair_writes
from runtime.training.policies.pair_writes import ACCUMULATOR, PairWrites
from runtime.training.policies.policy import Aim, Change, LayerState, UpdatePolicy, Wish
from runtime.training.policies.rounding import round_randomly


@dataclass(frozen=True)
class MixedPrecision:
    """Options.

    threshold, residual, write, sync, accumulator_bits: as of `PairWrites`. gradient_bits: each step is rounded
    stochastically to so many bits, sign included, of the largest in its layer (with `write` pulse the rule of
    Nandakumar et al. 2020, Front. Neurosci. 14:406, which quantises the outer product of a sample: here it is the
    optimiser's step of a batch); None: float32. spread: the accumulators begin evenly spread over so many thresholds to
    either side of 0. From 0 a layer's weights come due in the same step, all that moves them alike until then, and each
    layer learns in jumps.
    """

    threshold: float | None = None
    residual: Residual = Residual.keep
    write: Write = Write.verify
    sync: Sync = Sync.auto
    accumulator_bits: Annotated[int, Field(ge=2, le=24)] | None = None
    gradient_bits: Annotated[int, Field(ge=2, le=24)] | None = None
    spread: Annotated[float, Field(ge=0, le=1)] = 0.0


def check(options: MixedPrecision, chip: Chip) -> None:
    """Raises CimcError for options that do not fit the chip."""
    pair_writes.check(_writes(options), chip)


def threshold(options: MixedPrecision, chip: Chip) -> float:
    """Threshold as a fraction of the weight range."""
    return pair_writes.threshold(_writes(options), chip)


def begin(
    options: MixedPrecision, chip: Chip, shape: tuple[int, ...], weight_range: Array, key: Array
) -> dict[str, Array]:
    """The accumulators of a layer at first, where they are spread."""
    if options.spread == 0:
        return {}
    most = figure(options.spread * threshold(options, chip)) * weight_range
    return {ACCUMULATOR: most * jax.random.uniform(key, shape, jnp.float32, -1, 1)}


def update(
    options: MixedPrecision, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array
) -> Wish:
    """Accumulate; due are the weights whose accumulated change is beyond the threshold."""
    step = change.step
    if options.gradient_bits is not None:
        unit = change.largest_step / (2 ** (options.gradient_bits - 1) - 1)
        step = round_randomly(step, jnp.maximum(unit, jnp.finfo(jnp.float32).tiny), jax.random.fold_in(key, 1))
    return pair_writes.accumulate(_writes(options), chip, layer, step, weight_range, threshold(options, chip), key)


def aim(options: MixedPrecision, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """Goals, or whole pulses, towards base + accumulator."""
    return pair_writes.aim(_writes(options), chip, layer, wish, weight_range, threshold(options, chip), key)


def settle(
    options: MixedPrecision, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """The digital copy as `sync` says, and what the write left undone in the accumulator."""
    return pair_writes.settle(_writes(options), chip, layer, wish, aim, weight_range, key)


def _writes(options: MixedPrecision) -> PairWrites:
    return PairWrites(options.threshold, options.residual, options.write, options.sync, options.accumulator_bits)


POLICY = UpdatePolicy(
    name="mixed-precision",
    options=MixedPrecision,
    memory=(ACCUMULATOR,),
    check=check,
    threshold=threshold,
    update=update,
    aim=aim,
    settle=settle,
    waits=True,
    begin=begin,
)
