"""Say which products are one crossbar layer, and where one weight had to become several.

`passes.lowering.decide_shared_weights` has decided it.
"""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.crossbar_functions import is_crossbar
from passes.graph_edit import constant, source_of
from passes.notes import add_note


class NoteSharedWeights(ir.passes.InPlacePass):
    """A note for each weight of the file that several products use, or a product and a table."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the notes; the network stays as it is."""
        layers: dict[str, dict[int, ir.Value]] = {}
        tables: set[str] = set()
        for node in model.graph:
            if is_crossbar(node) and node.inputs[1] is not None and "products" in node.inputs[1].meta:
                weight = node.inputs[1]
                layers.setdefault(source_of(weight), {})[id(weight)] = weight
            elif node.op_type == "Gather" and not node.domain and node.inputs[0] is not None:
                tables.add(str(node.inputs[0].meta.get("stored_as", source_of(node.inputs[0]))))
        for name, weights in layers.items():
            for weight in weights.values():
                if weight.meta["products"] > 1:
                    sizes = " x ".join(map(str, weight.shape or ()))
                    uses = weight.meta["products"]
                    add_note(
                        model,
                        f"weight '{name}' ({sizes}) is one layer that {uses} products use; "
                        f"--share-weights never gives each its own",
                    )
            if any(_proportional(one, other) for one, other in combinations(weights.values(), 2)):
                add_note(
                    model,
                    f"weight '{name}' is used in {len(weights)} ways that no single layer takes (transposed, scaled, "
                    "or with another stride or padding): as many layers, which are trained apart",
                )
            stored = {str(weight.meta.get("stored_as", name)) for weight in weights.values()}
            if tables & {name, *stored}:
                add_note(model, f"table '{name}' is the weight of a layer too; table and layer are trained apart")
        return ir.passes.PassResult(model, modified=False)


def _proportional(one: ir.Value, other: ir.Value) -> bool:
    """Whether both matrices hold the same numbers, but for a factor, as they are or transposed."""
    a, b = constant(one), constant(other)
    if a is None or b is None or a.size != b.size or not a.size:
        return False
    return any(a.shape == turned.shape and _factor(a, turned) for turned in (b, b.T))


def _factor(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> bool:
    place = np.unravel_index(np.argmax(np.abs(a)), a.shape)
    return bool(a[place] != 0 and np.allclose(a * (b[place] / a[place]), b, rtol=1e-5, atol=0))
