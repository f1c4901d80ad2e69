"""A Scan as a JAX loop: the body runs once a step, the states go from step to step (`jax.lax.scan`).

Values cannot be written down from inside of a loop. A product that does so elsewhere, such as one that chooses input
ranges, comes as a `WatchingProduct`: what its layers see in the loop is collected first, and shown to it outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.crossbar.keys import derive
from runtime.network.network import Body, Node

COLLECTED_STEPS = 64  # of a sequence, evenly spaced, are shown to a product that watches
CHECKPOINTED_STEPS = 128  # from here on training keeps the states of the steps, and computes the rest of them again

# (layer name, input, key) -> output with bias; the key is None without noise. Rows or channels come first in both and
# images last: convolutions take and give [C, *spatial, N], matrix products [rows, ...] and [columns, ...].
Product = Callable[[str, Array, Array | None], Array]
# (values of the body's inputs by name, key of the step) -> values of its outputs, and what is to be collected
Step = Callable[[dict[str, Any], Array | None], tuple[list[Array], list[Array]]]


@dataclass(frozen=True)
class WatchingProduct:
    """A product that writes down what its layers see.

    see: called outside of loops, as any product. before: computes the layers of a loop while their inputs are
    collected, which `see` then gets, with the images of all collected steps as one batch; what it returns is dropped.
    after: computes the layers of the loop then.
    """

    see: Product
    before: Product
    after: Product

    def __call__(self, name: str, x: Array, key: Array | None) -> Array:
        """As `see`."""
        return self.see(name, x, key)


def loop(
    node: Node, inputs: Sequence[Any], key: Array | None, step: Step, *, collect: bool = False
) -> tuple[list[Array], list[Array]]:
    """Run a Scan.

    Args:
        node: the Scan.
        inputs: its states, then its sequences.
        key: each step gets its own, made of this one and its number; None: no noise.
        step: runs the body once.
        collect: whether to collect from the steps.

    Returns:
        The results of the node, and what was collected: [steps, ...], of at most 64 evenly spaced steps.
    """
    body = _body(node)
    states = tuple(jnp.asarray(value) for value in inputs[: body.states])
    axes = node.attributes.get("scan_input_axes") or [0] * (len(inputs) - body.states)
    sequences = [jnp.moveaxis(jnp.asarray(x), int(a), 0) for x, a in zip(inputs[body.states :], axes, strict=True)]
    sequences = _turned(sequences, node.attributes.get("scan_input_directions"))
    steps = sequences[0].shape[0]
    slots = min(steps, COLLECTED_STEPS)

    def run(states: tuple[Array, ...], parts: list[Array], number: Array) -> tuple[list[Array], list[Array]]:
        step_key = None if key is None else derive(key, number)
        return step(dict(zip(body.inputs, (*states, *parts), strict=True)), step_key)

    def one(carry: Any, now: Any) -> Any:
        (states, kept), (number, slot, parts) = carry, now
        made, seen = run(states, parts, number)
        kept = [all_steps.at[slot].set(x) for all_steps, x in zip(kept, seen, strict=True)] if collect else []
        return (tuple(made[: body.states]), kept), made[body.states :]

    kept: list[Array] = []
    if collect:
        shapes = jax.eval_shape(run, states, [x[0] for x in sequences], jnp.int32(0))[1]
        kept = [jnp.zeros((slots, *x.shape), x.dtype) for x in shapes]
    numbers = np.arange(steps)
    # A slot keeps the last of its steps.
    scanned = (jnp.asarray(numbers, jnp.int32), jnp.asarray(numbers * slots // steps, jnp.int32), sequences)
    body_of_loop = jax.checkpoint(one, prevent_cse=False) if steps >= CHECKPOINTED_STEPS else one
    (last, kept), stacked = jax.lax.scan(body_of_loop, (states, kept), scanned)
    stacked = _turned(stacked, node.attributes.get("scan_output_directions"))
    places = node.attributes.get("scan_output_axes") or [0] * len(stacked)
    return [*last, *(jnp.moveaxis(x, 0, int(a)) for x, a in zip(stacked, places, strict=True))], kept


def as_one_batch(collected: Array) -> Array:
    """Inputs of a layer [steps, ..., N], as collected, with the images of all steps as one batch: [..., steps * N]."""
    moved = jnp.moveaxis(collected, 0, -2)
    return moved.reshape(*moved.shape[:-2], -1)


def _body(node: Node) -> Body:
    if node.body is None:
        raise ValueError(f"{node.operator} '{node.name}' has no body")
    return node.body


def _turned(sequences: Sequence[Array], directions: Sequence[int] | None) -> list[Array]:
    """Those whose direction is 1 backwards."""
    backwards = directions or [0] * len(sequences)
    return [x[::-1] if turned else x for x, turned in zip(sequences, backwards, strict=True)]
