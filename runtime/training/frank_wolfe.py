"""Frank-Wolfe steps on averaged gradients: weights stay within a convex set, whatever the gradients' noise.

For each layer, with the gradient g of step k, the rate eta and the weights theta (what the devices hold and what the
policy has accumulated):

    d     = (1 - rho) d + rho g           rho = 4 / (k + 8)^(2/3), or a constant; 1: no average
    s     = argmin over s in C of <s, d>
    theta = theta + eta (s - theta)       within C again, for it is between theta and s

With w the layer's weight range, r the radius and n its weights, C and its s are

    box        |theta| <= r w                                                   -r w sign(d)
    l2-ball    |theta / w| <= r sqrt(n), and no weight leaves its range         -r sqrt(n) w (w d) / |w d|
    k-sparse   convex hull of vectors of K entries +-r w, K = density n         -r w sign(d) at the K largest |w d|

The source of average and steps: Mokhtari, Hassani and Karbasi (arXiv 1804.09554); with forward gradients: arXiv
2403.12511; of the sets: Pokutta et al. (arXiv 2010.07243). With the box and r = 1, C is the conductance window itself.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.options import Constraint, check_choice, check_number
from runtime.training.vectors import Packing, pack, unpack


@dataclass(frozen=True)
class FrankWolfe:
    """Options.

    constraint: the set. radius: its size, as a fraction of the weight range. density: of k-sparse, the share of a
    layer's weights that a step moves towards their bounds. averaging: weight of the new gradient in the average; None:
    falls with the steps.
    """

    constraint: Constraint = Constraint.box
    radius: float = 1.0
    density: float = 0.1
    averaging: float | None = None

    def __post_init__(self) -> None:
        """Raises CimcError for a value that is none."""
        object.__setattr__(self, "constraint", check_choice(Constraint, "constraint", self.constraint))
        most = {"radius": math.inf if self.constraint is Constraint.l2_ball else 1, "density": 1, "averaging": 1}
        for name, limit in most.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_number(f"--{name}", value, least=0, most=limit))


class Memory(NamedTuple):
    """What the steps remember: the averages d of packed gradients, and how many steps were taken."""

    average: tuple[Array, ...]
    steps: Array


def init(weights: tuple[Array, ...]) -> Memory:
    """Before the first step; weights packed."""
    return Memory(tuple(jnp.zeros_like(vector) for vector in weights), jnp.int32(0))


def update(
    options: FrankWolfe,
    packed: Packing,
    gradients: tuple[Array, ...],
    memory: Memory,
    weights: tuple[Array, ...],
    ranges: dict[str, Array],
    rate: Array,
) -> tuple[tuple[Array, ...], Memory]:
    """What the weights should change by, and the memory.

    Args:
        options: of the steps.
        packed: how the layers lie in the vectors.
        gradients: packed.
        memory: of the steps before.
        weights: theta, packed; within their ranges.
        ranges: weight range of each layer, scalar or [columns].
        rate: eta, taken as 1 where it is larger.
    """
    rho = options.averaging
    share = jnp.minimum(1.0, 4 * (memory.steps + 8.0) ** (-2 / 3)) if rho is None else jnp.float32(rho)
    average = tuple(d + share * (g - d) for d, g in zip(memory.average, gradients, strict=True))
    goals = pack(packed, {name: vertex(options, d, ranges[name]) for name, d in unpack(packed, average).items()})
    bounds = pack(
        packed, {name: jnp.broadcast_to(ranges[name], d.shape) for name, d in unpack(packed, average).items()}
    )
    eta = jnp.minimum(rate, 1.0)
    steps = tuple(
        jnp.clip(theta + eta * (goal - theta), -bound, bound) - theta
        for theta, goal, bound in zip(weights, goals, bounds, strict=True)
    )
    return steps, Memory(average, memory.steps + 1)


def vertex(options: FrankWolfe, direction: Array, weight_range: Array) -> Array:
    """The point of a layer's set that lies farthest against a direction [rows, columns]."""
    in_ranges = direction * weight_range
    if options.constraint is Constraint.l2_ball:
        length = jnp.sqrt(jnp.sum(jnp.square(in_ranges)))
        unit = in_ranges / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)
        return -options.radius * math.sqrt(direction.size) * weight_range * unit
    corner = -options.radius * weight_range * jnp.sign(direction)
    if options.constraint is Constraint.box:
        return corner
    count = max(round(options.density * direction.size), 1)
    _, places = jax.lax.top_k(jnp.abs(in_ranges).reshape(-1), count)
    moved = jnp.zeros(direction.size, bool).at[places].set(True)
    return jnp.where(moved.reshape(direction.shape), corner, 0.0)
