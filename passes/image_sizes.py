"""Sizes of a value for one image, where the batch is not static."""

import math

import onnx_ir as ir


def sizes_of_image(value: ir.Value | None) -> list[int]:
    """Sizes with 1 for the batch, or for what is not known, and n for `n*batch`; [] of a value of unknown rank."""
    shape = () if value is None or value.shape is None else value.shape
    return [size if isinstance(size, int) else _multiple(size) for size in shape]


def elements_of_image(value: ir.Value | None) -> int:
    """Elements for one image."""
    return math.prod(sizes_of_image(value))


def _multiple(size: ir.SymbolicDim) -> int:
    factor, star, _ = str(size.value).partition("*")
    return int(factor) if star and factor.isdigit() else 1
