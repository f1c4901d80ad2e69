"""Bring an older network to one opset, so that each operator has one form in all that follows."""

import numpy as np
import onnx
import onnx_ir as ir

from cimc.errors import CimcError
from passes.graph_edit import constant, insert_before, new_node, replace_node
from passes.messages import one_line

TARGET_OPSET = 21
_SCAN_OPSET = 9
_SMALL_BYTES = 4096
_RESIZE_OPSET = 11  # before it Resize and Upsample had one rule of coordinates, and since then another by default
_HARDMAX_OPSET = 13  # before it all axes from `axis` on were one
_MEAN_VARIANCE = "MeanVarianceNormalization"
_LAYER_NORM_OPSET = 17
OF_ONNXRUNTIME = "onnxruntime"  # the domain of its own operators in copies for tools that do not know them


def is_of_onnxruntime(node: onnx.NodeProto | ir.Node, opset: int) -> bool:
    """Whether a node in the standard's domain is one that only onnxruntime has there.

    Its optimiser writes layer normalisations for opsets that do not have them yet; the simplified one (arXiv
    1910.07467) is in the language models of its builder.
    """
    if node.domain not in ("", "ai.onnx"):
        return False
    newer = node.op_type == "LayerNormalization" and opset < _LAYER_NORM_OPSET
    return newer or node.op_type == "SimplifiedLayerNormalization"


class UpgradeOpset(ir.passes.FunctionalPass):
    """Convert networks of an opset below TARGET_OPSET with ONNX's own converter."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Return a converted copy.

        Raises:
            CimcError: ONNX cannot convert the network, or not as it was meant.
        """
        model = model.clone()
        opset = model.opset_imports.setdefault("", 1)
        for node in model.graph.all_nodes():
            if node.op_type == _MEAN_VARIANCE and not node.domain and "axes" not in node.attributes:
                # Inference of its sizes fails where its default is left out.
                node.attributes["axes"] = ir.AttrInt64s("axes", [0, 2, 3])
        if opset < _SCAN_OPSET and any(node.op_type == "Scan" for node in model.graph.all_nodes()):
            raise CimcError(
                f"the network has a Scan of opset {opset}, which has another form since opset {_SCAN_OPSET}; "
                f"export it with opset {_SCAN_OPSET} or newer"
            )
        if opset >= TARGET_OPSET:
            return ir.passes.PassResult(model, modified=False)
        return ir.passes.PassResult(_convert(model, opset), modified=True)


def _convert(model: ir.Model, opset: int) -> ir.Model:
    # The converter serializes the network; the weights stay behind, as inputs.
    tensors = {}
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is not None and value.const_value.nbytes > _SMALL_BYTES:
            tensors[name] = value.const_value
            del model.graph.initializers[name]
            model.graph.inputs.append(value)
    foreign = [node for node in model.graph.all_nodes() if is_of_onnxruntime(node, opset)]
    for node in foreign:
        node.domain = OF_ONNXRUNTIME
    if foreign:
        model.opset_imports[OF_ONNXRUNTIME] = 1
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(model), TARGET_OPSET)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        raise CimcError(
            f"cannot bring the network from opset {opset} to {TARGET_OPSET}: {one_line(error)}; "
            f"export it with opset {TARGET_OPSET} or newer"
        ) from None
    converted: ir.Model = ir.from_proto(proto)
    for node in converted.graph.all_nodes():
        if node.domain == OF_ONNXRUNTIME:
            node.domain = ""
    converted.opset_imports.pop(OF_ONNXRUNTIME, None)
    inputs = list(converted.graph.inputs)
    converted.graph.inputs.clear()
    for value in inputs:
        if value.name in tensors:
            value.const_value = tensors[value.name]
            converted.graph.register_initializer(value)
        else:
            converted.graph.inputs.append(value)
    if opset < _RESIZE_OPSET:
        _keep_coordinates(converted)
    if opset < _HARDMAX_OPSET:
        _keep_flattening(converted)
    return converted


def _keep_coordinates(model: ir.Model) -> None:
    """Let every Resize take the coordinates that it had before `_RESIZE_OPSET`; the converter leaves that out.

    Nearest is the element before, or in an image made smaller the one behind, as onnxruntime has it.
    """
    for node in model.graph.all_nodes():
        if node.op_type == "Resize" and not node.domain:
            scales = constant(node.inputs[2]) if len(node.inputs) > 2 else None
            smaller = scales is not None and bool(np.any(np.less(scales, 1)))
            for name, value in (
                ("coordinate_transformation_mode", "asymmetric"),
                ("nearest_mode", "ceil" if smaller else "floor"),
            ):
                node.attributes[name] = ir.AttrString(name, value)


def _keep_flattening(model: ir.Model) -> None:
    """Let every Hardmax see all axes from its `axis` on as one, as before `_HARDMAX_OPSET`.

    The converter writes this for Softmax and LogSoftmax, and leaves it out here.
    """
    for node in [node for node in model.graph.all_nodes() if node.op_type == "Hardmax" and not node.domain]:
        (shape,) = insert_before(node, "Shape", node.inputs)
        (flat,) = insert_before(node, "Flatten", node.inputs, axis=node.attributes.get_int("axis", 1))
        (largest,) = insert_before(node, "Hardmax", [flat], axis=-1)
        replace_node(node, [new_node("Reshape", [largest, shape], node.name or "hardmax")])
