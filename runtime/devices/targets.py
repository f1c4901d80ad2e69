"""Weights and the conductances of their devices (`cimc.units`), in programs that take the chip's figures as values."""

import jax
import numpy as np

from cimc import units
from cimc.chip import Chip
from cimc.scheme import AnyArray
from runtime.crossbar.figures import figure


def device_targets(weight: AnyArray, weight_range: AnyArray, chip: Chip) -> AnyArray:
    """`cimc.units.device_targets`."""
    return units.device_targets(weight, weight_range, chip, jax.tree.map(figure, units.target_grid(chip)))


def weight_of(conductance: AnyArray, weight_range: AnyArray, chip: Chip) -> AnyArray:
    """`cimc.units.weight_of`."""
    return units.weight_of(conductance, weight_range, chip, figure(np.float32(chip.scheme.full_uS)))
