"""A crossbar layer as a step of inference: its input as ONNX has it, its devices and scales from the state."""

import math
from collections.abc import Callable

import numpy as np
from jax import Array

from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.network.stepwise import LayerStep
from runtime.system.state import State, System, bias_of, gain_of


def held_of(system: System, state: State, layer: str) -> Held:
    """What the chip and the digital side hold of a layer."""
    return Held(
        state["conductance"][layer],
        state["weight_range"][layer],
        state["input_range"][layer],
        gain_of(state, layer),
        bias_of(system, state, layer),
        state["input_factor"].get(layer),
        state["reference_column"].get(layer),
    )


def read_layer(
    system: System, step: LayerStep, x: Floats, held: Held, key: Array | None, *, first: int, samples: int
) -> Floats:
    """The output of a layer on its arrays, both as in ONNX.

    Args:
        system: network and chip.
        step: the node.
        x: its input.
        held: what the chip and the digital side hold of it.
        key: for noise; None: none.
        first: the number of the first sample of the batch.
        samples: in the batch.
    """
    vectors, restore = samples_first(system, step, x)
    # Of several images or sequences a sample, each has its own number.
    each = len(vectors) // samples if len(vectors) % samples == 0 else 1
    crossbar = system.crossbars[step.layer]
    return restore(read_in_pieces(crossbar, vectors, held, key, number=step.number, first=first * each))


def samples_first(system: System, step: LayerStep, x: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
    """A layer's input as [samples, C, *spatial] or [samples, vectors, rows], and what brings its output back.

    The batch of a product may stand on any axis but the last. Where there is none, all vectors are one sample's.
    """
    if system.crossbars[step.layer].window is not None:
        return x, lambda y: y
    sizes = system.network.shapes.get(step.node.input[0], ())
    axis = next((place for place, size in enumerate(sizes[:-1]) if isinstance(size, str)), None)
    whole = x[None] if axis is None else np.moveaxis(x, axis, 0)
    vectors = whole.reshape(len(whole), math.prod(whole.shape[1:-1]), whole.shape[-1])

    def restore(y: Floats) -> Floats:
        back = y.reshape(*whole.shape[:-1], y.shape[-1])
        return back[0] if axis is None else np.moveaxis(back, 0, axis)

    return vectors, restore
