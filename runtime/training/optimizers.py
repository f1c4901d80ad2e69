"""Optimisers by name: optax transforms over the packed vectors of weights and digital parameters.

What they make of gradients are directions {"weight": vectors, "digital": vectors}; a step is -lr times its direction.
A new one is a member of `cimc.options.Optimizer` and a row of the table; it is also told each weight's unit. Only
`runtime.training.frank_wolfe` is made of more than directions: its steps stay in a set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from cimc.options import Optimizer
from runtime.crossbar.figures import figure
from runtime.training import frank_wolfe
from runtime.training.frank_wolfe import FrankWolfe
from runtime.training.vectors import Packing

Vectors = dict[str, tuple[Array, ...]]

MOMENTUM = 0.9


class Scale(NamedTuple):
    """What a step of weights is measured by: the unit of each packed vector (`runtime.training.compute.Compute.unit`),
    how layers lie in the vectors, their weight ranges by name, and what the policy has accumulated beside each vector.
    """

    units: tuple[Array, ...]
    packing: Packing
    ranges: dict[str, Array]
    waiting: tuple[Any, ...]


@dataclass(frozen=True)
class Steps:
    """How a step is made of a gradient; frank_wolfe: options of that optimiser, None with any other."""

    optimizer: Optimizer
    weight_decay: float
    frank_wolfe: FrankWolfe | None = None

    def init(self, parameters: Vectors) -> Any:
        """What the optimiser remembers before the first step."""
        if self.frank_wolfe is None:
            return optimizer_of(self.optimizer, self.weight_decay).init(parameters)
        return optax.scale_by_adam().init(parameters["digital"]), frank_wolfe.init(parameters["weight"])

    def update(
        self, gradient: Vectors, state: Any, parameters: Vectors, scale: Scale, rate: Array
    ) -> tuple[Vectors, Any]:
        """What weights and digital parameters should change by, and the state after it."""
        if self.frank_wolfe is None:
            rule = optimizer_of(self.optimizer, figure(self.weight_decay))
            directions, state = rule.update(gradient, state, parameters, units=scale.units)
            return jax.tree.map(lambda direction: -rate * direction, directions), state
        adam, memory = state
        digital, adam = optax.scale_by_adam().update(gradient["digital"], adam)
        theta = tuple(weight + more for weight, more in zip(parameters["weight"], scale.waiting, strict=True))
        steps, memory = frank_wolfe.update(
            self.frank_wolfe, scale.packing, gradient["weight"], memory, theta, scale.ranges, rate
        )
        return {"weight": steps, "digital": tuple(-rate * direction for direction in digital)}, (adam, memory)


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

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


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
