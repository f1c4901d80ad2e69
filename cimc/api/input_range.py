"""The input range of a network from data, in place of one that is told."""

import onnx_ir as ir

from cimc.dataset import Dataset
from cimc.errors import CimcError


def range_of(network: ir.Model, data: Dataset) -> tuple[tuple[float, float], str]:
    """From the least value that the network sees of the data, or 0, to the largest, or 0, and a note that says so.

    Raises:
        CimcError: the data has an input that the network has not, or nothing but zeros for its inputs of floats.
    """
    kinds = {str(value.name): value.dtype for value in network.graph.inputs if not value.is_initializer()}
    stored = data.test.inputs
    if unknown := [name for name in stored if name and name not in kinds]:
        raise CimcError(f"{data.name} has {unknown[0]}, no input of the network: it takes {', '.join(kinds)}")
    floats = [name for name, kind in kinds.items() if kind is None or kind.is_floating_point()]
    bounds = data.bounds([""] if "" in stored and floats else floats).values()
    low, high = min((least for least, _ in bounds), default=0.0), max((most for _, most in bounds), default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    if not low < high:
        raise CimcError(f"{data.name} has no input of floats that is not 0 everywhere; leave --calibrate out")
    note = f"inputs from {low:.4g} to {high:.4g}, which the network sees of {data.label}"
    missing = [] if "" in stored else [name for name in floats if name not in stored]
    return (low, high), f"{note}; nothing is known of {', '.join(missing)}" if missing else note
