"""The crossbar layers of a lowered network as the mapper sees them: sizes, pieces, positions."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import onnx_ir as ir

from cimc.by_layer import NOTHING, check_layers, number_of
from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.layer_settings import Settings, chip_of_layer, priced_chip
from cimc.mapping import LayerShape
from cimc.operators import ROW_COPIES, layer_of
from passes.crossbar_functions import crossbar_layers
from passes.image_sizes import sizes_of_image
from passes.input_signs import nonnegative_values
from passes.mapper.partition import Piece, partition, pieces_at_once, row_block_size, sizes
from passes.scan_body import nodes_with_steps


class PieceClass(NamedTuple):
    """Pieces of one size: those of one copy, those in one array, and reads of such an array in one phase of an MVM."""

    per_copy: int
    at_once: int
    reads: int


class Layer(LayerShape):
    """A crossbar layer that is to get arrays.

    phases: of one MVM (2: positive and negative inputs one after the other). pieces: of one copy. chip: as this layer
    is read on it, with what that takes (`priced_chip`). read_units: the time of a read, in the unit of the task
    (`Task.unit_us`).
    """

    phases: int
    pieces: tuple[Piece, ...]
    chip: Chip
    read_units: int = 1

    @cached_property
    def classes(self) -> tuple[PieceClass, ...]:
        """The pieces by size."""
        return tuple(self._class_of(same) for same in sizes(self.pieces).values())

    def _class_of(self, same: Sequence[Piece]) -> PieceClass:
        most, parts = pieces_at_once(same[0], self.chip), self.reads_of(same[0])
        if self.groups_per_read is None:
            return PieceClass(len(same), most, parts)
        # Copies that share an array would only wait for each other.
        turns = min(most, len(same)) // self.groups_per_read
        return PieceClass(len(same), turns * self.groups_per_read, turns * parts)

    def pieces_per_array(self, piece: Piece) -> int:
        """Pieces of that size in one array."""
        return self._size_classes[piece.height, piece.width].at_once

    @cached_property
    def _size_classes(self) -> dict[tuple[int, int], PieceClass]:
        return dict(zip(sizes(self.pieces), self.classes, strict=True))

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

    @property
    def units_per_mvm(self) -> int:
        """How long an array is busy for one MVM, in the time unit of the task."""
        return self.reads_per_mvm * self.read_units

    @property
    def mvm_ns(self) -> float:
        """The time of one MVM, all phases and reads."""
        return self.chip.cost.mvm_us * 1e3 * self.reads_per_mvm

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
            of_size = self._size_classes[piece.height, piece.width]
            shared = of_size.reads / of_size.at_once
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

    def units(self, copies: int) -> int:
        """How long one array is busy for one image, in the time unit of the task."""
        return -(-self.positions // copies) * self.units_per_mvm


def layers_of(
    model: ir.Model,
    chip: Chip,
    input_range: tuple[float, float],
    rows_per_read: Mapping[str, int] = NOTHING,
    groups_per_read: Mapping[str, int] = NOTHING,
    settings: Mapping[str, Settings] = MappingProxyType({}),
) -> list[Layer]:
    """The layers of a lowered network that go on arrays of `chip`, in network order.

    Raises:
        CimcError: a layer without weights; or numbers for a layer that the network has not, or settings that `chip` has
            not.
    """
    nonnegative = nonnegative_values(model, input_range)
    steps = dict(nodes_with_steps(model.graph))
    found = crossbar_layers(model)
    check_layers("--rows-per-read", rows_per_read, found)
    check_layers("--groups-per-read", groups_per_read, found)
    layers = []
    for name, nodes in found.items():
        own = settings.get(name, ())
        layer = _layer(nodes, steps, nonnegative, chip_of_layer(chip, own))
        groups = _groups_at_once(layer, number_of(name, groups_per_read))
        read: dict[str, Any] = {"rows_per_read": number_of(name, rows_per_read), "groups_per_read": groups}
        read |= {"settings": own, "chip": priced_chip(chip, own, layer.signed_input)}
        layers.append(layer.model_copy(update=read))
    return _in_units([layer for layer in layers if not is_digital(layer, chip)])


def _in_units(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with what their reads take in the largest unit of which all are whole numbers."""
    times = [Fraction(str(layer.chip.cost.mvm_us)) for layer in layers]  # exactly as it is written
    if len(set(times)) < 2:
        return list(layers)
    common = math.lcm(*(time.denominator for time in times))
    whole = [int(time * common) for time in times]
    unit = math.gcd(*whole)
    return [
        layer.model_copy(update={"read_units": max(time // unit, 1)}) for layer, time in zip(layers, whole, strict=True)
    ]


def _groups_at_once(layer: Layer, most: int | None) -> int | None:
    """The most groups, up to `most`, that divide all and lie in one array; None where `most` is, or without groups."""
    if most is None or layer.groups == 1:
        return None
    # What has several blocks for a group is not read beside another one.
    fitting = pieces_at_once(layer.pieces[0], layer.chip) if len(layer.pieces) == layer.groups else 1
    return max(size for size in range(1, min(most, fitting) + 1) if layer.groups % size == 0)


def is_digital(layer: Layer, chip: Chip) -> bool:
    """Whether the chip leaves the layer to its vector unit: depthwise, one input channel a group."""
    depthwise = layer.groups > 1 and layer.rows == layer.kernel_size
    return depthwise and chip.weights.depthwise == "digital"


def _layer(nodes: list[ir.Node], steps: Mapping[ir.Node, int], nonnegative: frozenset[str], chip: Chip) -> Layer:
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
    return Layer(
        name=layer_of(weight.name or ""),
        operator=node.op_type,
        rows=rows,
        columns=columns,
        kernel_size=kernel_size,
        groups=groups,
        positions=sum(positions(node) * steps[node] for node in nodes),
        signed_input=signed,
        phases=2 if signed and chip.input.signed == "two-phase" else 1,
        row_copies=int(node.metadata_props.get(ROW_COPIES, "1")),
        row_split=row_block_size(kernel_size, chip)[1],
        pieces=partition(rows, columns, kernel_size=kernel_size, chip=chip, groups=groups),
        chip=chip,
    )


def positions(node: ir.Node) -> int:
    """MVMs of one image (in a Scan: of one step of it).

    The spatial axes of a convolution, all axes but batch and features of a product.

    The batch is the axis that is not static, wherever it stands; without one it is the first. An axis that holds the
    batch several times (`4*N`, as inferred) counts so often: frames of a video, windows of an image.
    """
    shape, sizes = node.outputs[0].shape, sizes_of_image(node.outputs[0])
    assert shape is not None
    if "kernel_shape" in node.attributes:
        first = 1 if isinstance(shape[0], int) else sizes[0]
        return first * math.prod(sizes[2:])
    return math.prod(sizes[1:-1] if all(isinstance(extent, int) for extent in shape[:-1]) else sizes[:-1])
