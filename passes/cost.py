"""Cost of one image on the arrays: array count, MVMs, latency, energy (the rules of Table 2, arXiv 2305.14547).

Modelled: MVMs with their converters. Not modelled: digital operators, data movement, programming.
"""

from collections.abc import Sequence

from cimc.chip import Chip
from cimc.mapping import Cost, LayerCost, MappedLayer


def layer_cost(layer: MappedLayer, chip: Chip) -> LayerCost:
    """Cost of one layer: its row and column blocks work in parallel, its positions one after the other.

    A layer with signed inputs takes two phases, so twice the time and energy of an MVM.
    """
    phases = 2 if layer.signed_input else 1
    tile_ops = layer.positions * len(layer.blocks) * phases
    cells = len(layer.blocks) * chip.array.rows * chip.array.columns
    return LayerCost(
        name=layer.name,
        arrays=len(layer.blocks),
        positions=layer.positions,
        tile_ops=tile_ops,
        latency_ms=layer.positions * phases * chip.cost.mvm_us * 1e-3,
        energy_mj=tile_ops * (chip.cost.mvm_nj or 0.0) * 1e-6,
        utilization=2 * layer.rows * layer.columns / cells,
    )


def network_cost(layers: Sequence[MappedLayer], chip: Chip) -> Cost:
    """Cost of the whole network: latency is the sum over layers, the pipelined interval that of the slowest layer."""
    costs = tuple(layer_cost(layer, chip) for layer in layers)
    weights = sum(layer.rows * layer.columns for layer in layers)
    crossbars = sum(cost.arrays for cost in costs)
    return Cost(
        crossbars=crossbars,
        chips=-(-crossbars // chip.array.per_chip),
        weights=weights,
        devices=2 * weights,
        flops=sum(2 * layer.rows * layer.columns * layer.positions for layer in layers),
        mvm_positions=sum(cost.positions for cost in costs),
        tile_ops=sum(cost.tile_ops for cost in costs),
        latency_ms=sum(cost.latency_ms for cost in costs),
        pipelined_latency_ms=max((cost.latency_ms for cost in costs), default=0.0),
        energy_mj=sum(cost.energy_mj for cost in costs),
        utilization=2 * weights / (crossbars * chip.array.rows * chip.array.columns) if crossbars else 0.0,
        layers=costs,
    )
