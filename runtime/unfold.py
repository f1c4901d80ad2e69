"""Patches of an image as columns of inputs: the form in which a convolution meets a crossbar."""

import itertools
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Window:
    """A convolution window: one entry a spatial axis; pads hold all begins, then all ends (as ONNX orders them)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def unfold(x: Array, window: Window | None) -> Array:
    """Input vectors of every MVM: [images, rows, positions], rows in (channel, kernel) order.

    Built from strided slices, one for each kernel offset: on a CPU both it and its transpose (a sum of shifted images)
    are several times faster than XLA's convolution.

    Args:
        x: [N, C, *spatial]; without a window [..., rows], and every leading index is an image with one position.
        window: the convolution window, or None for a matrix product.
    """
    if window is None:
        return x.reshape(-1, x.shape[-1], 1)
    axes = len(window.kernel)
    pads = [(0, 0), (0, 0)] + [(window.pads[a], window.pads[axes + a]) for a in range(axes)]
    padded = jnp.pad(x, pads) if any(window.pads) else x
    sizes = output_sizes(x.shape[2:], window)
    spans = [(size - 1) * stride + 1 for size, stride in zip(sizes, window.strides, strict=True)]
    slices = []
    for offset in itertools.product(*(range(k) for k in window.kernel)):
        index = tuple(
            slice(o * dilation, o * dilation + span, stride)
            for o, dilation, span, stride in zip(offset, window.dilations, spans, window.strides, strict=True)
        )
        slices.append(padded[(slice(None), slice(None), *index)])
    return jnp.stack(slices, axis=2).reshape(x.shape[0], x.shape[1] * len(slices), -1)


def fold_output(y: Array, x_shape: tuple[int, ...], window: Window | None) -> Array:
    """The layer's output from its columns: [images, columns, positions] -> [N, columns, *spatial] or [..., columns]."""
    if window is None:
        return y.reshape(*x_shape[:-1], y.shape[1])
    return y.reshape(y.shape[0], y.shape[1], *output_sizes(x_shape[2:], window))


def output_sizes(spatial: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Spatial output sizes of the convolution."""
    axes = len(window.kernel)
    return tuple(
        (spatial[a] + window.pads[a] + window.pads[axes + a] - window.dilations[a] * (window.kernel[a] - 1) - 1)
        // window.strides[a]
        + 1
        for a in range(axes)
    )
