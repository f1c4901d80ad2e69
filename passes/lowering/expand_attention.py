"""Attention and rotary embeddings, of the standard and of onnxruntime, become products and other plain operators.

So their gradients pass, and their rows and operations are counted, as where an exporter wrote them out.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from passes.graph_edit import constant
from passes.lowering.expand import Builder, Rule, expand
from passes.lowering.expand_quantized import MICROSOFT
from passes.lowering.infer_shapes import InferShapes

_ABSENT = -1e30  # added to the score of a key that does not count; finite, so that sums with masks stay numbers


class ExpandAttention(ir.passes.InPlacePass):
    """Expand all that have no cache of earlier keys; the others stay, and run in onnxruntime."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Expand all of them; the sizes that this takes are inferred first, where there are any."""
        if not any((node.domain, node.op_type) in _RULES for node in model.graph):
            return ir.passes.PassResult(model, modified=False)
        InferShapes()(model)
        return ir.passes.PassResult(model, modified=bool(expand(model, _RULES)))


def _standard_attention(build: Builder) -> list[ir.Value] | None:
    """Attention(query, key, value, mask) of opset 23: [N, length, heads x size], or [N, heads, length, size]."""
    attributes, rank = build.node.attributes, _rank(build.needed(0))
    query, key, value = (build.needed(place) for place in range(3))
    if rank not in (3, 4) or any(build.input(place) is not None for place in (4, 5, 6)):
        return None  # earlier keys and values, or how many of them count
    visible, mask = _visible(build, query, key), build.input(3)
    if rank == 3:
        heads, shared = attributes.get_int("q_num_heads", 0), attributes.get_int("kv_num_heads", 0)
    else:
        heads, shared = _size(query, 1) or 0, _size(key, 1) or 0
    widths = [_size(one, -1) for one in (query, value)]
    if visible is None or not widths[0] or not widths[1] or min(heads, shared) < 1 or heads % shared:
        return None
    if rank == 3 and (widths[0] % heads or widths[1] % shared):
        return None  # onnxruntime says what is wrong with it
    if mask is not None and _size(mask, -1) != _size(key, -2):
        return None  # a shorter one: the rest does not count
    size, value_size = (widths[0] // heads, widths[1] // shared) if rank == 3 else (widths[0], widths[1])
    allowed = None if visible.all() else build.constant(visible)
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        mask, allowed = None, mask if allowed is None else build("And", mask, allowed)
    if rank == 3:
        query, value = _split_heads(build, query, heads), _split_heads(build, value, shared)
        key = _split_heads(build, key, shared, [0, 2, 3, 1])
    else:
        key = build("Transpose", key, perm=[0, 1, 3, 2])
    mixed = _attend(
        build,
        query,
        _repeat(build, key, heads // shared, [0, heads, size, -1]),
        _repeat(build, value, heads // shared, [0, heads, -1, value_size]),
        scale=float(attributes.get_float("scale", 0.0)) or size**-0.5,
        softcap=float(attributes.get_float("softcap", 0.0)),
        added=mask,
        allowed=allowed,
    )
    return [_join_heads(build, mixed) if rank == 3 else mixed]


def _attention(build: Builder) -> list[ir.Value] | None:
    """Attention(x, weight, bias, mask) of onnxruntime: one product gives query, key and value."""
    attributes, weight, x = build.node.attributes, build.needed(1), build.needed(0)
    if weight.shape is None or not isinstance(weight.shape[1], int) or attributes.get_int("do_rotary", 0) == 1:
        return None
    if any(build.input(index) is not None for index in range(4, len(build.node.inputs))):
        return None  # earlier keys and values, or a bias of the scores
    width = weight.shape[1]
    sizes = [int(size) for size in attributes.get_ints("qkv_hidden_sizes", ()) or [width // 3] * 3]
    if not _is_plain(build, build.input(3)):
        return None
    projected, bias = build("MatMul", x, weight), build.input(2)
    projected = projected if bias is None else build("Add", projected, bias)
    return _heads(build, build.split(projected, sizes), sizes[0], build.input(3))


def _multi_head_attention(build: Builder) -> list[ir.Value] | None:
    """MultiHeadAttention(query, key, value, bias, mask) of onnxruntime, each [N, length, heads x size]."""
    query, bias = build.needed(0), build.input(3)
    if build.input(1) is None or build.input(2) is None or not _is_plain(build, build.input(4)):
        return None
    if any(build.input(index) is not None for index in range(5, len(build.node.inputs))):
        return None
    parts = [query, build.needed(1), build.needed(2)]
    if bias is not None and bias.shape is not None and isinstance(bias.shape[0], int):
        width = bias.shape[0] // 3
        parts = [build("Add", part, one) for part, one in zip(parts, build.split(bias, [width] * 3), strict=True)]
    elif bias is None and _rank(query) == 3 and (found := _size(query, 2)) is not None:
        width = found
    else:
        return None
    return _heads(build, parts, width, build.input(4))


def _is_plain(build: Builder, mask: ir.Value | None) -> bool:
    """Whether every query sees every key, but for those that a mask [N, keys] leaves out."""
    return not build.node.attributes.get_int("unidirectional", 0) and (mask is None or _rank(mask) == 2)


def _heads(build: Builder, parts: Sequence[ir.Value], width: int, mask: ir.Value | None) -> list[ir.Value]:
    """Attention of query, key and value [N, length, heads x size]; `mask` [N, keys]: 1 where one counts."""
    attributes = build.node.attributes
    heads, added = attributes.get_int("num_heads"), None
    query, value = (_split_heads(build, part, heads) for part in (parts[0], parts[2]))
    key = _split_heads(build, parts[1], heads, [0, 2, 3, 1])
    if mask is not None:
        counts = build("Unsqueeze", mask, build.constant(np.array([1, 2], np.int64)))
        absent = build("Sub", build.constant(1.0), build("Cast", counts, to=int(ir.DataType.FLOAT)))
        added = build("Mul", absent, build.constant(float(attributes.get_float("mask_filter_value", -10000.0))))
    scale = float(attributes.get_float("scale", 0.0)) or (width // heads) ** -0.5
    return [_join_heads(build, _attend(build, query, key, value, scale=scale, added=added))]


def _attend(
    build: Builder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    scale: float,
    softcap: float = 0.0,
    added: ir.Value | None = None,
    allowed: ir.Value | None = None,
) -> ir.Value:
    """softmax(scale query key + added) value, with `key` [N, heads, size, keys].

    softcap: c tanh(score / c) takes the place of a score. added: to the scores. allowed: where they count; a query that
    sees no key gives 0.
    """
    score = build("Mul", build("MatMul", query, key), build.constant(scale))
    if softcap:
        cap = build.constant(softcap)
        score = build("Mul", build("Tanh", build("Div", score, cap)), cap)
    if added is not None:
        score = build("Add", score, added)
    if allowed is not None:
        score = build("Where", allowed, score, build.constant(_ABSENT))
    share = build("Softmax", score, axis=-1)
    known = None if allowed is None else constant(allowed)
    if allowed is not None and (known is None or not known.any(axis=-1).all()):
        share = build("Where", allowed, share, build.constant(0.0))
    return build("MatMul", share, value)


def _visible(build: Builder, query: ir.Value, key: ir.Value) -> np.ndarray | None:
    """Which keys each query sees [queries, keys] by its place; one element where it sees all; None: not known."""
    attributes = build.node.attributes
    left, right = (attributes.get_int(f"{side}_window_size", -1) for side in ("left", "right"))
    causal = bool(attributes.get_int("is_causal", 0))
    if not causal and left < 0 and right < 0:
        return np.ones(1, bool)
    queries, keys = _size(query, -2), _size(key, -2)
    if queries is None or keys is None:
        return None
    behind = np.arange(keys) - np.arange(queries)[:, None]
    seen = np.ones_like(behind, bool) if not causal else behind <= 0
    if left >= 0:
        seen &= behind >= -left
    return seen & (behind <= right) if right >= 0 else seen


def _split_heads(build: Builder, value: ir.Value, heads: int, order: Sequence[int] = (0, 2, 1, 3)) -> ir.Value:
    """[N, length, heads x size] as [N, heads, length, size], or in another order of [N, length, heads, size]."""
    split = build("Reshape", value, build.constant(np.array([0, 0, heads, -1], np.int64)))
    return build("Transpose", split, perm=order)


def _join_heads(build: Builder, value: ir.Value) -> ir.Value:
    """[N, heads, length, size] as [N, length, heads x size]."""
    turned = build("Transpose", value, perm=[0, 2, 1, 3])
    return build("Reshape", turned, build.constant(np.array([0, 0, -1], np.int64)))


def _repeat(build: Builder, value: ir.Value, times: int, sizes: Sequence[int]) -> ir.Value:
    """[N, heads, ...] with every head so many times in a row; sizes: of the result, for a Reshape."""
    if times == 1:
        return value
    apart = build("Unsqueeze", value, build.constant(np.array([2], np.int64)))
    return build("Reshape", build("Concat", *[apart] * times, axis=2), build.constant(np.array(sizes, np.int64)))


def _standard_rotary(build: Builder) -> list[ir.Value] | None:
    """RotaryEmbedding(x, cos, sin, places) of opset 23; without places cos and sin are [N, length, size / 2]."""
    return _rotate(build, build.needed(0), build.needed(1), build.needed(2), build.input(3))


def _rotary(build: Builder) -> list[ir.Value] | None:
    """RotaryEmbedding(x, places, cos, sin) of onnxruntime; places [N, length], or the first one."""
    x, places, cos, sin = (build.needed(place) for place in range(4))
    attributes = build.node.attributes
    if attributes.get_float("scale", 1.0) != 1 or attributes.get_int("is_packed_batching", 0) == 1:
        return None
    if _rank(places) == 1:
        first, tables = constant(places), [constant(cos), constant(sin)]
        length = _size(x, 1 if _rank(x) == 3 else 2)
        if first is None or length is None or any(table is None for table in tables):
            return None
        begin = int(first[0])
        cos, sin = (build.constant(table[None, begin : begin + length]) for table in tables if table is not None)
        return _rotate(build, x, cos, sin, None)
    return _rotate(build, x, cos, sin, places)


def _rotate(
    build: Builder, x: ir.Value, cos: ir.Value, sin: ir.Value, places: ir.Value | None
) -> list[ir.Value] | None:
    """Pairs of the first elements of each head turned by angles of their place (arXiv 2104.09864)."""
    attributes, half, rank, width = build.node.attributes, _size(cos, -1), _rank(x), _size(x, -1)
    if not half or not width or rank not in (3, 4):
        return None
    heads = attributes.get_int("num_heads", 0) or width // (2 * half)
    if rank == 3 and (heads < 1 or width % heads):
        return None  # onnxruntime says what is wrong with it
    size = width // heads if rank == 3 else width
    if places is not None:
        cos, sin = (build("Gather", table, places, axis=0) for table in (cos, sin))
    # Heads last but one, [N, length, heads, size], or as they are, [N, heads, length, size].
    axis = build.constant(np.array([2 if rank == 3 else 1], np.int64))
    cos, sin = (build("Unsqueeze", table, axis) for table in (cos, sin))
    if rank == 3:
        x = build("Reshape", x, build.constant(np.array([0, 0, heads, size], np.int64)))
    turned, *rest = build.split(x, [2 * half, size - 2 * half]) if size > 2 * half else [x]
    last = build.constant(np.array([-1], np.int64))
    if attributes.get_int("interleaved", 0):
        pairs = build("Reshape", turned, build.constant(np.array([0, 0, 0, half, 2], np.int64)))
        one, other = (build("Squeeze", part, last) for part in build.split(pairs, [1, 1]))
    else:
        one, other = build.split(turned, [half, half])
    new = [
        build("Sub", build("Mul", cos, one), build("Mul", sin, other)),
        build("Add", build("Mul", sin, one), build("Mul", cos, other)),
    ]
    if attributes.get_int("interleaved", 0):
        pairs = build("Concat", *(build("Unsqueeze", part, last) for part in new), axis=-1)
        new = [build("Reshape", pairs, build.constant(np.array([0, 0, 0, 2 * half], np.int64)))]
    y = build("Concat", *new, *rest, axis=-1) if len(new) + len(rest) > 1 else new[0]
    return [build("Reshape", y, build.constant(np.array([0, 0, width], np.int64))) if rank == 3 else y]


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _size(value: ir.Value, axis: int) -> int | None:
    """A size that is known."""
    if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


_RULES: dict[tuple[str, str], Rule] = {
    ("", "Attention"): _standard_attention,
    ("", "RotaryEmbedding"): _standard_rotary,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "MultiHeadAttention"): _multi_head_attention,
    (MICROSOFT, "RotaryEmbedding"): _rotary,
}
