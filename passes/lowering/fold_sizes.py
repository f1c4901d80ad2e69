"""Compute at compile time the sizes that a network takes of its values, where they do not depend on the batch."""

import numpy as np
import onnx_ir as ir

from passes.graph_edit import replace_by_constant
from passes.lowering.fold_constants import FoldConstants
from passes.lowering.infer_shapes import infer_constants

_FAR_BATCHES = (1, 1_000_000)  # Min(N, 4) is the same at all batches that are not small, N mod 2 at all odd ones
_MOST_ELEMENTS = 64  # of sizes; what is computed from them is folded as of any constants


class FoldSizes(ir.passes.InPlacePass):
    """Replace integers that follow from the sizes of the inputs alone, and what is computed from them and constants.

    Left in a part of the network they have no values before it runs: onnxruntime refuses, or even errs in, operators
    such as a Resize of a position embedding to the size of the image.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold them, with shape inference at four batches."""
        if not any(node.op_type in ("Shape", "Size") and not node.domain for node in model.graph):
            return ir.passes.PassResult(model, modified=False)
        far, near = infer_constants(model, _FAR_BATCHES), infer_constants(model)
        known = {name: a for name, a in near.items() if a.dtype.kind == "i" and np.array_equal(a, far.get(name, ()))}
        count = 0
        for node in model.graph:
            if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
                continue
            if (array := known.get(node.outputs[0].name or "")) is None or array.size > _MOST_ELEMENTS:
                continue
            replace_by_constant(model.graph, node, array)
            count += 1
        if count:
            FoldConstants()(model)
        return ir.passes.PassResult(model, modified=bool(count))
