"""Patches of an image as columns of inputs: the form in which a convolution meets a crossbar."""

import math

import jax.numpy as jnp
from jax import Array, lax

from cimc.window import Window, output_sizes
from runtime.crossbar.xla import once


def unfold(x: Array, window: Window | None) -> Array:
    """Input vectors of every MVM: [rows, MVMs], rows in (channel, kernel) order, MVMs in (position, image) order.

    Built from strided slices, one axis after the other: on a CPU both it and its transpose (sums of shifted images) are
    several times faster than XLA's convolution. Images come last, so that every slice copies whole runs of them; rows
    come first, so that the product with a weight matrix is one matrix product over all MVMs, without a copy.

    Args:
        x: [C, *spatial, N]; without a window [rows, ...], and every further index is an MVM.
        window: the convolution window, or None for a matrix product.
    """
    if window is None:
        return x.reshape(len(x), -1)
    axes, images = len(window.kernel), x
    if any(window.pads):
        images = jnp.pad(images, [(0, 0), *((window.pads[a], window.pads[axes + a]) for a in range(axes)), (0, 0)])
    for axis, size in reversed(list(enumerate(output_sizes(x.shape[1:-1], window)))):
        stride, dilation = window.strides[axis], window.dilations[axis]
        span = (size - 1) * stride + 1
        place = images.ndim - 1 - axes + axis
        slices = [
            lax.slice_in_dim(images, offset * dilation, offset * dilation + span, stride, place)
            for offset in range(window.kernel[axis])
        ]
        # Once an axis, here and by the transpose.
        images = once(jnp.stack(slices, axis=1))
    return images.reshape(x.shape[0] * math.prod(window.kernel), -1)


def fold_output(y: Array, x_shape: tuple[int, ...], window: Window | None) -> Array:
    """The layer's output from its columns: [columns, MVMs] -> [columns, *spatial, N] or [columns, ...]."""
    if window is None:
        return y.reshape(-1, *x_shape[1:])
    return y.reshape(-1, *output_sizes(x_shape[1:-1], window), x_shape[-1])
