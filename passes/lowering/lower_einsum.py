"""Einsum of a value and a constant becomes a MatMul with a constant, which becomes a crossbar layer."""

import math

import numpy as np
import onnx_ir as ir

from passes.graph_edit import float_constant
from passes.lowering.expand import Builder, expand

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class LowerEinsum(ir.passes.InPlacePass):
    """Replace Einsum nodes of two operands, one of them constant, that are products; others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes."""
        return ir.passes.PassResult(model, modified=bool(expand(model, {("", "Einsum"): _product})))


def _product(build: Builder) -> list[ir.Value] | None:
    if len(build.node.inputs) != 2:
        return None
    x, other = build.needed(0), build.needed(1)
    weight, place = float_constant(other), 1
    if weight is None:
        x, weight, place = other, float_constant(x), 0
    if weight is None or x.shape is None:
        return None
    ranks = (len(x.shape), weight.ndim) if place else (weight.ndim, len(x.shape))
    terms = _terms(build.node.attributes.get_string("equation", ""), ranks)
    if terms is None:
        return None
    x_sizes = tuple(x.shape)
    of_x, of_weight, result = terms[1 - place], terms[place], terms[2]
    if any(len(set(term)) < len(term) for term in terms):
        return None  # a diagonal
    # Letters of the weight alone that are not in the result are summed there, those of x in a ReduceSum.
    gone = [letter for letter in of_weight if letter not in of_x + result]
    if gone:
        weight = weight.sum(axis=tuple(of_weight.index(letter) for letter in gone), dtype=np.float32)
        of_weight = "".join(letter for letter in of_weight if letter not in gone)
    gone = [letter for letter in of_x if letter not in of_weight + result]
    if gone:
        axes = build.constant(np.array([of_x.index(letter) for letter in gone], np.int64))
        x = build("ReduceSum", x, axes, keepdims=0)
        of_x = "".join(letter for letter in of_x if letter not in gone)
    shared = [letter for letter in of_x if letter in of_weight]
    sizes = dict(zip(terms[1 - place], x_sizes, strict=True))
    size = dict(zip(of_weight, weight.shape, strict=True))
    if any(sizes[letter] != size[letter] for letter in shared):
        return None
    contracted = [letter for letter in of_weight if letter in shared and letter not in result]
    batch = [letter for letter in of_weight if letter in shared and letter in result]
    free = [letter for letter in of_x if letter not in shared]
    columns = [letter for letter in of_weight if letter not in shared]
    if not contracted:
        return None  # an outer or an element-wise product: no sum for the columns to make
    rows, width = (math.prod(size[letter] for letter in letters) for letters in (contracted, columns))
    matrix = weight.transpose([of_weight.index(letter) for letter in batch + contracted + columns])
    matrix = matrix.reshape(*(size[letter] for letter in batch), rows, width)

    # [free..., batch..., one free axis, rows]: the batch of the weight is where MatMul aligns it.
    lead = free[:-1] + batch + free[-1:]
    x = _transpose(build, x, of_x, lead + contracted)
    if len(contracted) > 1:
        x = build("Reshape", x, build.constant(np.array([0] * len(lead) + [rows], np.int64)))
    if batch and not free:  # one vector for each entry of the stack
        x = build("Unsqueeze", x, build.constant(np.array([-2], np.int64)))
    x.shape = ir.Shape([*(sizes[letter] for letter in lead), *([1] if batch and not free else []), rows])
    y = build("MatMul", x, build.constant(matrix, build.needed(place)))
    if batch and not free:
        y = build("Squeeze", y, build.constant(np.array([-2], np.int64)))
    if len(columns) != 1:
        y = build("Reshape", y, build.constant(np.array([0] * len(lead) + [size[c] for c in columns], np.int64)))
    return [_transpose(build, y, "".join(lead + columns), list(result))]


def _transpose(build: Builder, value: ir.Value, order: str, wanted: list[str]) -> ir.Value:
    if list(order) == wanted:
        return value
    return build("Transpose", value, perm=[order.index(letter) for letter in wanted])


def _terms(equation: str, ranks: tuple[int, int]) -> tuple[str, str, str] | None:
    """The letters of both operands and of the result, with letters of their own for the axes of an ellipsis."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    parts = operands.split(",")
    if len(parts) != 2:
        return None
    if not arrow:  # the letters that come once, in alphabetical order
        letters = operands.replace(",", "").replace(".", "")
        result = ("..." if "..." in operands else "") + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1)
        )
    spare = [letter for letter in _LETTERS if letter not in equation]
    hidden = [
        rank - len(part.replace("...", "")) if "..." in part else 0 for part, rank in zip(parts, ranks, strict=True)
    ]
    if min(hidden) < 0 or max(hidden) > len(spare):
        return None
    if min(hidden) > 0:
        return None  # two ellipses broadcast against each other: sizes of 1 may stretch
    filled = [
        part.replace("...", "".join(spare[max(hidden) - n : max(hidden)]))
        for part, n in zip(parts, hidden, strict=True)
    ]
    if any(len(part) != rank for part, rank in zip(filled, ranks, strict=True)):
        return None
    return filled[0], filled[1], result.replace("...", "".join(spare[: max(hidden)]))
