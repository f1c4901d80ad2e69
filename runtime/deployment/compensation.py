"""Drift compensation: digital scales that make up for what time took from a chip's devices, by reads of them alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.chip import Chip
from cimc.options import Compensate
from cimc.units import pair_weight
from runtime.crossbar.xla import jit
from runtime.devices.device import device_of
from runtime.system.state import State, System, gain_of

LEAST = 1e-4  # of the mean magnitude that is divided by, as a fraction of the window: a layer of zeros stays as it is


def compensated_gains(kind: Compensate, system: System, written: State, aged: State, key: Array) -> dict[str, Array]:
    """The digital gain of every layer of an aged chip, scalar or [columns].

    A layer's gain is multiplied by the mean magnitude of its weights as read right after programming over that as read
    now, of the layer (global: Le Gallo et al., Nature Electronics 2023; all one-hot inputs read the weights) or of each
    of its columns. Each read has the noise of its device; inputs, biases and the rest of the network stay as they are.

    Args:
        kind: what is compensated.
        system: network and chip.
        written, aged: the state of a chip right after programming, and now.
        key: of the reads.
    """
    gains = {}
    for index, (name, before) in enumerate(written["conductance"].items()):
        first, now = jax.random.split(jax.random.fold_in(key, index))
        per_column = kind is Compensate.column
        ratio = _ratio(system.chip, per_column, before, aged["conductance"][name], first, now)
        gains[name] = jnp.asarray(gain_of(written, name) * ratio, jnp.float32)
    return gains


@partial(jit, static_argnums=(0, 1))
def _ratio(chip: Chip, per_column: bool, before: Array, aged: Array, first: Array, now: Array) -> Array:
    """Mean magnitude before over that of aged conductances [2, rows, columns], as read: scalar or [columns]."""

    def magnitude(conductance: Array, key: Array) -> Array:
        weight = pair_weight(device_of(chip.cell).read(conductance, key), np.float32(1), chip)
        return jnp.mean(jnp.abs(weight), axis=0 if per_column else None)

    return jnp.maximum(magnitude(before, first), LEAST) / jnp.maximum(magnitude(aged, now), LEAST)
