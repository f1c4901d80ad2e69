"""Patches of an image as columns of inputs: the form in which a convolution meets a crossbar."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True)
class Window:
    """A convolution window: one entry a spatial axis; pads hold all begins, then all ends (as ONNX orders them)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def unfold(x: Array, window: Window | None) -> Array:
    """Input vectors of every MVM: [rows, images, positions], rows in (channel, kernel) order.

    Built from strided slices, one axis after the other: on a CPU both it and its transpose (sums of shifted images) are
    several times faster than XLA's convolution. Rows come first, so that the product with a weight matrix is one
    matrix product over all images and positions, without a copy.

    Args:
        x: [C, N, *spatial]; without a window [..., rows], and every leading index is an image with one position.
        window: the convolution window, or None for a matrix product.
    """
    if window is None:
        return x.reshape(-1, x.shape[-1]).T[:, :, None]
    axes, images = len(window.kernel), x
    if any(window.pads):
        images = jnp.pad(images, [(0, 0), (0, 0), *((window.pads[a], window.pads[axes + a]) for a in range(axes))])
    for axis, size in reversed(list(enumerate(output_sizes(x.shape[2:], window)))):
        stride, dilation = window.strides[axis], window.dilations[axis]
        span = (size - 1) * stride + 1
        place = images.ndim - axes + axis
        slices = [
            lax.slice_in_dim(images, offset * dilation, offset * dilation + span, stride, place)
            for offset in range(window.kernel[axis])
        ]
        # Written once an axis, here and by the transpose, whose sums XLA else computes again for each of their users.
        images = lax.optimization_barrier(jnp.stack(slices, axis=1))
    return images.reshape(x.shape[0] * math.prod(window.kernel), x.shape[1], -1)


def fold_output(y: Array, x_shape: tuple[int, ...], window: Window | None) -> Array:
    """The layer's output from its columns: [columns, images, positions] -> [columns, N, *spatial] or [..., columns]."""
    if window is None:
        return y.reshape(y.shape[0], -1).T.reshape(*x_shape[:-1], y.shape[0])
    return y.reshape(*y.shape[:2], *output_sizes(x_shape[2:], window))


def output_sizes(spatial: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Spatial output sizes of the convolution."""
    axes = len(window.kernel)
    return tuple(
        (spatial[a] + window.pads[a] + window.pads[axes + a] - window.dilations[a] * (window.kernel[a] - 1) - 1)
        // window.strides[a]
        + 1
        for a in range(axes)
    )
