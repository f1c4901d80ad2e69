"""Products of values with each other, such as those of attention, and the gathering of overlapping patches."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cimc.window import Window
from runtime.crossbar.unfold import unfold
from runtime.network.operators.kinds import Attributes, Operators, given, static_ints, text

_PADDING = {"SAME_UPPER": "SAME", "SAME_LOWER": "SAME_LOWER", "VALID": "VALID"}  # ONNX's names and JAX's


def _matmul(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.matmul(jnp.asarray(inputs[0]), jnp.asarray(inputs[1]))


def _gemm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    a, b, c = jnp.asarray(inputs[0]), jnp.asarray(inputs[1]), given(inputs, 2)
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    y = float(attributes.get("alpha", 1.0)) * (a @ b)
    return y if c is None else y + float(attributes.get("beta", 1.0)) * jnp.asarray(c)


def _einsum(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.einsum(text(attributes, "equation", "").replace(" ", ""), *[jnp.asarray(x) for x in inputs])


def _conv(inputs: Sequence[Any], attributes: Attributes) -> Array:
    """[N, C_in, *spatial] with a kernel [C_out, C_in / group, *kernel]."""
    x, kernel, bias = jnp.asarray(inputs[0]), jnp.asarray(inputs[1]), given(inputs, 2)
    axes = kernel.ndim - 2
    pads = tuple(int(p) for p in attributes.get("pads", (0, 0) * axes))
    automatic = text(attributes, "auto_pad", "NOTSET")
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=[int(s) for s in attributes.get("strides", (1,) * axes)],
        padding=list(zip(pads[:axes], pads[axes:], strict=True)) if automatic == "NOTSET" else _PADDING[automatic],
        rhs_dilation=[int(d) for d in attributes.get("dilations", (1,) * axes)],
        feature_group_count=int(attributes.get("group", 1)),
    )
    return y if bias is None else y + jnp.asarray(bias).reshape(-1, *(1,) * axes)


def _col2im(inputs: Sequence[Any], attributes: Attributes) -> Array:
    """Sums of overlapping patches: the transpose of `unfold`."""
    x = jnp.asarray(inputs[0])
    image, block = (tuple(static_ints(inputs[i], "a size of a Col2Im")) for i in (1, 2))
    axes = len(image)
    ones = (1,) * axes
    window = Window(
        block,
        tuple(int(s) for s in attributes.get("strides", ones)),
        tuple(int(p) for p in attributes.get("pads", (0, 0) * axes)),
        tuple(int(d) for d in attributes.get("dilations", ones)),
    )
    batch, rows, _ = x.shape
    channels = rows
    for size in block:
        channels //= size
    zero = jnp.zeros((channels, *image, batch), x.dtype)
    vectors = jnp.moveaxis(x, 0, -1).reshape(rows, -1)
    (summed,) = jax.linear_transpose(lambda images: unfold(images, window), zero)(vectors)
    return jnp.moveaxis(summed, -1, 0)


PRODUCTS: Operators = {"Col2Im": _col2im, "Conv": _conv, "Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
