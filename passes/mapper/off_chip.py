"""What one image moves over the edge of a chip: the network's inputs and outputs, and values between chips."""

from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.mapper.traffic import network_bytes, partial_sums


def off_chip_bytes(mapping: Mapping, chip: Chip) -> int | None:
    """Bytes of one image between chips and the world, at the chip's activation width.

    The network's inputs and outputs cross once. Of a network on several chips, a value crosses once to each further
    chip with arrays of a layer that reads it, and partial sums to the chip of the first row block.

    Returns:
        None of a network in segments: its arrays are programmed for every image, and that is not counted here.
    """
    if mapping.schedule is None:
        return None
    stages = mapping.schedule.stages
    homes = {layer.name: {mapping.place_of(block.array)[0] for block in layer.blocks} for layer in mapping.layers}
    layer_of = {stage.name: stage.layer for stage in stages}
    moved = float(network_bytes(stages, chip))
    if mapping.chips > 1:
        for stage in stages:
            for source in stage.inputs:
                here = homes.get(layer_of.get(source.source, ""), set())
                moved += source.bytes * (len(homes.get(stage.layer, here) - here) if here else 0)
        chip_of_array = [mapping.place_of(array)[0] for array in range(mapping.arrays)]
        width = chip.cores.activation_bytes
        moved += sum(
            amount for layer in mapping.layers for *_, amount in partial_sums(layer, chip_of_array, width=width)
        )
    return round(moved)
