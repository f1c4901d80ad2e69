"""Give the inputs of a network the sizes that its user names, before anything else is done with it."""

from collections.abc import Mapping

import onnx_ir as ir

from cimc.errors import CimcError
from passes.lowering.infer_shapes import batch_axis

Sizes = tuple[int | str, ...]


def parse_shape(text: str) -> tuple[str, Sizes]:
    """An input's name and its sizes from `name=1x3x224x224`; a size that is a name stays open.

    Raises:
        CimcError: the text has another form.
    """
    name, equals, sizes = text.rpartition("=")
    parts = [part.strip() for part in sizes.split("x")]
    if not equals or not name or not all(parts):
        raise CimcError(f"--shape {text} has another form than name=1x3x224x224; a size may be a name, such as Nx128")
    values = tuple(int(part) if part.lstrip("-").isdigit() else part for part in parts)
    if any(isinstance(value, int) and value < 1 for value in values):
        raise CimcError(f"--shape {text} has a size below 1; sizes count from 1")
    return name, values


def set_shapes(model: ir.Model, shapes: Mapping[str, Sizes]) -> None:
    """Set the sizes of inputs, in place.

    Args:
        model: the network as read.
        shapes: sizes by input name.

    Raises:
        CimcError: no such input, another number of sizes, or a static size of another value.
    """
    inputs = {value.name or "": value for value in model.graph.inputs if not value.is_initializer()}
    for name, sizes in shapes.items():
        value = inputs.get(name)
        if value is None:
            raise CimcError(f"--shape names the input '{name}', but the network has {', '.join(inputs) or 'none'}")
        known = list(value.shape) if value.shape is not None else list(sizes)
        if len(known) != len(sizes):
            raise CimcError(f"--shape gives '{name}' {len(sizes)} sizes, but it has {len(known)}")
        for old, new in zip(known, sizes, strict=True):
            if isinstance(old, int) and old != new:
                raise CimcError(f"--shape gives '{name}' the size {new} where the network has {old}; leave it {old}")
        value.shape = ir.Shape(sizes)
    if shapes:
        # Sizes that were inferred for the open ones no longer hold.
        for node in model.graph.all_nodes():
            for output in node.outputs:
                if not output.is_graph_output():
                    output.shape = None
        for output in model.graph.outputs:
            if output.shape is not None and output.producer() is not None:
                output.shape = ir.Shape([None] * len(output.shape))


def shape_example(model: ir.Model) -> str:
    """The options that give every open size of the inputs but the batch a plausible value; "" if none is open.

    The same name stands for the same size; a width is four times the height that is known, such as that of a line.
    """
    named: dict[object, int] = {}
    options = []
    for value in model.graph.inputs:
        dims = list(value.shape) if value.shape is not None and not value.is_initializer() else []
        batch = batch_axis(value, model.graph.inputs)
        if all(isinstance(size, int) or axis == batch for axis, size in enumerate(dims)):
            continue
        texts: list[str] = []
        for axis, size in enumerate(dims):
            if isinstance(size, ir.SymbolicDim):
                line = len(dims) == 4 and axis == 3 and texts[2] == str(dims[2])
                plausible = 4 * int(texts[2]) if line else 224 if len(dims) == 4 else 128
                number = named.setdefault((value.name, axis) if size.value is None else size.value, plausible)
                texts.append("N" if axis == batch else str(number))
            else:
                texts.append(str(size))
        options.append(f"--shape {value.name}={'x'.join(texts)}")
    return " ".join(options)
