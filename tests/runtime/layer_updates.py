"""Updates of one layer."""

import jax
import jax.numpy as jnp
import numpy.typing as npt
from jax import Array

from cimc.chip import Chip, load_chip
from cimc.units import device_targets
from runtime.training.options import Policy
from runtime.training.policies.policy import Change, LayerState
from tests.runtime.one_layer import update_one

SHAPE = (6, 5)


def change_layer(
    policy: Policy, chip: Chip, layer: LayerState, step: Array, weight_range: Array, key: Array
) -> LayerState:
    """One step as training takes it; the gradient is not looked at."""
    change = Change(step, step * jnp.nan)
    return update_one(policy.rule, chip, layer, change, weight_range=weight_range, key=key, compute=policy.compute)


update = jax.jit(change_layer, static_argnums=(0, 1))


IDEAL, COARSE, SOC, HERMES = (load_chip(name) for name in ("ideal", "brram-256x64", "brram-soc", "hermes"))


# Without read noise, that can take a device at a bound for one that a pulse still moves.
QUIET = COARSE.model_copy(update={"cell": COARSE.cell.model_copy(update={"read_noise_uS": 0.0})})


def layer_of(weight: npt.ArrayLike, chip: Chip, weight_range: float = 1.0) -> LayerState:
    """A layer whose devices sit at the targets of `weight`."""
    weight = jnp.asarray(weight, jnp.float32)
    g = device_targets(weight, jnp.float32(weight_range), chip)
    counts = (jnp.zeros(weight.shape, jnp.int32), jnp.zeros(g.shape, jnp.int32), jnp.zeros(g.shape, jnp.int32))
    return LayerState(weight, {"accumulator": jnp.zeros_like(weight)}, g, *counts)


def apply(
    policy: Policy, chip: Chip, layer: LayerState, *steps: npt.ArrayLike, weight_range: float = 1.0, seed: int = 0
) -> LayerState:
    for index, step in enumerate(steps):
        key = jax.random.fold_in(jax.random.key(seed), index)
        layer = update(policy, chip, layer, jnp.asarray(step, jnp.float32), jnp.float32(weight_range), key)
    return layer
