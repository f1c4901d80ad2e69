"""Which products that use one weight are one crossbar layer: those that training must keep equal.

A module that a network calls several times has its weight once in the file, and its uses are one layer. Exporters also
store equal parameters of different modules once: in a fresh network those that are all zeros, or that are copies of
one random draw. Training moves these apart, so each use gets its own weight.
"""

import numpy as np
import onnx_ir as ir

from cimc.operators import CROSSBAR_SOURCES
from cimc.options import ShareWeights
from passes.graph_edit import add_constant, constant, source_of
from passes.notes import add_note

_RECURRENT = ("LSTM", "GRU", "RNN")
_PLACES = {"Conv": (1,), "ConvTranspose": (1,), **dict.fromkeys(_RECURRENT, (1, 2))}
_GENERATED = "onnx::"  # names that the exporter of PyTorch gives to what it computes itself

# (node, place of the weight among its inputs, weight)
_Use = tuple[ir.Node, int, ir.Value]


class DecideSharedWeights(ir.passes.InPlacePass):
    """Give each product a weight of its own where its weight is not to be shared."""

    def __init__(self, sharing: ShareWeights = ShareWeights.auto) -> None:
        self.sharing = sharing

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Separate the weights that are used several times, by the rule; a note says which were."""
        count = 0
        for name, uses in _shared_weights(model.graph):
            reason = self._why_alone(uses)
            if reason:
                _give_each_its_own(model.graph, uses)
            else:
                self._join(name, uses)
                if len({source_of(value) for _, _, value in uses}) == 1:
                    continue
                reason = "it is stored once for parameters of several names (--share-weights always joins them)"
            count += 1
            add_note(model, f"weight '{name}' serves {len(uses)} products and is trained apart in them: {reason}")
        return ir.passes.PassResult(model, modified=bool(count))

    def _why_alone(self, uses: list[_Use]) -> str:
        """Why each use is to have its own weight; empty: they may share."""
        if self.sharing == ShareWeights.never:
            return "--share-weights never"
        if any(node.op_type in _RECURRENT for node, _, _ in uses):
            return "the layers of a recurrent operator are its own"
        array = constant(uses[0][2])
        if self.sharing == ShareWeights.auto and (array is None or np.min(array) == np.max(array)):
            return "all its elements are equal, as in a network before training (--share-weights always joins them)"
        return ""

    def _join(self, name: str, uses: list[_Use]) -> None:
        """Take the uses for those of the weight's first name; by `auto` not those of other parameters."""
        called = {_module(node) for node, _, value in uses if "stored_as" not in value.meta}
        for node, _, value in uses:
            generated = source_of(value).startswith(_GENERATED) and _module(node) in called
            if self.sharing == ShareWeights.always or "stored_as" not in value.meta or generated:
                value.meta["source"] = name


def _give_each_its_own(graph: ir.Graph, uses: list[_Use]) -> None:
    for node, place, value in uses:
        array = constant(value)
        assert array is not None
        node.replace_input_with(place, add_constant(graph, f"{value.name}.own", array))


def _shared_weights(graph: ir.Graph) -> list[tuple[str, list[_Use]]]:
    """The weights with several uses: the name under which the file stores each, and the products that use all of it."""
    weights: list[tuple[str, list[_Use]]] = []
    places: dict[str, list[list[_Use]]] = {}
    for node in graph:
        if node.domain or node.op_type not in CROSSBAR_SOURCES | {"Einsum"}:
            continue
        for place in _PLACES.get(node.op_type, (0, 1)):
            value = node.inputs[place] if place < len(node.inputs) else None
            array = constant(value)
            if value is not None and array is not None and array.dtype == np.float32 and array.size:
                name = str(value.meta.get("stored_as", source_of(value)))
                groups = places.setdefault(name, [])
                group = next((group for group in groups if _holds_the_same(group[0][2], value)), None)
                if group is None:  # several parts of one constant are several weights
                    group = []
                    groups.append(group)
                    weights.append((name, group))
                group.append((node, place, value))
    return [(name, group) for name, group in weights if len(group) > 1]


def _holds_the_same(one: ir.Value, other: ir.Value) -> bool:
    if one is other:
        return True
    a, b = constant(one), constant(other)
    return a is not None and b is not None and (np.array_equal(a, b) or (a.ndim == 2 and np.array_equal(a, b.T)))


def _module(node: ir.Node) -> str:
    """The path of the module that made the node, as PyTorch names nodes: /encoder/layers.0/linear/MatMul."""
    return (node.name or "").rpartition("/")[0]
