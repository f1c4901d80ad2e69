"""Refuse weights that are not numbers."""

import numpy as np
import onnx_ir as ir

from cimc.errors import CimcError
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import float_constant


class RequireFinite(ir.passes.InPlacePass):
    """Check the constants of crossbar layers and normalisations: a conductance cannot be NaN or infinite."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check; nothing is changed.

        Raises:
            CimcError: a constant holds NaN or infinity; the layer and the constant are named.
        """
        for node in model.graph.all_nodes():
            if is_crossbar(node) or node.op_type == "BatchNormalization":
                for value in node.inputs[1:]:
                    array = float_constant(value)
                    if value is not None and array is not None and not np.isfinite(array).all():
                        raise CimcError(
                            f"'{value.name}' of '{node.name}' holds NaN or infinity; train or export the network again"
                        )
        return ir.passes.PassResult(model, modified=False)
