"""Replace computed Reshape targets, such as x.view(x.size(0), -1) exports, by constant ones."""

import numpy as np
import onnx_ir as ir

from passes.graph_edit import add_constant, constant


class FoldReshapes(ir.passes.InPlacePass):
    """Give every Reshape whose output has at most one size that is not static a constant target."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold the targets; needs inferred shapes."""
        count = 0
        for node in model.graph:
            if node.op_type != "Reshape" or node.domain or constant(node.inputs[1]) is not None:
                continue
            source, result = node.inputs[0], node.outputs[0]
            if source is None or source.shape is None or result.shape is None:
                continue
            open_axes = [axis for axis, size in enumerate(result.shape) if not isinstance(size, int)]
            if len(open_axes) > 1 or any(size == 0 for size in result.shape):
                continue
            target = np.array([size if isinstance(size, int) else -1 for size in result.shape], dtype=np.int64)
            if open_axes == [0] and len(source.shape) and _same_symbol(source.shape[0], result.shape[0]):
                target[0] = 0  # keeps the batch symbol in shape inference
            node.replace_input_with(1, add_constant(model.graph, f"{result.name}.shape", target))
            node.attributes.pop("allowzero", None)
            count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _same_symbol(one: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    """Whether both sizes are known to be the same; two that are not known at all compare equal."""
    return isinstance(one, ir.SymbolicDim) and one.value is not None and one == other
