"""From the constants of a lowered network back to the parameters of the one that was lowered.

Where each element of a parameter goes is found by lowering the network with numbers in their places that tell them
apart: so no pass need say what it moves. What was found is checked: lowered with the new parameters the network must
have the constants that were given.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.errors import CimcError
from cimc.options import ShareWeights
from passes.graph_edit import float_constant
from passes.pipeline import lower
from passes.plain_network import plain_network
from passes.set_constants import set_constants
from passes.set_shapes import set_shapes

DIGIT = 2**20  # sums of two and their digits are exact in float32
FACTORS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
TOLERANCE = 1e-6  # of the largest element: a sum may round

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Elements:
    """All elements of the parameters in a row. starts: where each parameter begins; the last: how many there are."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    starts: Numbers

    @property
    def total(self) -> int:
        return int(self.starts[-1])

    def owner(self, elements: Numbers) -> Numbers:
        """The number of the parameter of each element."""
        found: Numbers = np.searchsorted(self.starts, elements, side="right") - 1
        return found

    def split(self, row: npt.NDArray[np.generic]) -> dict[str, npt.NDArray[np.generic]]:
        """By parameter its part of a row of all elements."""
        parts = zip(self.names, self.shapes, self.starts[:-1], self.starts[1:], strict=True)
        return {name: row[start:stop].reshape(shape) for name, shape, start, stop in parts}


def parameters_of(
    original: ir.Model, trained: ir.Model, *, names: Collection[str] | None = None, name: str
) -> dict[str, Floats]:
    """The parameters with which `original` is the network `trained`.

    Args:
        original: the network before it was lowered, as read.
        trained: what became of it (`plain_network`), with new constants.
        names: of the constants of `original` that may change; None: all float32 ones.
        name: what errors call `original`.

    Returns:
        The new values of the constants that change, by name.

    Raises:
        CimcError: `original` is another network, or a trained constant is not made of its parameters element by
            element.
    """
    original = original.clone()
    set_shapes(original, _sizes_of(original, trained))
    wanted = _constants(trained)
    sharing = _sharing(original, trained, name)
    before = _constants(_lowered(original, sharing))
    changed = [one for one, array in wanted.items() if not np.array_equal(array, before[one])]
    if not changed:
        return {}
    elements, old = _elements(original, names)
    rows = _numbers(np.arange(elements.total)).astype(np.float32)
    probes = [_constants(_lowered(set_constants(original, elements.split(row)), sharing)) for row in rows]
    if any(probe.keys() != wanted.keys() for probe in probes):
        raise CimcError(f"{name} is lowered by the values of its weights, so trained ones cannot be put into it")
    new, known = old.copy(), np.zeros(elements.total, bool)

    def put(places: Numbers, values: Floats) -> None:
        clash = known[places] & (new[places] != values)
        if clash.any():
            owner = elements.names[int(elements.owner(places[clash][:1])[0])]
            raise CimcError(
                f"'{owner}' of {name} is used in several places, which were trained apart, so it has no one value; "
                "take the network as it was lowered"
            )
        new[places], known[places] = values, True

    for one in changed:
        values = wanted[one].ravel()
        first, second = _sources(elements, np.stack([probe[one].ravel() for probe in probes]).astype(np.float64))
        if (first < 0).any():
            raise CimcError(
                f"the trained '{one}' is computed from the parameters of {name} by more than moving and adding them, "
                "so they cannot be told from it; take the network as it was lowered"
            )
        put(first, values)
        put(second[second >= 0], np.zeros(np.count_nonzero(second >= 0), np.float32))  # of a sum the first has it all
    found = {key: part.astype(np.float32) for key, part in elements.split(new).items()}
    parts = elements.split(known)
    found = {key: array for key, array in found.items() if parts[key].any()}
    _require_same(_constants(_lowered(set_constants(original, found), sharing)), wanted, name)
    return found


def _lowered(model: ir.Model, sharing: ShareWeights) -> ir.Model:
    return plain_network(lower(model, share_weights=sharing))


def _constants(model: ir.Model) -> dict[str, Floats]:
    found = {name: float_constant(value) for name, value in model.graph.initializers.items()}
    return {name: array for name, array in found.items() if array is not None}


def _sizes_of(original: ir.Model, trained: ir.Model) -> dict[str, tuple[int | str, ...]]:
    """The sizes that inputs were given when they were compiled, where the network leaves some open."""
    given = {value.name: value.shape for value in trained.graph.inputs}
    sizes: dict[str, tuple[int | str, ...]] = {}
    for value in original.graph.inputs:
        shape = given.get(value.name)
        if value.shape is None or shape is None or len(shape) != len(value.shape):
            continue
        pairs = list(zip(value.shape, shape, strict=True))
        if any(not isinstance(old, int) and isinstance(new, int) for old, new in pairs):
            sizes[value.name or ""] = tuple(
                old if isinstance(old, int) else new if isinstance(new, int) else str(new.value) for old, new in pairs
            )
    return sizes


