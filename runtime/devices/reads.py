"""Reads of single devices, as write-verify and the digital side see them (products add their noise at the column)."""

import math

from jax import Array

from cimc.chip import Cell
from runtime.crossbar.normal import normal


def read_devices(conductance: Array, key: Array, reads: int = 1, *, cell: Cell) -> Array:
    """The mean of that many noisy reads of every device, in uS.

    Args:
        conductance: what the devices hold [..], uS.
        key: a `jax.random` key.
        reads: of each device.
        cell: the device.
    """
    if cell.read_noise_uS == 0:
        return conductance
    return conductance + cell.read_noise_uS / math.sqrt(reads) * normal(key, conductance.shape)
