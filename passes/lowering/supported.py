"""Refuse what the runtime cannot execute: every node is a crossbar layer or a known digital operator."""

import math

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from cimc.errors import CimcError
from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_SOURCES, DIGITAL_OPERATORS, FAKE_QUANTIZE
from passes.check_file import MOST_ELEMENTS
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import constant
from passes.messages import describe, one_line
from passes.scan_body import body_of, steps_of

_NEEDS = {
    "Loop": "its number of steps is not known before the network runs, or too large; export it with fewer",
    "Scan": "its number of steps is not known, or too large; give the inputs of the network sizes with --shape",
    "ZipMap": "its result is a dictionary; export the network without it (skl2onnx: options={'zipmap': False})",
    "Shape": "the network computes with sizes; export it with static sizes, only the batch may vary",
}


class CheckOperators(ir.passes.InPlacePass):
    """Check that every node can be executed: on crossbars, digitally in the runtime, or in onnxruntime."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check; nothing is changed.

        Raises:
            CimcError: a node is neither a crossbar layer nor a supported digital operator.
        """
        for node in model.graph.all_nodes():
            if (
                _runs_its_body(node)
                or is_crossbar(node)
                or (node.domain, node.op_type) == (CROSSBAR_DOMAIN, FAKE_QUANTIZE)
            ):
                continue
            if (node.domain or node.op_type not in DIGITAL_OPERATORS) and not _runs_in_onnxruntime(node):
                need = _NEEDS.get(node.op_type)
                if body_of(node) is not None:
                    need = (
                        "its body holds products with constant weights, control flow, or a state that no step makes, "
                        "and it is too long to be written out; export a shorter sequence"
                    )
                if "Sequence" in node.op_type or "Optional" in node.op_type:
                    need = (
                        "what is in its list of tensors is not known before the network runs; export it without lists"
                    )
                if node.domain not in ("", "ai.onnx.ml"):
                    need = "it is no standard ONNX operator; export the network with standard operators"
                need = need or "the sizes of its result cannot be inferred, depend on the data, or are no tensor's"
                raise CimcError(f"{describe(node)} is not supported: {need}")
            if _trains(node):
                raise CimcError(f"{describe(node)} is in training mode; export the network for inference")
        return ir.passes.PassResult(model, modified=False)


class CheckLayerSizes(ir.passes.InPlacePass):
    """Check that the input and the output of every crossbar layer have static sizes apart from the batch.

    No value may be larger than a memory.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check; nothing is changed.

        Raises:
            CimcError: a size is not known, or a value has more than `MOST_ELEMENTS`.
        """
        for node in model.graph.all_nodes():
            for output in node.outputs:
                if math.prod(max(size, 1) for size in output.shape or () if isinstance(size, int)) > MOST_ELEMENTS:
                    raise CimcError(
                        f"{describe(node)}: its value has the sizes {output.shape!s:.60}, more than {MOST_ELEMENTS:,} "
                        f"elements; give smaller inputs with --shape"
                    )
            if body_of(node) is not None and steps_of(node) is None:
                raise CimcError(f"{describe(node)}: the length of its sequence is not static; give it with --shape")
            if not is_crossbar(node):
                continue
            for side, value in (("input", node.inputs[0]), ("output", node.outputs[0])):
                if value is None or value.shape is None:
                    raise CimcError(
                        f"layer '{node.name}': the sizes of its {side} are unknown; "
                        f"give the inputs of the network static sizes with --shape"
                    )
                convolution = "kernel_shape" in node.attributes
                dims = value.shape.dims[1:] if convolution else value.shape.dims
                # A product takes the batch on any axis but that of the features, such as [time, batch, features].
                open_sizes = sum(not isinstance(size, int) for size in dims)
                if open_sizes > (not convolution) or (dims and not isinstance(dims[-1], int)):
                    sizes = " x ".join(str(size) if isinstance(size, int) else "?" for size in value.shape)
                    raise CimcError(
                        f"layer '{node.name}': the sizes of '{value.name}' are not static ({sizes}); "
                        f"give the inputs of the network static sizes with --shape, only the batch may vary"
                    )
        return ir.passes.PassResult(model, modified=False)


class CheckModel(ir.passes.InPlacePass):
    """Run the full ONNX checker, shapes and types included."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check; nothing is changed.

        Raises:
            CimcError: the sizes of an output are not known, or the checker finds a fault.
        """
        for value in model.graph.outputs:
            producer = value.producer()
            if value.shape is None and producer is not None:
                raise CimcError(
                    f"{describe(producer)}: the sizes of its output cannot be inferred; "
                    f"give the inputs of the network sizes with --shape"
                )
        try:
            common.CheckerPass(full_check=True)(model)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise CimcError(f"the network is not valid ONNX: {one_line(error)}; correct and export it again") from None
        return ir.passes.PassResult(model, modified=False)


def _runs_its_body(node: ir.Node) -> bool:
    """Whether a Scan can run step by step: no body in its own, no layer that stays digital, every result made by it."""
    body = body_of(node)
    if body is None or any(value.producer() is None for value in body.outputs):
        return False
    return not any(
        inner.op_type in _NEEDS or (inner.op_type in CROSSBAR_SOURCES and any(map(_is_weight, inner.inputs)))
        for inner in body
    )


def _is_weight(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.ndim > 1


def _runs_in_onnxruntime(node: ir.Node) -> bool:
    """Whether the runtime can leave the node to onnxruntime: tensors in and out, of known rank, and no subgraph."""
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    if node.op_type in _NEEDS or node.op_type.startswith("Random"):  # random numbers would differ at every run
        return False
    outputs = [value for value in node.outputs if value.name]
    return all(isinstance(value.type, ir.TensorType) and value.shape is not None for value in outputs)


def _trains(node: ir.Node) -> bool:
    if node.op_type == "BatchNormalization":
        return bool(node.attributes.get_int("training_mode", 0))
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        mode = constant(node.inputs[2])
        return mode is None or bool(mode)
    return False