def _sharing(original: ir.Model, trained: ir.Model, name: str) -> ShareWeights:
    """The rule for shared weights by which `original` becomes the network `trained`."""
    wanted = _form(trained)
    for sharing in (ShareWeights.auto, ShareWeights.always, ShareWeights.never):
        if _form(_lowered(original, sharing)) == wanted:
            return sharing
    raise CimcError(
        f"{name} is not the network that was trained: lowered it has other operators, constants or sizes; give the one "
        "that was compiled, as it was then"
    )


def _form(model: ir.Model) -> object:
    nodes = [(node.op_type, *(value.name if value else "" for value in node.inputs)) for node in model.graph]
    constants = {
        name: None if value.shape is None else value.shape.numpy() for name, value in model.graph.initializers.items()
    }
    return nodes, constants


def _elements(original: ir.Model, names: Collection[str] | None) -> tuple[_Elements, Floats]:
    """The parameters, and their values in a row."""
    found = {
        name: array
        for name, array in _constants(original).items()
        if array.size and (array.ndim > 0 if names is None else name in names)
    }
    starts = np.cumsum([0, *(array.size for array in found.values())])
    row = np.concatenate([array.ravel() for array in found.values()] or [np.zeros(0, np.float32)])
    return _Elements(tuple(found), tuple(array.shape for array in found.values()), starts), row


def _numbers(elements: Numbers) -> Numbers:
    """Numbers that name an element [4, elements], each above 0: two digits and two that look random.

    Neighbours differ in all of them: weights whose elements are all equal are lowered otherwise.
    """
    mixed = elements.astype(np.uint64)
    for factor in FACTORS:  # the finaliser of splitmix64: sums of two say little of those of others
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(factor)
    checks = [(mixed >> np.uint64(bits)).astype(np.int64) % DIGIT + 1 for bits in (20, 43)]
    return np.stack([elements % DIGIT + 1, 2 * (elements // DIGIT) + elements % 2 + 1, *checks])


def _sources(elements: _Elements, numbers: npt.NDArray[np.float64]) -> tuple[Numbers, Numbers]:
    """The element that each constant with these numbers is, and the one that is added to it; -1: there is none."""
    first = _element(elements, numbers)
    second = np.full(len(first), -1)
    unknown = np.flatnonzero(first < 0)
    biases = _biases(elements) if len(unknown) else np.zeros(0, np.int64)
    parts = _numbers(biases)
    for place in unknown:
        rest = _element(elements, numbers[:, place, None] - parts)
        fits = np.flatnonzero(rest > biases)
        if len(fits) != 1:
            break
        first[place], second[place] = biases[fits[0]], rest[fits[0]]
    return first, second


def _biases(elements: _Elements) -> Numbers:
    """The elements of which two may be added up: those of parameters in a row, or in two, as of a recurrent layer."""
    rows = [
        np.arange(start, stop)
        for shape, start, stop in zip(elements.shapes, elements.starts[:-1], elements.starts[1:], strict=True)
        if math.prod(shape[:-1]) <= 2
    ]
    return np.concatenate(rows or [np.zeros(0, np.int64)])


def _element(elements: _Elements, numbers: npt.NDArray[np.float64]) -> Numbers:
    """The element with these numbers; -1 where there is none."""
    number = numbers[0] - 1 + DIGIT * np.floor((numbers[1] - 1) / 2)
    valid = (np.isfinite(number) & (number == np.floor(number)) & (numbers >= 1).all(axis=0)) & (
        number < elements.total
    )
    whole = np.where(valid, number, 0).astype(np.int64)
    found: Numbers = np.where(valid & (_numbers(whole) == numbers).all(axis=0), whole, -1)
    return found


def _require_same(found: Mapping[str, Floats], wanted: Mapping[str, Floats], name: str) -> None:
    """Raises CimcError where a network with the parameters that were found has other constants than it should."""
    for key, array in wanted.items():
        other = found.get(key)
        scale = float(np.max(np.abs(array), initial=0.0))
        if other is None or other.shape != array.shape or not np.allclose(other, array, TOLERANCE, TOLERANCE * scale):
            raise CimcError(
                f"the trained '{key}' cannot be put into {name}: a fixed constant takes part in it, or what it is "
                "made of is used elsewhere too, with other values; take the network as it was lowered"
            )
