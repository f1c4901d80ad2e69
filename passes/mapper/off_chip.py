"""What one image moves over the edge of a chip: the network's inputs and outputs, and values between chips."""

from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.mapper.traffic import network_bytes, traffic_between


def off_chip_bytes(mapping: Mapping, chip: Chip) -> int | None:
    """Bytes of one image between chips and the world, at the chip's activation width.

    The network's inputs and outputs cross once; of a network on several chips also the values that a layer on another
    chip needs, and partial sums (`traffic_between`).

    Returns:
        None of a network in segments: its arrays are programmed for every image, and that is not counted here.
    """
    if mapping.schedule is None:
        return None
    stages = mapping.schedule.stages
    chips = [mapping.place_of(array)[0] for array in range(mapping.arrays)]
    between = traffic_between(mapping.layers, stages, chips, count=mapping.chips, width=chip.cores.activation_bytes)
    return network_bytes(stages, chip) + round(float(between.sum()))
