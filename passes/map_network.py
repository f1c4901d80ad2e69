"""The mapper: every crossbar layer of a lowered network gets arrays, and every weight an address."""

import math
from typing import Literal

import onnx_ir as ir

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import MappedLayer, Mapping
from cimc.operators import layer_of
from passes.cost import network_cost
from passes.crossbar_functions import crossbar_layers
from passes.input_signs import nonnegative_values
from passes.partition import partition, row_block_size


def map_network(
    model: ir.Model,
    chip: Chip,
    input_range: tuple[float, float] = (0.0, 1.0),
    max_chips: int | None = None,
    row_split: Literal["channel", "flat"] | None = None,
) -> Mapping:
    """Assign the weights of every crossbar layer to arrays, one copy each, one block an array, in network order.

    Args:
        model: a network lowered by `passes.pipeline.lower`.
        chip: the chip; a network that needs more arrays than it has is spread over several.
        input_range: least and greatest value of the network's input; decides whether the first layer needs two phases.
        max_chips: an upper limit on the chips.
        row_split: how rows are split, in place of the chip's own rule.

    Raises:
        CimcError: no crossbar layer, or more arrays needed than `max_chips` chips have.
    """
    if row_split is not None:
        chip = chip.model_copy(update={"row_split": row_split})
    nonnegative = nonnegative_values(model, input_range)
    layers: list[MappedLayer] = []
    arrays = 0
    for nodes in crossbar_layers(model).values():
        layers.append(_map_layer(nodes, nonnegative, arrays, chip))
        arrays += len(layers[-1].blocks)
    if not layers:
        raise CimcError("the network has no Conv, Gemm or MatMul with constant weights; there is nothing to map")
    if max_chips is not None and arrays > max_chips * chip.array.per_chip:
        missing = arrays - max_chips * chip.array.per_chip
        raise CimcError(
            f"the network needs {arrays} arrays but {max_chips} x {chip.name} has {max_chips * chip.array.per_chip}: "
            f"{missing} missing; raise --max-chips to {-(-arrays // chip.array.per_chip)} or choose a larger chip"
        )
    return Mapping(
        chip=chip.name,
        arrays_per_chip=chip.array.per_chip,
        arrays=arrays,
        input_range=input_range,
        layers=tuple(layers),
        cost=network_cost(layers, chip),
    )


def _map_layer(nodes: list[ir.Node], nonnegative: frozenset[str], first_array: int, chip: Chip) -> MappedLayer:
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
    _, row_split = row_block_size(kernel_size, chip)
    return MappedLayer(
        name=layer_of(weight.name or ""),
        operator=node.op_type,
        rows=rows,
        columns=columns,
        kernel_size=kernel_size,
        groups=groups,
        positions=sum(_positions(node) for node in nodes),
        signed_input=any(node.inputs[0] is None or node.inputs[0].name not in nonnegative for node in nodes),
        row_split=row_split,
        blocks=partition(rows, columns, kernel_size, first_array, chip, groups),
    )


def _positions(node: ir.Node) -> int:
    """MVMs of one image: the spatial axes of a convolution, all axes but batch and features of a product.

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
