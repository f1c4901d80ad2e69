"""Make the batch size of a network that was exported for one batch size symbolic."""

import math

import numpy as np
import onnx_ir as ir

from cimc.errors import CimcError
from passes.graph_edit import add_constant, constant
from passes.infer_shapes import BATCH_SYMBOL, sizes_at
from passes.verify import random_inputs, run


class FreeBatch(ir.passes.InPlacePass):
    """Replace a static batch size by a symbol, also where a Reshape repeats it.

    The first size of every input counts as the batch if all inputs (rank 2 or more) agree in it, and if the network
    with a free batch, run on one image more, computes the same for all the others. Else the network stays as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Free the batch size where that is safe."""
        first = {
            value.shape[0] if value.shape is not None and len(value.shape) > 1 else None for value in model.graph.inputs
        }
        batch = first.pop() if len(first) == 1 else None
        if not isinstance(batch, int) or batch < 1:
            return ir.passes.PassResult(model, modified=False)
        sizes = {name: sizes for name, (_, sizes) in sizes_at(model, batch).items()}
        trial = model.clone()
        _free(trial, batch, sizes)
        if not _same_with_another_image(model, trial, batch):
            return ir.passes.PassResult(model, modified=False)
        _free(model, batch, sizes)
        return ir.passes.PassResult(model, modified=True)


def _same_with_another_image(fixed: ir.Model, free: ir.Model, batch: int) -> bool:
    try:
        feeds = random_inputs(free, batch + 1, 0)
        expected = run(fixed, {name: array[:batch] for name, array in feeds.items()})
        computed = run(free, feeds)
    except CimcError:
        return False
    return all(
        one.ndim and more.shape == (batch + 1, *one.shape[1:]) and np.allclose(one, more[:batch], rtol=1e-4, atol=1e-5)
        for one, more in zip(expected, computed, strict=True)
    )


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
