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
from runtime.system.state import State, gain_of

LEAST = 1e-4  # of the mean magnitude that is divided by, as a fraction of the window: a layer of zeros stays as it is


def compensated_gains(
    kind: Compensate, chips: tuple[Chip, Chip], written: State, aged: State, key: Array
) -> dict[str, Array]:
    """The digital gain of every layer of an aged chip, scalar or [columns].

    A layer's gain is multiplied by the mean magnitude of its weights as read right after programming over that as read
    now, of the layer (global: Le Gallo et al., Nature Electronics 2023; all one-hot inputs read the weights) or of each
    of its columns. Each read has the noise of its device; inputs, biases and the rest of the network stay as they are.

    Args:
        kind: what is compensated.
        chips: the chip as its reads are right after programming, and now.
        written, aged: its state then and now.
        key: of the reads.
    """
    gains = {}
    for index, (name, before) in enumerate(written["conductance"].items()):
        first, now = jax.random.split(jax.random.fold_in(key, index))
        per_column = kind is Compensate.column
        then = _magnitude(chips[0], per_column, before, first)
        ratio = then / _magnitude(chips[1], per_column, aged["conductance"][name], now)
        gains[name] = jnp.asarray(gain_of(written, name) * ratio, jnp.float32)
    return gains


@partial(jit, static_argnums=(0, 1))
def _magnitude(chip: Chip, per_column: bool, conductance: Array, key: Array) -> Array:
    """Mean magnitude of the weights of conductances [2, rows, columns], as read: scalar or [columns]."""
    weight = pair_weight(device_of(chip.cell).read(conductance, key), np.float32(1), chip)
    return jnp.maximum(jnp.mean(jnp.abs(weight), axis=0 if per_column else None), LEAST)
