"""Carry over which constants are trained to the constants that were made of them."""

import onnx_ir as ir

from cimc.trained_names import FIXED, TRAINED, names_stated, state_names
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import source_of
from passes.notes import add_note


def pin_sources(model: ir.Model) -> None:
    """Let every constant know its name in the file, whatever it is called later."""
    for name, value in model.graph.initializers.items():
        value.meta.setdefault("source", name)


def parts_of(value: ir.Value) -> set[str]:
    """The constants of the file of which a constant was made."""
    return set(source_of(value).split(" + "))


class MarkTrained(ir.passes.InPlacePass):
    """State the names of constants as they are after lowering; a network that says nothing is left alone."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Of a frozen weight of a layer there is a note: whole layers are frozen by an option of training."""
        metadata = model.metadata_props
        if TRAINED not in metadata:
            return ir.passes.PassResult(model, modified=False)
        trained, fixed = names_stated(metadata, TRAINED), names_stated(metadata, FIXED)
        values = model.graph.initializers.items()
        state_names(metadata, TRAINED, (name for name, value in values if parts_of(value) & trained))
        state_names(metadata, FIXED, (name for name, value in values if parts_of(value) <= fixed))
        layers = {id(value) for node in model.graph.all_nodes() if is_crossbar(node) for value in node.inputs[1:]}
        frozen = [source_of(value) for _, value in values if id(value) in layers and parts_of(value) <= fixed]
        if frozen:
            add_note(
                model,
                f"frozen weights and biases of layers are trained all the same: {', '.join(frozen)}; --freeze, or "
                "freeze of TrainingOptions, keeps layers as they are",
            )
        return ir.passes.PassResult(model, modified=True)
