"""What all operator tables share: the form of an operator, and inputs that must be known when a network is traced."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cimc.errors import CimcError

Attributes = Mapping[str, Any]
# Inputs (None: left out) and attributes -> the output, or a tuple of all outputs.
Operator = Callable[[Sequence[Any], Attributes], Any]
Operators = dict[str, Operator]


def given(inputs: Sequence[Any], index: int) -> Any:
    """The input of that index, or None where it is left out."""
    return inputs[index] if index < len(inputs) else None


def static(value: Any, what: str) -> np.ndarray:
    """A NumPy array that shapes the result. Raises CimcError when it depends on the data."""
    if not isinstance(value, np.ndarray | np.generic | int):
        raise CimcError(f"{what} depends on the data; export the network with a constant there")
    return np.asarray(value)


def static_ints(value: Any, what: str) -> list[int]:
    """`static` as a list of Python integers."""
    return [int(v) for v in static(value, what).reshape(-1)]


def optional_axes(inputs: Sequence[Any], attributes: Attributes, index: int = 1) -> tuple[int, ...] | None:
    """Axes from an input or, in older forms, an attribute; None: left out or empty."""
    value = given(inputs, index)
    axes = static_ints(value, "an axis") if value is not None else attributes.get("axes", ())
    return tuple(int(a) for a in axes) or None


def text(attributes: Attributes, name: str, default: str) -> str:
    """A string attribute."""
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def to_dtype(kind: int) -> Any:
    """The JAX type of an ONNX element type; 64-bit types become 32-bit ones."""
    import onnx

    return jax.dtypes.canonicalize_dtype(onnx.helper.tensor_dtype_to_np_dtype(int(kind)))
