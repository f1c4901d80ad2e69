"""Refuse constants that are not numbers, or whose products are none; weights of almost nothing become 0."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.errors import CimcError
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import constant, float_constant

LARGEST = 1e30  # of a weight: sums of products with inputs are numbers of float32
LEAST = 1e-30  # of a weight beside 0: as a share of others, and divided by, it is a number of float32


class RequireFinite(ir.passes.InPlacePass):
    """Check the constants: neither a conductance nor a factor of the digital side can be NaN."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check all constants, and put 0 where a weight is below `LEAST`.

        Raises:
            CimcError: a constant holds NaN, that of a crossbar layer or normalisation infinity or what overflows, or a
                variance is not positive; the layer and the constant are named.
        """
        modified = False
        for node in model.graph.all_nodes():
            for value in node.inputs:
                array = None if value is None else constant(value)
                if value is not None and array is not None and array.dtype.kind == "f" and np.isnan(array).any():
                    raise _refusal(value, node, "NaN")
            if is_crossbar(node) or node.op_type == "BatchNormalization":
                modified |= _check_layer(node)
        return ir.passes.PassResult(model, modified=modified)


def _check_layer(node: ir.Node) -> bool:
    modified = False
    for index, value in enumerate(node.inputs[1:], 1):
        array = float_constant(value)
        if value is None or array is None:
            continue
        if not np.isfinite(array).all():
            raise _refusal(value, node, "NaN or infinity")
        # A mask that hides entries, added to a product as its bias, is as negative as float32 allows.
        size = array if is_crossbar(node) and index == 2 else np.abs(array)
        if np.max(size, initial=0.0) > LARGEST:
            raise _refusal(value, node, f"{np.max(size):.3g}, more than {LARGEST:g}, whose products overflow")
        if node.op_type == "BatchNormalization" and index == 4:
            _check_variance(node, value, array)
        elif is_crossbar(node) and np.any((array != 0) & (np.abs(array) < LEAST)):
            value.const_value = ir.tensor(np.where(np.abs(array) < LEAST, np.float32(0), array), name=value.name)
            modified = True
    return modified


def _check_variance(node: ir.Node, value: ir.Value, array: npt.NDArray[np.floating]) -> None:
    attribute = node.attributes.get("epsilon")
    epsilon = 1e-5 if attribute is None else attribute.as_float()
    if np.min(array, initial=1.0) + epsilon <= 0:
        raise _refusal(value, node, f"a variance of {np.min(array):.3g}, whose root with epsilon is no number")


def _refusal(value: ir.Value, node: ir.Node, what: str) -> CimcError:
    return CimcError(f"'{value.name}' of '{node.name}' holds {what}; train or export the network again")
