"""Notes to the user on what a pass decided: kept with the network, shown by `cimc compile`."""

import onnx_ir as ir

_KEY = "ai.cimc.notes"  # among the metadata of the model, one note a line


def add_note(model: ir.Model, note: str) -> None:
    """Keep `note`, one line, with the network; once, however often it is added."""
    kept = notes_of(model)
    if note not in kept:
        model.metadata_props[_KEY] = "\n".join((*kept, note))


def notes_of(model: ir.Model) -> tuple[str, ...]:
    """The notes kept with the network, in the order in which they were added."""
    return tuple(model.metadata_props.get(_KEY, "").splitlines())
