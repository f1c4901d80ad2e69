"""The crossbar layers of a lowered network as the mapper sees them: sizes, pieces, positions."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import onnx_ir as ir

from cimc.by_layer import NOTHING, check_layers, number_of
from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import LayerShape
from cimc.operators import layer_of
from passes.crossbar_functions import crossbar_layers
from passes.input_signs import nonnegative_values
from passes.mapper.partition import Piece, partition, pieces_at_once, row_block_size, sizes
from passes.scan_body import nodes_with_steps


class PieceClass(NamedTuple):
    """Pieces of one size: those of one copy, those that one array takes at once, and reads of each (`reads_of`)."""

    per_copy: int
    at_once: int
    reads: int


class Layer(LayerShape):
    """A crossbar layer that is to get arrays.

    phases: of one MVM (2: positive and negative inputs one after the other). pieces: of one copy.
    """

    phases: int
    pieces: tuple[Piece, ...]
    chip: Chip

    @cached_property
    def classes(self) -> tuple[PieceClass, ...]:
        """The pieces by size."""
        return tuple(
            PieceClass(len(same), pieces_at_once(same[0], self.chip), self.reads_of(same[0]))
            for same in sizes(self.pieces).values()
        )

    @cached_property
    def read_rows(self) -> int:
        """Weight rows of a full read."""
        return self.rows_at_once(max(piece.height for piece in self.pieces))

    def reads_of(self, piece: Piece) -> int:
        """Reads of a piece in one phase of one MVM: its rows, as many at once as the layer has them driven."""
        return -(-piece.height // self.read_rows)

    @cached_property
    def reads_per_mvm(self) -> int:
        """Reads of an array for one MVM, in all phases."""
        return self.phases * max(of_class.reads for of_class in self.classes)

    @cached_property
    def row_blocks(self) -> int:
        """Row blocks of a group, whose outputs are added."""
        return len({piece.row_start for piece in self.pieces})

    @cached_property
    def reads_per_output(self) -> int:
        """Reads whose codes are added to one output in one phase: of all row blocks, in all their parts."""
        return sum(self.reads_of(piece) for piece in {piece.row_start: piece for piece in self.pieces}.values())

    @cached_property
    def starts(self) -> float:
        """The fewest MVM starts for one image: arrays filled with copies to the last place, column blocks together."""
        by_rows: dict[tuple[int, int], float] = {}
        for piece in self.pieces:
            group = piece.column_start * self.groups // self.columns
            shared = self.reads_of(piece) / pieces_at_once(piece, self.chip)
            by_rows[group, piece.row_start] = max(by_rows.get((group, piece.row_start), 0.0), shared)
        return sum(by_rows.values()) * self.positions * self.phases

    def arrays(self, copies: int) -> int:
        """Arrays for that many copies; grows with the copies."""
        return sum(-(-of.per_copy * copies // of.at_once) for of in self.classes)

    def fill_up(self, copies: int) -> int:
        """The most copies, and no fewer than `copies`, in no more arrays than `copies` take."""
        most = min(-(-of.per_copy * copies // of.at_once) * of.at_once // of.per_copy for of in self.classes)
        return max(copies, min(most, self.positions))

    def reads(self, copies: int) -> int:
        """Reads of one array for one image: its share of the positions, all reads of each."""
        return -(-self.positions // copies) * self.reads_per_mvm


def layers_of(
    model: ir.Model, chip: Chip, input_range: tuple[float, float], rows_per_read: Mapping[str, int] = NOTHING
) -> list[Layer]:
    """The layers of a lowered network that go on arrays of `chip`, in network order.

    Raises:
        CimcError: a layer without weights, or `rows_per_read` of a layer that the network has not.
    """
    nonnegative = nonnegative_values(model, input_range)
    steps = dict(nodes_with_steps(model.graph))
    found = crossbar_layers(model)
    check_layers("rows_per_read", rows_per_read, found)
    layers = (_layer(nodes, steps, nonnegative, chip, rows_per_read) for nodes in found.values())
    return [layer for layer in layers if not is_digital(layer, chip)]


def is_digital(layer: Layer, chip: Chip) -> bool:
    """Whether the chip leaves the layer to its vector unit: depthwise, one input channel a group."""
    depthwise = layer.groups > 1 and layer.rows == layer.kernel_size
    return depthwise and chip.weights.depthwise == "digital"


def _layer(
    nodes: list[ir.Node],
    steps: Mapping[ir.Node, int],
    nonnegative: frozenset[str],
    chip: Chip,
    rows_per_read: Mapping[str, int],
) -> Layer:
    node = nodes[0]
    weight = node.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    rows, columns = (int(extent) for extent in weight.shape.numpy())
    if not rows * columns:
        raise CimcError(f"layer '{node.name}' has a weight of {rows} x {columns}, which is empty; remove the layer")
    kernel = node.attributes.get("kernel_shape")
    kernel_size = math.prod(kernel.as_ints()) if kernel is not None else 1
    groups = node.attributes.get_int("group", 1)
    signed = any(node.inputs[0] is None or node.inputs[0].name not in nonnegative for node in nodes)
    name = layer_of(weight.name or "")
    return Layer(
        name=name,
        operator=node.op_type,
        rows=rows,
        columns=columns,
        kernel_size=kernel_size,
        groups=groups,
        positions=sum(positions(node) * steps[node] for node in nodes),
        signed_input=signed,
        phases=2 if signed and chip.input.signed == "two-phase" else 1,
        row_split=row_block_size(kernel_size, chip)[1],
        rows_per_read=number_of(name, rows_per_read),
        pieces=partition(rows, columns, kernel_size=kernel_size, chip=chip, groups=groups),
        chip=chip,
    )


def positions(node: ir.Node) -> int:
    """MVMs of one image (in a Scan: of one step of it).

    The spatial axes of a convolution, all axes but batch and features of a product.

    The batch is the axis that is not static, wherever it stands; without one it is the first. An axis that holds the
    batch several times (`4*N`, as inferred) counts so often.
    """
    shape = node.outputs[0].shape
    assert shape is not None
    if "kernel_shape" in node.attributes:
        return math.prod(int(extent) for extent in shape[2:] if isinstance(extent, int))
    axes = list(shape)[:-1]
    if all(isinstance(extent, int) for extent in axes):
        axes = axes[1:]
    return math.prod(extent if isinstance(extent, int) else _multiple(extent) for extent in axes)


def _multiple(extent: ir.SymbolicDim) -> int:
    factor, star, _ = str(extent.value).partition("*")
    return int(factor) if star and factor.isdigit() else 1
