"""The least energy of reading arrays: copies for it, and what no number of copies can be below."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from cimc.chip import Chip
from cimc.mapping import MappedLayer
from passes.mapper.bounds import energy_in_segments
from passes.mapper.copies import Copies, arrays_of
from passes.mapper.cost import layer_cost
from passes.mapper.lay_out import lay_out_copies, on_blocks
from passes.mapper.layers import Layer
from passes.mapper.layout import copied_blocks
from passes.mapper.objective import Objective
from passes.mapper.plan import Task
from passes.mapper.reads import read_table

Energy = Callable[[Layer, int], float]  # of a layer for one image with that many copies, in any unit


def search(task: Task, budget: int) -> list[MappedLayer]:
    """The copies that `least_energy` finds."""
    counted = partial(_counted_energy, chip=task.chip)
    return lay_out_copies(task.layers, least_energy(task.layers, budget, energy=read_energy, counted=counted))


def _counted_energy(layer: Layer, copies: int, chip: Chip) -> float:
    """Energy of the layer's reads for one image with that many copies, as the cost counts it, mJ."""
    laid = on_blocks(layer, copied_blocks(layer, copies, 0), copies=copies)
    return layer_cost(laid, read_table([laid], chip).by_layer[layer.name], chip=chip).energy_mj


def least_energy(layers: Sequence[Layer], budget: int, *, energy: Energy, counted: Energy, largest: int = 64) -> Copies:
    """Copies that read fewer arrays an image: those that share arrays are read at once.

    The energy of each layer over its arrays is reduced to its lower convex hull; the steps of all hulls are taken in
    falling order of energy saved an array, up to the first that does not fit. Of the states on that way, which no
    budget decides, the one of least counted energy is taken.

    Args:
        layers: in network order.
        budget: arrays.
        energy: quick to compute; it takes the last read of every array for full.
        counted: exact.
        largest: number of copies tried.
    """
    copies: Copies = {}
    steps: list[tuple[float, int, int, str, int]] = []
    for index, layer in enumerate(layers):
        hull = _hull(layer, energy, min(largest, layer.positions))
        copies[layer.name] = hull[0][2]
        for (arrays, before, _), (more, after, count) in pairwise(hull):
            steps.append(((after - before) / (more - arrays), index, more - arrays, layer.name, count))
    left = budget - arrays_of(layers, copies)
    best, saved, most = dict(copies), 0.0, 0.0
    by_name = {layer.name: layer for layer in layers}
    for _, _, arrays, name, count in sorted(steps):
        if arrays > left:
            break
        left -= arrays
        saved += counted(by_name[name], copies[name]) - counted(by_name[name], count)
        copies[name] = count
        if saved > most:
            best, most = dict(copies), saved
    return best


def _hull(layer: Layer, energy: Energy, largest: int) -> list[tuple[int, float, int]]:
    """(arrays, energy, copies) on the lower convex hull, from the arrays of one copy on; energy falls."""
    hull: list[tuple[int, float, int]] = []
    for count in range(1, largest + 1):
        point = (layer.arrays(count), energy(layer, count), count)
        if hull and point[1] >= hull[-1][1]:
            continue
        while hull and (point[0] == hull[-1][0] or (len(hull) > 1 and _above(hull[-2], hull[-1], point))):
            hull.pop()
        hull.append(point)
    return hull


def _above(a: tuple[int, float, int], b: tuple[int, float, int], c: tuple[int, float, int]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def read_energy(layer: Layer, copies: int) -> float:
    """Energy of the layer's reads for one image with that many copies, mJ."""
    chip = layer.chip
    arrays = sum(-(-of.per_copy * copies // of.at_once) * of.reads for of in layer.classes)
    reads = arrays * -(-layer.positions // copies) * layer.phases * chip.physical_per_array
    cost = chip.cost
    if cost.mvm_nj is not None:
        return reads * cost.mvm_nj * 1e-6
    conversion = ((cost.adc_pj or 0.0) + (cost.shift_add_pj or 0.0)) * chip.input.conversions
    codes = sum(piece.width * layer.reads_of(piece) for piece in layer.pieces)
    converted = codes * chip.columns_per_weight * conversion
    driven = sum(piece.height for piece in layer.pieces) * chip.rows_per_weight * (cost.dac_pj or 0.0)
    once = layer.positions * layer.phases * (converted + driven) * chip.physical_per_array
    return (once + reads * ((cost.array_pj or 0.0) + chip.weights.offset_columns * conversion)) * 1e-9


def least_read_energy(layer: Layer) -> float:
    """No number of copies has less: every array filled to the last place, read once for all it holds, mJ."""
    chip = layer.chip
    mvms = layer.positions * layer.phases * chip.physical_per_array
    filled = mvms * sum(of.per_copy / of.at_once * of.reads for of in layer.classes)
    if chip.cost.mvm_nj is not None:
        return filled * chip.cost.mvm_nj * 1e-6
    reads = mvms * sum(-(-of.per_copy // of.at_once) * of.reads for of in layer.classes)
    conversion = ((chip.cost.adc_pj or 0.0) + (chip.cost.shift_add_pj or 0.0)) * chip.input.conversions
    idle = (chip.cost.array_pj or 0.0) + chip.weights.offset_columns * conversion
    return read_energy(layer, 1) - (reads - filled) * idle * 1e-9


OBJECTIVE = Objective(
    unit="mJ",
    search=search,
    reached=lambda mapping: mapping.cost.energy_mj,
    bound=lambda task, budget: sum(least_read_energy(layer) for layer in task.layers),
    bound_in_segments=lambda task, mapping, budget: energy_in_segments(task, mapping),
)
