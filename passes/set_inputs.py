"""Turn inputs of a network into constants that its user gives, before anything else is done with it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.errors import CimcError
from passes.graph_edit import register_constant


def parse_constant(text: str) -> tuple[str, list[float | bool]]:
    """An input's name and its numbers from `name=16000`, `name=true` or `name=0.5,1,2`.

    Raises:
        CimcError: the text has another form.
    """
    name, equals, numbers = text.rpartition("=")
    words = {"true": True, "false": False}
    try:
        values = [
            words[part] if (part := word.strip().lower()) in words else float(part) for word in numbers.split(",")
        ]
    except ValueError:
        values = []
    if not equals or not name or not values:
        raise CimcError(f"--set {text} has another form than name=16000; several numbers are separated by commas")
    return name, values


def set_inputs(model: ir.Model, constants: Mapping[str, npt.ArrayLike]) -> None:
    """Make inputs constants, in place.

    Args:
        model: the network as read.
        constants: by input name a number, for each element of the input, or as many numbers as it has; a size that is
            not static is 1, or what makes the number of elements right.

    Raises:
        CimcError: no such input, another number of elements, or a number that its type does not hold.
    """
    inputs = {value.name or "": value for value in model.graph.inputs if not value.is_initializer()}
    for name, given in constants.items():
        value = inputs.get(name)
        if value is None:
            raise CimcError(f"--set names the input '{name}', but the network has {', '.join(inputs) or 'none'}")
        array = _shaped(value, _typed(value, np.asarray(given)))
        model.graph.inputs.remove(value)
        value.replace_all_uses_with(register_constant(model.graph, name, array))


def _typed(value: ir.Value, given: np.ndarray) -> np.ndarray:
    if value.dtype is None or value.dtype == ir.DataType.STRING or given.dtype.kind not in "biuf":
        raise CimcError(f"--set gives '{value.name}' {given!r:.40}, but it takes no such values; give numbers")
    array = given.astype(value.dtype.numpy())
    exact = value.dtype.is_integer() or value.dtype == ir.DataType.BOOL
    if exact and not np.array_equal(array, given):
        raise CimcError(f"--set gives '{value.name}' {given!s:.40}, but it is {value.dtype.name.lower()}")
    return array


def _shaped(value: ir.Value, array: np.ndarray) -> np.ndarray:
    if value.shape is None:
        return array.reshape(()) if array.size == 1 else array
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    if array.size == 1:
        return np.full([max(size, 1) for size in sizes], array.reshape(()))
    if sizes.count(-1) > 1 and array.ndim == len(sizes):
        sizes = list(array.shape)
    try:
        return array.reshape(sizes)
    except ValueError:
        text = "x".join("?" if size < 0 else str(size) for size in sizes) or "one"
        raise CimcError(f"--set gives '{value.name}' {array.size} numbers, but it has {text}") from None
