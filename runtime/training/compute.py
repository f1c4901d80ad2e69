"""Ways to compute a training step: on the arrays, or in float32 as any framework would (the baseline)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from runtime.network.scan import Product
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System
from runtime.training.policies.policy import Change, LayerState, UpdateRule
from runtime.training.update import update_layers
from runtime.training.writes import Scheduled

# A layer whose weight range is so many sd of He's initial weights, variance 2 / rows, trains at the stated rate.
REFERENCE_SDS = 2.0


@dataclass(frozen=True)
class Compute:
    """A way to compute.

    on_arrays: whether devices hold the weights. product: how the forward pass computes a layer. unit: by what factor of
    the stated rate the weights [rows, columns] of a layer with that weight range step. apply: what a step does to the
    weights of all layers; arguments as `update_layers`. held: the state of a chip that holds the weights, of a way that
    reads layers as such a chip does; None: of others. clip: of a layer's weights [rows, columns], after every step.
    """

    on_arrays: bool
    product: Callable[[System, State], Product]
    unit: Callable[[Array, Array], Array]
    apply: Callable[..., tuple[tuple[LayerState, ...], Scheduled]]
    held: Callable[[System, State], State] | None = None
    clip: Callable[[Array], Array] | None = None

    @property
    def converts(self) -> bool:
        """Whether layers are read through the converters, so that their input ranges matter."""
        return self.on_arrays or self.held is not None


def _unit_of_range(weight: Array, weight_range: Array) -> Array:
    """The layer's weight range over that of weights [rows, columns] drawn by He's rule."""
    return weight_range / (REFERENCE_SDS * math.sqrt(2 / len(weight)))


def plain_rate(weight: Array, weight_range: Array) -> Array:
    """1: the stated rate is that of all weights."""
    return jnp.float32(1)


def add_steps(
    rule: UpdateRule,
    chip: object,
    layers: Sequence[LayerState],
    changes: Sequence[Change],
    *,
    schedule: Scheduled,
    **given: object,
) -> tuple[tuple[LayerState, ...], Scheduled]:
    """The weights themselves take the step; no device is touched."""
    moved = (layer._replace(weight=layer.weight + change.step) for layer, change in zip(layers, changes, strict=True))
    return tuple(moved), schedule


ARRAYS = Compute(True, array_product, _unit_of_range, update_layers)
FLOAT = Compute(False, exact_product, plain_rate, add_steps)
