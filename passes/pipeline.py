"""The network passes in order."""

import onnx_ir as ir
from onnx_ir.passes import common

from cimc.errors import CimcError
from cimc.options import ShareWeights
from cimc.plugins import plugins
from passes.crossbar_functions import MINIMUM_IR_VERSION, AddCrossbarFunctions
from passes.graph_edit import forget_names
from passes.lowering.decide_shared_weights import DecideSharedWeights
from passes.lowering.drop_empty import DropEmpty
from passes.lowering.drop_identities import DropIdentities
from passes.lowering.expand_attention import ExpandAttention
from passes.lowering.expand_fused import ExpandFused
from passes.lowering.expand_ml import ExpandMl
from passes.lowering.expand_quantized import ExpandQuantized
from passes.lowering.flatten_control_flow import FlattenControlFlow
from passes.lowering.fold_constants import FoldConstants
from passes.lowering.fold_reshapes import FoldReshapes
from passes.lowering.fold_sequences import FoldSequences
from passes.lowering.fold_sizes import FoldSizes
from passes.lowering.free_batch import FreeBatch
from passes.lowering.fuse_bias import FuseBias
from passes.lowering.fuse_softmax import FuseSoftmax
from passes.lowering.infer_shapes import InferShapes
from passes.lowering.lower_conv import LowerConv
from passes.lowering.lower_conv_transpose import LowerConvTranspose
from passes.lowering.lower_einsum import LowerEinsum
from passes.lowering.lower_gemm import LowerGemm
from passes.lowering.lower_matmul import LowerMatMul
from passes.lowering.lower_recurrent import LowerRecurrent
from passes.lowering.mark_trained import MarkTrained, pin_sources
from passes.lowering.name_layers import NameLayers
from passes.lowering.note_shared_weights import NoteSharedWeights
from passes.lowering.pair_quantizers import PairQuantizers
from passes.lowering.require_finite import RequireFinite
from passes.lowering.require_float32 import RequireFloat32
from passes.lowering.separate_parameters import SeparateParameters
from passes.lowering.supported import CheckLayerSizes, CheckModel, CheckOperators
from passes.lowering.upgrade_opset import UpgradeOpset
from passes.messages import one_line
from passes.set_shapes import shape_example
from passes.watch import Watch

NETWORK_PASSES: tuple[ir.passes.PassBase, ...] = (
    common.RemoveInitializersFromInputsPass(),
    common.InlinePass(),
    UpgradeOpset(),
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.LiftSubgraphInitializersToMainGraphPass(),
    FlattenControlFlow(),
    FoldSequences(),
    DropIdentities(),
    ExpandFused(),
    ExpandAttention(),
    ExpandMl(),
    ExpandQuantized(),
    FoldConstants(),
    FreeBatch(),
    FoldSizes(),
    InferShapes(),
    DropEmpty(),
    FoldReshapes(),
    FuseSoftmax(),
    common.RemoveUnusedNodesPass(),
    RequireFloat32(),
    PairQuantizers(),
    DecideSharedWeights(),
    LowerRecurrent(),
    LowerEinsum(),
    LowerMatMul(),
    LowerGemm(),
    LowerConv(),
    LowerConvTranspose(),
    FuseBias(),
    NoteSharedWeights(),
    SeparateParameters(),
    common.RemoveUnusedNodesPass(),
    common.RemoveUnusedOpsetsPass(),
    CheckOperators(),
    NameLayers(),
    common.NameFixPass(),
    MarkTrained(),
    RequireFinite(),
    AddCrossbarFunctions(),
    InferShapes(),
    CheckLayerSizes(),
    CheckModel(),
)


def network_passes(share_weights: ShareWeights = ShareWeights.auto) -> tuple[ir.passes.PassBase, ...]:
    """All passes in order, with that rule for weights that several products use.

    The passes that plug-ins declare (group `cimc.passes`) run before `FoldConstants`, in the order of their names: what
    they make is folded, given shapes, lowered and checked like what a user's network holds.

    Raises:
        CimcError: a plug-in cannot be loaded, or is not a pass.
    """
    extra = plugins("cimc.passes")
    for name, network_pass in extra.items():
        if not isinstance(network_pass, ir.passes.PassBase):
            given = f"{network_pass!r:.60}"
            raise CimcError(
                f"the plug-in pass {name!r} is {given}, not an onnx_ir.passes.PassBase; declare an instance"
            )
    place = next(n for n, one in enumerate(NETWORK_PASSES) if isinstance(one, FoldConstants))
    passes = (*NETWORK_PASSES[:place], *extra.values(), *NETWORK_PASSES[place:])
    return tuple(DecideSharedWeights(share_weights) if isinstance(one, DecideSharedWeights) else one for one in passes)


def lower(model: ir.Model, watch: Watch | None = None, *, share_weights: ShareWeights = ShareWeights.auto) -> ir.Model:
    """Run all network passes on a copy of `model`: products with constant weights become crossbar layers.

    The result has a shape for every value, with a symbolic batch; the tensors of `model` may be shared with it.

    Args:
        model: the network as read.
        watch: called after each pass (see `passes.watch`).
        share_weights: whether a weight that several products use is one layer.

    Raises:
        CimcError: the network cannot be executed on crossbars; the message names the node and the remedy.
    """
    model = model.clone()
    pin_sources(model)
    # Before IR version 4 every initializer had to be an input too.
    model.ir_version = max(model.ir_version, MINIMUM_IR_VERSION)
    for number, network_pass in enumerate(network_passes(share_weights), 1):
        forget_names(model.graph)
        try:
            model = network_pass(model).model
        # A network that passes the ONNX checker can still hold nonsense anywhere.
        except Exception as error:
            cause = error if isinstance(error, CimcError) else error.__cause__
            if not isinstance(cause, CimcError):
                raise CimcError(
                    f"cannot lower the network ({type(network_pass).__name__}): {one_line(error)}; "
                    f"simplify the network or export it with another opset"
                ) from error
            example = shape_example(model) if "--shape" in str(cause) else ""
            raise CimcError(f"{cause}, such as {example}") if example else cause from None
        if watch is not None:
            watch(number, type(network_pass).__name__, model)
    return model
