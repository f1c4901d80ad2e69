"""Operators that change the shape or the order of values, and those that compute with sizes."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.network.operators.kinds import Attributes, Operators, given, optional_axes, static, static_ints, text


def _flatten(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, axis = inputs[0], int(attributes.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    return jnp.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, shape = inputs[0], static_ints(inputs[1], "the target of a Reshape")
    if not attributes.get("allowzero", 0):
        shape = [x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(shape)]
    return jnp.reshape(x, shape)


def _squeeze(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.squeeze(inputs[0], optional_axes(inputs, attributes))


def _unsqueeze(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.expand_dims(inputs[0], optional_axes(inputs, attributes) or ())


def _transpose(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.transpose(inputs[0], attributes.get("perm"))


def _concat(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.concatenate([jnp.asarray(x) for x in inputs], axis=int(attributes["axis"]))


def _split(inputs: Sequence[Any], attributes: Attributes) -> tuple[Array, ...]:
    x, axis, sizes = jnp.asarray(inputs[0]), int(attributes.get("axis", 0)), given(inputs, 1)
    if sizes is not None:
        lengths = static_ints(sizes, "the sizes of a Split")
    else:
        parts = int(attributes["num_outputs"])
        length = -(-x.shape[axis] // parts)
        lengths = [max(min(length, x.shape[axis] - n * length), 0) for n in range(parts)]
    return tuple(jnp.split(x, np.cumsum(lengths)[:-1].tolist(), axis))


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    starts, ends = (static_ints(inputs[i], "a bound of a Slice") for i in (1, 2))
    axes = optional_axes(inputs, attributes, 3) or tuple(range(len(starts)))
    steps = static_ints(inputs[4], "a step of a Slice") if given(inputs, 4) is not None else [1] * len(starts)
    index: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.shape[axis]
        # Python reads -1 as the last index, ONNX after clamping as "before the first".
        first = start + size if start < 0 else start
        last = end + size if end < 0 else end
        if step > 0:
            index[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
        else:
            last = min(max(last, -1), size)
            index[axis] = slice(min(max(first, -1), size - 1), None if last < 0 else last, step)
            if first < 0:
                index[axis] = slice(0, 0)
    return x[tuple(index)]


def _pad(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, mode = jnp.asarray(inputs[0]), text(attributes, "mode", "constant")
    pads = static_ints(inputs[1], "the pads of a Pad")
    axes = optional_axes(inputs, attributes, 3) or tuple(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        widths[axis] = (pads[place], pads[len(axes) + place])
    crop = tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(x.shape, widths, strict=True))
    x, widths = x[crop], [(max(low, 0), max(high, 0)) for low, high in widths]
    if mode == "constant":
        value = given(inputs, 2)
        fill = jnp.zeros((), x.dtype) if value is None else jnp.reshape(jnp.asarray(value), ()).astype(x.dtype)
        return jnp.pad(x, widths, constant_values=fill)
    return jnp.pad(x, widths, mode)


def _expand(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    return jnp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(static_ints(inputs[1], "the shape of an Expand"))))


def _tile(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.tile(inputs[0], static_ints(inputs[1], "the repeats of a Tile"))


def _shape(inputs: Sequence[Any], attributes: Attributes) -> np.ndarray:
    return np.array(inputs[0].shape[slice(attributes.get("start", 0), attributes.get("end"))], np.int64)


def _size(inputs: Sequence[Any], attributes: Attributes) -> np.ndarray:
    return np.array(math.prod(inputs[0].shape), np.int64)


def _range(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.asarray(np.arange(*[static(value, "a bound of a Range").item() for value in inputs]))


def _constant_of_shape(inputs: Sequence[Any], attributes: Attributes) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value.numpy())
    return jnp.full(static_ints(inputs[0], "the shape of a ConstantOfShape"), fill.reshape(()))


def _depth_to_space(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, block = jnp.asarray(inputs[0]), int(attributes["blocksize"])
    n, c, h, w = x.shape
    if text(attributes, "mode", "DCR") == "DCR":
        parts = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, block = jnp.asarray(inputs[0]), int(attributes["blocksize"])
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if text(attributes, "mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = x.reshape(n, c, h // block, block, w // block, block).transpose(order)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _trilu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    shift = 0 if given(inputs, 1) is None else static_ints(inputs[1], "the diagonal of a Trilu")[0]
    return (jnp.triu if attributes.get("upper", 1) else jnp.tril)(jnp.asarray(inputs[0]), shift)


def _reverse_sequence(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, lengths = jnp.asarray(inputs[0]), jnp.asarray(inputs[1])
    batch, time = int(attributes.get("batch_axis", 1)), int(attributes.get("time_axis", 0))
    moved = jnp.moveaxis(x, (batch, time), (0, 1))
    step = jnp.arange(moved.shape[1])
    order = jnp.where(step < lengths[:, None], lengths[:, None] - 1 - step, step)
    order = order.reshape(*order.shape, *(1,) * (moved.ndim - 2))
    return jnp.moveaxis(jnp.take_along_axis(moved, order, 1), (0, 1), (batch, time))


SHAPES: Operators = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
