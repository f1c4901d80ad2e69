"""Reads of single devices, as write-verify and the digital side see them (products add their noise at the column)."""

import math

import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from runtime.crossbar.figures import figure
from runtime.crossbar.normal import normal


def read_devices(conductance: Array, key: Array, reads: int = 1, *, cell: Cell) -> Array:
    """The mean of that many noisy reads of every device, in uS.

    Args:
        conductance: what the devices hold [..], uS.
        key: a `jax.random` key.
        reads: of each device.
        cell: the device.
    """
    if not cell.reads_are_noisy:
        return conductance
    if cell.reads_follow_state:
        sd = jnp.sqrt(cell.read_noise_variance(conductance) / reads)
        return conductance + sd * normal(key, conductance.shape)
    return conductance + figure(cell.read_noise_uS / math.sqrt(reads)) * normal(key, conductance.shape)
