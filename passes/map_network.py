"""The mapper: every crossbar layer of a lowered network gets arrays, and every weight an address in each copy."""

from typing import Literal

import onnx_ir as ir

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Block, MappedLayer, Mapping
from passes.cost import network_cost
from passes.layers import Layer, layers_of
from passes.layout import plain_blocks


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
    shapes = layers_of(model, chip, input_range)
    if not shapes:
        raise CimcError("the network has no Conv, Gemm or MatMul with constant weights; there is nothing to map")
    layers: list[MappedLayer] = []
    arrays = 0
    for shape in shapes:
        layers.append(_mapped(shape, plain_blocks(shape, arrays), 1))
        arrays += 1 + max(block.array for block in layers[-1].blocks) - arrays
    if max_chips is not None and arrays > max_chips * chip.arrays_per_chip:
        missing = arrays - max_chips * chip.arrays_per_chip
        raise CimcError(
            f"the network needs {arrays} arrays but {max_chips} x {chip.name} has {max_chips * chip.arrays_per_chip}: "
            f"{missing} missing; raise --max-chips to {-(-arrays // chip.arrays_per_chip)} or choose a larger chip"
        )
    return Mapping(
        chip=chip.name,
        arrays_per_chip=chip.arrays_per_chip,
        arrays=arrays,
        columns_per_weight=chip.columns_per_weight,
        rows_per_weight=chip.rows_per_weight,
        physical_per_array=chip.physical_per_array,
        input_range=input_range,
        layers=tuple(layers),
        cost=network_cost(layers, chip),
    )


def _mapped(layer: Layer, blocks: tuple[Block, ...], copies: int) -> MappedLayer:
    return MappedLayer(
        name=layer.name,
        operator=layer.operator,
        rows=layer.rows,
        columns=layer.columns,
        kernel_size=layer.kernel_size,
        groups=layer.groups,
        positions=layer.positions,
        signed_input=layer.signed_input,
        row_split=layer.row_split,
        blocks=blocks,
        copies=copies,
    )
