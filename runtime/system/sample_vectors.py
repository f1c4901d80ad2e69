"""Some of the vectors that a layer's arrays are driven with, drawn from those of all its MVMs."""

import math

import numpy as np
from numpy.typing import NDArray

from cimc.window import output_sizes
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats


def sample_vectors(layer: Crossbar, x: Floats, most: int, random: np.random.Generator) -> Floats:
    """Inputs [rows, MVMs] of at most so many MVMs of a layer, drawn from all of them.

    Args:
        layer: static description.
        x: [samples, C, *spatial], or of a product [samples, vectors, rows].
        most: MVMs.
        random: draws.
    """
    window = layer.window
    if window is None:
        vectors = x.reshape(-1, x.shape[-1])
        return vectors[_draw(len(vectors), most, random)].T
    axes, sizes = len(window.kernel), output_sizes(x.shape[2:], window)
    chosen = np.unravel_index(_draw(len(x) * math.prod(sizes), most, random), (len(x), *sizes))
    padded = np.pad(x, [(0, 0), (0, 0), *((window.pads[a], window.pads[axes + a]) for a in range(axes))])
    # One index an axis: [MVMs, *kernel].
    places = [
        np.expand_dims(
            chosen[1 + axis][:, None] * window.strides[axis] + np.arange(window.kernel[axis]) * window.dilations[axis],
            tuple(1 + other for other in range(axes) if other != axis),
        )
        for axis in range(axes)
    ]
    images = chosen[0].reshape(-1, *[1] * axes)
    patches: Floats = np.moveaxis(padded, 1, -1)[(images, *places)]  # [MVMs, *kernel, C]
    return np.moveaxis(patches, -1, 1).reshape(len(images), -1).T


def _draw(count: int, most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """At most so many different numbers below `count`."""
    return random.choice(count, min(count, most), replace=False)
