"""Whether two networks compute the same: by the rounding of float32, and by how much the network itself moves with it.

A network that is rounded differently gives other outputs, a little or, where it amplifies, a lot. So an output may
differ by `ROUNDING` of its size; one that differs by more is held against what rounding does to the original network:
run with onnxruntime's optimisations, with each input moved to a neighbouring float32, and with its weights moved so.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.errors import CimcError
from cimc.operators import CROSSBAR_DOMAIN
from passes.graph_edit import constant
from passes.messages import describe
from passes.set_constants import set_constants
from passes.verify import Arrays, Feeds, differences, run

ROUNDING = 1e-4  # of an output's size
MULTIPLE = 10.0  # of what rounding does to the original network
LARGEST_MOVED_BYTES = 2**28  # of weights, which are copied to be moved
_STEP = 0.03  # of an output's size: what a value on the other side of a quantiser's step may change
_LEAST_SIZE = 1e-6
_AT_ONCE = 16  # values that are compared in one run


class Disagreement(NamedTuple):
    """An output that differs by more than it may. size: its largest absolute value."""

    output: int
    found: float
    allowed: float
    size: float

    def __str__(self) -> str:
        return f"{self.found:.2g} of {self.size:.2g} ({self.allowed:.2g} would be rounding)"


# The largest difference of each output that rounding makes in a network.
Sensitivity = Callable[[], Sequence[float]]


def sensitivity_of(model: ir.Model, feeds: Feeds, expected: Arrays) -> Sensitivity:
    """What rounding changes in the outputs of `model` on `feeds` (`expected`); runs it, when it is first asked for."""

    @cache
    def sensitivity() -> Sequence[float]:
        random = np.random.default_rng(0)
        runs = [run(model, {name: move_by_rounding(x, random) for name, x in feeds.items()}) for _ in range(2)]
        # Optimised, onnxruntime may fail where it does not as the network is; with branches it may even crash.
        if not any(True for _ in model.graph.subgraphs()):
            with suppress(CimcError):
                runs.append(run(model, feeds, optimise=True))
        constants = [(name, constant(value)) for name, value in model.graph.initializers.items()]
        weights = {name: array for name, array in constants if array is not None and array.dtype.kind == "f"}
        if sum(array.nbytes for array in weights.values()) <= LARGEST_MOVED_BYTES:
            moved = {name: move_by_rounding(array, random) for name, array in weights.items() if array.size > 1}
            runs.append(run(set_constants(model, moved), feeds))
        return [max(found) for found in zip(*(differences(expected, one) for one in runs), strict=True)]

    return sensitivity


def disagreement(model: ir.Model, expected: Arrays, computed: Arrays, sensitivity: Sensitivity) -> Disagreement | None:
    """The output that differs most beyond what it may, if any; `model` made the outputs `expected`."""
    share = _STEP if _quantises(model) else ROUNDING
    worst: Disagreement | None = None
    for index, found in enumerate(differences(expected, computed)):
        size = size_of(expected[index])
        allowed = share * max(size, _LEAST_SIZE)
        if not found <= allowed:
            allowed = max(allowed, MULTIPLE * sensitivity()[index])
            if not found <= allowed and (worst is None or found * worst.allowed > worst.found * allowed):
                worst = Disagreement(index, found, allowed, size)
    return worst


def require_numbers(model: ir.Model, feeds: Feeds, expected: Arrays) -> None:
    """Raises CimcError where an output (`expected`) holds no number at all; it names the first node that makes none."""
    if not any(map(_without_numbers, expected)):
        return
    nodes = [
        (node, value.name)
        for node in model.graph
        for value in node.outputs
        if value.name and value.dtype in (None, ir.DataType.FLOAT)  # as read, most types are not known
    ]
    first, last = 0, len(nodes) - 1
    while first < last:  # what follows from no number is none
        middle = (first + last) // 2
        if any(map(_without_numbers, run(_with_outputs(model, [nodes[middle][1]]), feeds))):
            last = middle
        else:
            first = middle + 1
    where = describe(nodes[first][0]) if nodes else "the network"
    raise CimcError(
        f"{where}: on inputs within the range all it computes is NaN or infinite (a division by 0, an overflow); mend "
        f"the network, or give the range of its inputs with --input-range"
    )


def _without_numbers(array: npt.NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f" and array.size > 0 and not np.isfinite(array).any()


def size_of(array: npt.NDArray[np.generic]) -> float:
    """The largest finite absolute value; 0 where there is none."""
    numbers = np.abs(array.astype(np.float64))
    return float(np.max(numbers, where=np.isfinite(numbers), initial=0.0))


def first_difference(one: ir.Model, other: ir.Model, feeds: Feeds) -> str:
    """The first operator of `other` whose output, which `one` has under the same name, differs by more than rounding.

    Empty where there is none: the difference grows little by little.
    """
    names = {value.name for node in one.graph for value in node.outputs}
    places = [
        (node, value.name)
        for node in other.graph
        for value in node.outputs
        if value.name in names and value.dtype == ir.DataType.FLOAT
    ]
    for start in range(0, len(places), _AT_ONCE):
        part = places[start : start + _AT_ONCE]
        values = [run(_with_outputs(model, [name for _, name in part]), feeds) for model in (one, other)]
        for (node, _), a, b in zip(part, *values, strict=True):
            if a.shape != b.shape or not differences([a], [b])[0] <= ROUNDING * max(size_of(a), _LEAST_SIZE):
                return f"layer '{node.name}'" if node.domain == CROSSBAR_DOMAIN else describe(node)
    return ""


def _quantises(model: ir.Model) -> bool:
    return any("Quantize" in node.op_type or node.op_type.startswith("QLinear") for node in model.graph)


def move_by_rounding(array: npt.NDArray[np.generic], random: np.random.Generator) -> npt.NDArray[np.generic]:
    """Each float at its next or its previous neighbour; zeros and other types stay as they are."""
    if array.dtype.kind != "f":
        return array
    side = np.where(random.random(array.shape, dtype=np.float32) < 0.5, -np.inf, np.inf).astype(array.dtype)
    return np.where(array == 0, array, np.nextafter(array, side))


def _with_outputs(model: ir.Model, names: Sequence[str | None]) -> ir.Model:
    """A copy of `model` with these values as its outputs."""
    probe = model.clone()
    values = {value.name: value for node in probe.graph for value in node.outputs}
    probe.graph.outputs.clear()
    probe.graph.outputs.extend(values[name] for name in names)
    return probe
