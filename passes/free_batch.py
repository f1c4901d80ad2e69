"""Make the batch size of a network that was exported for one batch size symbolic."""

import math

import numpy as np
import onnx_ir as ir

from passes.graph_edit import add_constant, constant
from passes.infer_shapes import BATCH_SYMBOL, sizes_at


class FreeBatch(ir.passes.InPlacePass):
    """Replace a static batch size by a symbol, also where a Reshape repeats it.

    The first size of every input counts as the batch if all inputs (rank 2 or more) agree in it and if the network then
    still computes outputs of the same sizes, one for each image of the batch. Else the network stays as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Free the batch size where that is safe."""
        first = {
            value.shape[0] if value.shape is not None and len(value.shape) > 1 else None for value in model.graph.inputs
        }
        batch = first.pop() if len(first) == 1 else None
        if not isinstance(batch, int):
            return ir.passes.PassResult(model, modified=False)
        before = sizes_at(model, batch)
        trial = model.clone()
        _free(trial, batch, {name: sizes for name, (_, sizes) in before.items()})
        probe = batch + 1
        after = sizes_at(trial, probe)
        for output in model.graph.outputs:
            old, new = (table.get(output.name or "", (None, None))[1] for table in (before, after))
            if not old or not new or old[0] != batch or new != (probe, *old[1:]):
                return ir.passes.PassResult(model, modified=False)
        _free(model, batch, {name: sizes for name, (_, sizes) in before.items()})
        return ir.passes.PassResult(model, modified=True)


def _free(model: ir.Model, batch: int, sizes: dict[str, tuple[int | None, ...] | None]) -> None:
    for value in model.graph.inputs:
        if value.shape is not None:
            sizes[value.name or ""] = tuple(size if isinstance(size, int) else None for size in value.shape)
            value.shape = ir.Shape([BATCH_SYMBOL, *value.shape.dims[1:]])
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
        if node.op_type != "Reshape" or node.domain or "allowzero" in node.attributes:
            continue
        target = constant(node.inputs[1])
        source = sizes.get(node.inputs[0].name or "") if node.inputs[0] else None
        result = sizes.get(node.outputs[0].name or "")
        if target is None or not target.size or target[0] != batch or not source or not result or source[0] != batch:
            continue
        if None in source or math.prod(size or 0 for size in source[1:]) != math.prod(size or 0 for size in result[1:]):
            continue
        freed = np.concatenate([[0], target[1:]]).astype(np.int64)
        node.replace_input_with(1, add_constant(model.graph, f"{node.outputs[0].name}.shape", freed))
