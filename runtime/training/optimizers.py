"""Optimisers by name: optax transforms over the packed vectors of weights and digital parameters.

What they make of gradients are directions {"weight": vectors, "digital": vectors}; a step is -lr times its direction.
A new one is a member of `cimc.options.Optimizer` and a row of the table; it is also told each weight's unit. Only
`runtime.training.frank_wolfe` is made of more than directions: its steps stay in a set.
"""

from collections.abc import Callable
from typing import Any

import optax

from cimc.options import Optimizer

MOMENTUM = 0.9


def optimizer_of(name: Optimizer, weight_decay: float) -> Any:
    """The transform of an optimiser.

    Its `update(gradient, state, parameters, units=...)` takes the unit of the steps of each vector of weights
    (`runtime.training.compute.Compute.unit`).
    """
    return optax.chain(*_OPTIMIZERS[name](weight_decay))


def _in_units() -> Any:
    """Directions of the weights in the unit of each."""

    def update(directions: Any, state: Any, params: Any = None, *, units: Any, **others: Any) -> tuple[Any, Any]:
        del params, others
        weights = tuple(unit * one for unit, one in zip(units, directions["weight"], strict=True))
        return {**directions, "weight": weights}, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _decay(weight_decay: float) -> Any:
    """Weight decay of the crossbar weights alone."""
    return optax.add_decayed_weights(weight_decay, mask={"weight": True, "digital": False})


_OPTIMIZERS: dict[Optimizer, Callable[[float], tuple[Any, ...]]] = {
    # Decoupled decay, of the crossbar weights.
    Optimizer.adam: lambda decay: (optax.scale_by_adam(), _in_units(), _decay(decay)),
    # As frameworks have it: decoupled decay of all parameters.
    Optimizer.adamw: lambda decay: (optax.scale_by_adam(), _in_units(), optax.add_decayed_weights(decay)),
    # The decay is part of the gradient.
    Optimizer.momentum: lambda decay: (_decay(decay), optax.trace(MOMENTUM), _in_units()),
    Optimizer.sgd: lambda decay: (_decay(decay), _in_units()),
}
