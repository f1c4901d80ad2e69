"""A network ready to run: its operators in order, its parameters, its inputs and outputs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from cimc.errors import CimcError
from cimc.window import Window


@dataclass(frozen=True)
class Body:
    """The step of a Scan: its operators in order, and the names of its inputs and outputs, those of `states` first."""

    nodes: "tuple[Node, ...]"
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: int


@dataclass(frozen=True)
class Node:
    """One operator: names of its inputs and outputs (empty: left out), and its attributes as Python values.

    layer: name of the crossbar layer it uses; None for a digital operator. Several nodes may use one layer.
    foreign: the node and the element types of its inputs, when onnxruntime executes it for want of an operator here.
    body: of a Scan. left_digital: it is of a layer that was left to the digital side.
    """

    name: str
    operator: str
    layer: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    foreign: tuple[onnx.NodeProto, tuple[int, ...]] | None = None
    body: Body | None = None
    left_digital: bool = False


def with_bodies(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes, and after each Scan those of its body."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from with_bodies(node.body.nodes)


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to run.

    nodes: in execution order. inputs: name and shape of each input (None: not static). outputs: names. initializers:
    arrays by name, those of the network (weights in rows x columns). trainable: names of the digital parameters that
    training changes (biases, normalisation, embeddings). statistics: names of the running means and variances of
    batch normalisation. windows: convolution window a layer. input_types: NumPy type of each input (integers:
    tokens). opsets: versions of the operator sets. protos, functions: the operators as ONNX has them, in its order, and
    the functions they call. types, shapes: element type and sizes of every value by name, the batch as a symbol.
    logits: of each output that can be trained (those of floats, or the only one) the value before its last Softmax,
    LogSoftmax or Sigmoid, or the output itself.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    logits: Mapping[str, str]
    initializers: Mapping[str, np.ndarray]
    trainable: tuple[str, ...]
    statistics: tuple[str, ...]
    windows: Mapping[str, Window | None]
    input_types: Mapping[str, np.dtype[Any]]
    opsets: Mapping[str, int]
    protos: tuple[onnx.NodeProto, ...]
    functions: tuple[onnx.FunctionProto, ...]
    types: Mapping[str, int]
    shapes: Mapping[str, tuple[int | str | None, ...]]

    def layers(self) -> Iterator[Node]:
        """The first node of every crossbar layer, in order."""
        seen: set[str] = set()
        for node in with_bodies(self.nodes):
            if node.layer is not None and node.layer not in seen:
                seen.add(node.layer)
                yield node

    @property
    def input(self) -> str:
        """The name of the only input. Raises CimcError when there are several, or several outputs to train."""
        if len(self.inputs) != 1 or len(self.logits) != 1:
            raise CimcError(
                f"the network has {len(self.inputs)} inputs and {len(self.outputs)} outputs; "
                "training and evaluation need one of each, beside outputs of integers: remove the others"
            )
        return next(iter(self.inputs))

    @property
    def tokens(self) -> dict[str, int]:
        """Of each input that indexes tables, the entries of the smallest."""
        entries: dict[str, int] = {}
        for node in with_bodies(self.nodes):
            if node.operator == "Gather" and node.inputs[1] in self.inputs and node.inputs[0] in self.initializers:
                table, name = self.initializers[node.inputs[0]], node.inputs[1]
                size = table.shape[int(node.attributes.get("axis", 0))]
                entries[name] = min(entries.get(name, size), size)
        return entries
