"""From a lowered ONNX network to one that is ready to run."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, PARAMETERS, layer_of
from cimc.window import Window
from runtime.network.fallback import element_types
from runtime.network.network import Body, Network, Node, with_bodies
from runtime.network.operators import OPERATORS
from runtime.network.reorder import pool_first

_LARGEST_BIAS = 1e4  # masks add less than -1e4


def load_network(lowered: ir.Model | bytes) -> Network:
    """A lowered network, as a model or serialised, ready to run."""
    model = ir.from_proto(onnx.load_from_string(lowered)) if isinstance(lowered, bytes) else lowered
    graph = model.graph
    outputs = tuple(str(value.name) for value in graph.outputs)
    nodes = pool_first([_node(node) for node in graph], outputs)
    every = tuple(with_bodies(nodes))
    # Classifiers may give the label beside the scores.
    scores = [str(value.name) for value in graph.outputs if value.dtype == ir.DataType.FLOAT or len(outputs) == 1]
    logits = scores[0] if len(scores) == 1 else ""
    last = next((node for node in nodes if logits in node.outputs), None)
    initializers = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    return Network(
        nodes=nodes,
        inputs={str(value.name): _sizes(value) for value in graph.inputs},
        outputs=outputs,
        logits=last.inputs[0] if last is not None and last.operator == "Softmax" else logits,
        initializers=initializers,
        trainable=tuple(dict.fromkeys(name for node in every for name in _parameters(node, initializers))),
        statistics=tuple(dict.fromkeys(name for node in every for name in _statistics(node) if name in initializers)),
        windows={node.layer: _window(node) for node in every if node.layer is not None},
        integer_inputs=frozenset(str(v.name) for v in graph.inputs if v.dtype is not None and v.dtype.is_integer()),
        opsets=dict(model.opset_imports),
    )


def _statistics(node: Node) -> tuple[str, ...]:
    return node.inputs[3:5] if node.operator == "BatchNormalization" else ()


def _parameters(node: Node, initializers: Mapping[str, np.ndarray]) -> list[str]:
    """The digital parameters of a node: biases, scales and shifts of normalisation, slopes, tables of embeddings.

    Not a constant that only computes, such as a factor or a mask: of an Add, one finite constant a channel is a bias.
    """
    if node.foreign is not None:
        return []
    if node.layer is not None:
        names = node.inputs[2:]
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
    )


def _body(scan: ir.Node) -> Body:
    graph = scan.attributes["body"].as_graph()
    return Body(
        nodes=tuple(_node(node) for node in graph),
        inputs=tuple(str(value.name) for value in graph.inputs),
        outputs=tuple(str(value.name) for value in graph.outputs),
        states=len(scan.inputs) - scan.attributes["num_scan_inputs"].as_int(),
    )


def _sizes(value: ir.Value) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape or ())


def _window(node: Node) -> Window | None:
    if "kernel_shape" not in node.attributes:
        return None
    kernel, strides, pads, dilations = (
        tuple(int(v) for v in node.attributes[key]) for key in ("kernel_shape", "strides", "pads", "dilations")
    )
    return Window(kernel, strides, pads, dilations)
