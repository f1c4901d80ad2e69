"""From a lowered ONNX network to one that is ready to run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, LEFT_DIGITAL, PARAMETERS, layer_of
from cimc.trained_names import FIXED, TRAINED, names_stated
from cimc.window import Window
from runtime.network.fallback import element_types
from runtime.network.network import Body, Network, Node, with_bodies
from runtime.network.operators import OPERATORS
from runtime.network.reorder import ACTIVATIONS, activation_last, pool_first

_LARGEST_BIAS = 1e4  # masks add less than -1e4


def load_network(lowered: ir.Model | bytes) -> Network:
    """A lowered network, as a model or serialised, ready to run."""
    model = ir.from_proto(onnx.load_from_string(lowered)) if isinstance(lowered, bytes) else lowered
    graph = model.graph
    outputs = tuple(str(value.name) for value in graph.outputs)
    shapes = {str(value.name): _sizes(value) for node in graph for value in node.outputs}
    nodes = activation_last(pool_first([_node(node) for node in graph], outputs), outputs, shapes)
    every = tuple(with_bodies(nodes))
    # Classifiers may give the label beside the scores.
    scores = [str(value.name) for value in graph.outputs if value.dtype == ir.DataType.FLOAT or len(outputs) == 1]
    producers = {name: node for node in nodes for name in node.outputs}
    initializers = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    return Network(
        nodes=nodes,
        inputs={str(value.name): _sizes(value) for value in graph.inputs},
        outputs=outputs,
        logits={name: _logits(name, producers.get(name)) for name in scores},
        initializers=initializers,
        trainable=_trainable(every, initializers, model.metadata_props),
        statistics=tuple(dict.fromkeys(name for node in every for name in _statistics(node) if name in initializers)),
        windows={node.layer: _window(node) for node in every if node.layer is not None},
        input_types={str(value.name): _type(value) for value in graph.inputs},
        opsets=dict(model.opset_imports),
        protos=tuple(ir.to_proto(node) for node in graph),
        functions=tuple(ir.to_proto(function) for function in model.functions.values()),
        types={str(value.name): int(value.dtype) for value in _values(graph) if value.dtype is not None},
        shapes={str(value.name): _named_sizes(value) for value in _values(graph) if value.shape is not None},
    )


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _named_sizes(value: ir.Value) -> tuple[int | str | None, ...]:
    return tuple(size if isinstance(size, int) else size.value for size in value.shape or ())


def _statistics(node: Node) -> tuple[str, ...]:
    return node.inputs[3:5] if node.operator == "BatchNormalization" else ()


def _trainable(
    nodes: Iterable[Node], initializers: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> tuple[str, ...]:
    """The digital parameters. Where the network states which constants are trained, an Add has no others."""
    trained, fixed = names_stated(metadata, TRAINED), names_stated(metadata, FIXED)
    found: dict[str, None] = {}
    for node in nodes:
        names = _parameters(node, initializers)
        if TRAINED in metadata and node.foreign is None and node.layer is None:  # a layer's bias is of its arrays
            names = [name for name in names if name not in fixed and (node.operator != "Add" or name in trained)]
            more = (name for name in node.inputs if name in trained)
            names += [name for name in more if name not in _statistics(node) and initializers[name].dtype == np.float32]
        found.update(dict.fromkeys(names))
    return tuple(found)


def _parameters(node: Node, initializers: Mapping[str, np.ndarray]) -> list[str]:
    """The digital parameters of a node: biases, scales and shifts of normalisation, slopes, tables of embeddings.

    Of a layer that was left to the digital side its weights and bias.
    Not a constant that only computes, such as a factor or a mask: of an Add, one finite constant a channel is a bias.
    """
    if node.foreign is not None:
        return []
    if node.layer is not None:
        names = node.inputs[2:]
    elif node.left_digital:
        names = node.inputs
    elif node.operator == "Gather" and node.attributes.get("axis", 0) == 0:
        names = node.inputs[:1]
    elif node.operator == "Add":
        names = tuple(name for name in node.inputs if name in initializers and _is_bias(initializers[name]))
    else:
        places = PARAMETERS.get(node.operator, ())
        names = tuple(node.inputs[place] for place in places if place < len(node.inputs))
    known = {name for name in names if name in initializers and initializers[name].dtype == np.float32}
    return [name for name in names if name in known and name not in _statistics(node) and initializers[name].ndim]


def _is_bias(array: np.ndarray) -> bool:
    """One value a channel: one axis is longer than 1; and none so low that it masks."""
    return sum(size > 1 for size in array.shape) == 1 and bool(np.all(np.abs(array) < _LARGEST_BIAS))


def _node(node: ir.Node) -> Node:
    weight = node.inputs[1] if node.op_type in CROSSBAR_OPERATORS and node.domain == CROSSBAR_DOMAIN else None
    own = node.domain in ("", CROSSBAR_DOMAIN)
    known = weight is not None or (own and node.op_type in {*OPERATORS, "BatchNormalization", "Dropout"})
    body = _body(node) if own and node.op_type == "Scan" else None
    known |= body is not None
    known &= node.op_type != "MaxPool" or len(node.outputs) == 1  # no places of the maxima here
    attributes = {name: attribute.value for name, attribute in node.attributes.items() if name != "body"}
    if node.op_type == "Split":
        attributes.setdefault("num_outputs", len(node.outputs))
    return Node(
        name=node.name or "",
        operator=node.op_type,
        layer=None if weight is None else layer_of(weight.name or ""),
        inputs=tuple(value.name or "" if value is not None else "" for value in node.inputs),
        outputs=tuple(value.name or "" for value in node.outputs),
        attributes=attributes,
        foreign=None if known else (ir.to_proto(node), element_types(node)),
        body=body,
        left_digital=LEFT_DIGITAL in node.metadata_props,
    )


def _body(scan: ir.Node) -> Body:
    graph = scan.attributes["body"].as_graph()
    return Body(
        nodes=tuple(_node(node) for node in graph),
        inputs=tuple(str(value.name) for value in graph.inputs),
        outputs=tuple(str(value.name) for value in graph.outputs),
        states=len(scan.inputs) - scan.attributes["num_scan_inputs"].as_int(),
    )


def _logits(output: str, producer: Node | None) -> str:
    """The value before an output's last activation; the output itself where it has none."""
    ends = producer is not None and producer.operator in ACTIVATIONS and producer.foreign is None
    return producer.inputs[0] if producer is not None and ends else output


def _sizes(value: ir.Value) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape or ())


def _type(value: ir.Value) -> np.dtype[Any]:
    return np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())


def _window(node: Node) -> Window | None:
    if "kernel_shape" not in node.attributes:
        return None
    kernel, strides, pads, dilations = (
        tuple(int(v) for v in node.attributes[key]) for key in ("kernel_shape", "strides", "pads", "dilations")
    )
    return Window(kernel, strides, pads, dilations)
