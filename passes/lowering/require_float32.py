"""Refuse networks in other floating point formats than float32."""

from collections.abc import Iterator

import onnx_ir as ir

from cimc.errors import CimcError


class RequireFloat32(ir.passes.InPlacePass):
    """Check that all inputs, weights and values that hold fractions are float32; integers and booleans pass."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check; nothing is changed.

        Raises:
            CimcError: an input is neither float32 nor integer nor boolean, or a value is of another floating type.
        """
        for value in model.graph.inputs:
            whole = value.dtype is not None and (value.dtype.is_integer() or value.dtype == ir.DataType.BOOL)
            if value.dtype != ir.DataType.FLOAT and not whole:
                raise CimcError(
                    f"input '{value.name}' is {_name(value.dtype)}, not float32; export the network with float32 inputs"
                )
        for value in _values(model.graph):
            if value.dtype is not None and value.dtype.is_floating_point() and value.dtype != ir.DataType.FLOAT:
                raise CimcError(
                    f"'{value.name}' is {_name(value.dtype)}, and only float32 networks can be mapped; "
                    f"convert the network to float32 and export it again"
                )
        return ir.passes.PassResult(model, modified=False)


def _name(kind: ir.DataType | None) -> str:
    names = {ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64"}
    return "of unknown type" if kind is None else names.get(kind, kind.name.lower())


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs
