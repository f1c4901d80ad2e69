"""A lowered network as any ONNX runtime has it: standard operators alone, its weights as Conv and MatMul take them."""

import onnx_ir as ir
from onnx_ir.passes import common

from cimc.operators import LEFT_DIGITAL
from passes.crossbar_functions import crossbar_layers
from passes.leave_digital import make_digital


def plain_network(model: ir.Model) -> ir.Model:
    """A copy of a lowered network without crossbar layers and without functions; constants keep their names."""
    plain = make_digital(model, dict.fromkeys(crossbar_layers(model), "all are"))
    for node in plain.graph.all_nodes():
        node.metadata_props.pop(LEFT_DIGITAL, None)
    plain = common.InlinePass()(plain).model
    plain.functions.clear()
    common.RemoveUnusedOpsetsPass()(plain)
    return plain
