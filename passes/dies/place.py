"""A program on a die: arrays, lines and targets by least expected output error, around the cells that are stuck.

The expected error of a layer is that of its weights, squared, times the mean square of their inputs and the square of
their columns' scales, over the same of the weights themselves: the noise that the stuck cells bring, of the signal. It
takes inputs for uncorrelated, and leaves out what converters clip.
"""

from collections.abc import Callable
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from cimc.addresses import lay_on_arrays, size_of_array
from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.fault_map import Die
from cimc.layer_settings import chip_of_layer
from cimc.mapping import Mapping
from cimc.options import DiePlacement
from cimc.program import Floats, LayerProgram, Program
from cimc.units import weight_of
from cimc.wiring import Wiring, layers_on_die
from passes.dies.assign import Found, Order, Wanted, as_mapped, best_order, bound, error, found_of
from passes.dies.reach import Doubles, coefficients, compensate, held, programmable

MOVED = 1e-9  # of the error: what an array of its own is worth, so that none moves for nothing


@dataclass(frozen=True, eq=False)
class Placed:
    """A program on a die.

    program: targets as the mapping has them, of stuck cells what they hold. die: the die. wiring: where the lines of
    the mapping are on it; None: as the mapping says. stuck: by layer what its stuck devices hold, uS [devices, rows,
    columns]; NaN of all others. figures: what it brought, as JSON: `expected_error` with `none` (targets as they are),
    `pairs` (compensated where they are), `full` (placed, and then compensated), `bound` (no order of rows and columns
    on these arrays has less), all of the signal and summed over the layers; `layers`: the same of each.
    """

    program: Program
    die: Die
    wiring: Wiring | None
    stuck: dict[str, Floats]
    figures: dict[str, Any]


def require_placeable(mapping: Mapping, chip: Chip) -> None:
    """Raises CimcError of layers in copies, and of arrays with a reference column."""
    copied = next((layer.name for layer in mapping.layers if layer.copies > 1), None)
    if copied is not None:
        raise CimcError(
            f"{copied} has {mapping.layer(copied).copies} copies on the chip, and each would need targets of its own "
            f"on a die; add --chip {chip.name} (or its file), which maps one copy of every layer"
        )
    if chip.scheme.reference is not None:
        raise CimcError(
            f"the arrays of {chip.name} have a reference column, whose faults shift every weight of an array and are "
            "not placed; describe a chip with weights.offset_columns = 0, whose digital side takes off the offset"
        )


def hold_stuck(targets: Floats, stuck: Floats, chip: Chip, *, compensated: bool) -> Floats:
    """Targets of a layer [devices, rows, columns] where some devices are stuck: these have what they hold, and with
    `compensated` the good ones of their weights take up the error.
    """
    counts, cell = coefficients(chip), programmable(chip)
    return compensate(targets, stuck, counts, cell) if compensated else held(targets, stuck, cell)


def place_on_die(
    program: Program,
    mapping: Mapping,
    chip: Chip,
    die: Die,
    *,
    placement: DiePlacement,
    powers: Dictionary[str, Floats],
) -> Placed:
    """Place a program on a die.

    Args:
        program: of the network on perfect arrays.
        mapping: of the network, as `require_placeable` wants it.
        chip: the chip.
        die: what is stuck.
        placement: none: targets stay, and stuck cells hold what they hold; pairs: the good devices of a weight take up
            the error of its stuck ones; full: before that arrays and lines are chosen.
        powers: by layer, the mean square of the inputs of each weight row [rows], or of grouped ones [rows, groups], in
            any unit; 1 of all layers that are not there.
    """
    counts = coefficients(chip)
    importance = {name: importance_of(layer, chip, powers.get(name)) for name, layer in program.layers.items()}
    chips = {layer.name: chip_of_layer(chip, layer.settings) for layer in mapping.layers}

    def targets_of(stuck: dict[str, Floats], *, compensated: bool) -> dict[str, Floats]:
        layers = program.layers.items()
        return {n: hold_stuck(layer.targets, stuck[n], chips[n], compensated=compensated) for n, layer in layers}

    def errors_of(targets: dict[str, Floats]) -> dict[str, float]:
        found = {}
        for name, layer in program.layers.items():
            missed = np.tensordot(counts, targets[name].astype(np.float64) - layer.targets, axes=1)
            found[name] = float(np.sum(importance[name] * np.square(missed)))
        return found

    straight, wiring, least = layers_on_die(mapping, None, die.stuck), None, None
    stuck = straight
    made = {"none": targets_of(straight, compensated=False)}
    if placement is not DiePlacement.none:
        made["pairs"] = targets_of(straight, compensated=True)
    if placement is DiePlacement.full:
        wiring, least = _wire(program, mapping, chip, die, importance)
        stuck = layers_on_die(mapping, wiring, die.stuck)
        made["full"] = targets_of(stuck, compensated=True)
    errors = {name: errors_of(targets) for name, targets in made.items()}
    final = made[placement.value]
    figures: dict[str, Any] = {
        "name": die.name,
        "placement": placement.value,
        "stuck": int(sum(np.count_nonzero(~np.isnan(part)) for part in stuck.values())),
        "devices": int(sum(part.size for part in stuck.values())),
        "expected_error": {name: sum(found.values()) for name, found in errors.items()},
        "layers": {name: {mode: found[name] for mode, found in errors.items()} for name in program.layers},
    }
    if least is not None:
        figures["expected_error"]["bound"] = least
    if wiring is not None:
        figures["moved_arrays"] = int(np.count_nonzero(wiring.array != np.arange(len(wiring.array))))
    layers = {name: replace(layer, targets=final[name]) for name, layer in program.layers.items()}
    return Placed(Program(layers, program.digital), die, wiring, stuck, figures)


def importance_of(layer: LayerProgram, chip: Chip, power: Floats | None) -> Doubles:
    """What the squared error of each weight [rows, columns] costs, of the signal; weights are of a range of 1."""
    weight = np.asarray(weight_of(layer.targets, np.float32(1), chip), np.float64)
    rows, columns = weight.shape
    scale = np.square(np.asarray(layer.weight_range, np.float64) * np.asarray(layer.gain, np.float64))
    each = np.ones((rows, 1)) if power is None else np.asarray(power, np.float64).reshape(rows, -1)
    cost = np.repeat(each, columns // each.shape[1], axis=1) * scale
    return cost / (float(np.sum(cost * np.square(weight))) or 1.0)


def _wire(
    program: Program, mapping: Mapping, chip: Chip, die: Die, importance: Dictionary[str, Doubles]
) -> tuple[Wiring | None, float]:
    """The wiring, None where nothing is stuck in the arrays of the mapping; and the bound of the error."""
    counts, cell = coefficients(chip), programmable(chip)
    sums = {
        name: np.broadcast_to(np.tensordot(counts, layer.targets, axes=1), layer.targets.shape)
        for name, layer in program.layers.items()
    }
    costs = {name: np.broadcast_to(importance[name], sums[name].shape) for name in sums}
    laid = (_by_slices(lay_on_arrays(mapping, of, chip=chip, fill=0), mapping) for of in (sums, costs))
    wanted = [
        Wanted(*(_in_units(part, number, mapping, chip)[0, 0, 0] for part in parts))
        for number, parts in enumerate(zip(*laid, strict=True))
    ]
    stuck = _by_slices(die.stuck, mapping)
    if np.isnan(stuck[: len(wanted)]).all():
        return None, 0.0

    def array_of_die(number: int) -> Found:
        return found_of(_in_units(stuck[number], number, mapping, chip), counts, cell)

    array = _choose_arrays(wanted, len(stuck), array_of_die, mapping)
    lines, least = [], 0.0
    for one, place in zip(wanted, array.tolist(), strict=True):
        found = array_of_die(place)
        lines.append(_lines(best_order(one, found), mapping, stuck.shape[2:]))
        least += bound(one, found)
    # Bit slices in arrays of their own move together, and their lines lie alike.
    slices = mapping.physical_per_array
    word_lines, bit_lines = (
        np.repeat(np.stack(side), slices, axis=0).astype(np.int32) for side in zip(*lines, strict=True)
    )
    physical = (array[:, None] * slices + np.arange(slices)).reshape(-1).astype(np.int32)
    return Wiring(physical, word_lines, bit_lines, int(physical.max()) + 1), least


def _by_slices(arrays: Floats, mapping: Mapping) -> Any:
    """Physical arrays [physical arrays, rows, columns] as [arrays, slices, rows, columns]; what is over is left out."""
    slices = mapping.physical_per_array
    whole = len(arrays) // slices
    return arrays[: whole * slices].reshape(whole, slices, *arrays.shape[1:])


def _choose_arrays(wanted: list[Wanted], arrays: int, array_of_die: Callable[[int], Found], mapping: Mapping) -> Any:
    """The array of the die for each array of the mapping, of the same chip and kind, by the error with its lines as
    mapped.
    """
    costs = np.full((len(wanted), arrays), np.inf)
    chips = [mapping.place_of(number)[0] for number in range(len(wanted))]
    kinds = [mapping.kind_of(place) for place in range(arrays)]
    straight = [as_mapped(*one.weight.shape) for one in wanted]
    for place in range(arrays):
        found = array_of_die(place)
        of_chip = mapping.places[place][0] if mapping.kinds else place // mapping.arrays_per_chip
        for number, one in enumerate(wanted):
            if of_chip == chips[number] and kinds[place] == kinds[number]:
                costs[number, place] = error(one, found, straight[number])
    costs += MOVED * (float(costs[np.isfinite(costs)].max()) or 1.0) * (1 - np.eye(*costs.shape))
    return linear_sum_assignment(costs)[1]


def _in_units(array: Floats, number: int, mapping: Mapping, chip: Chip) -> Any:
    """An array [slices, rows, columns] as [slices, rows of a unit, columns of a unit, rows, columns], units with spare
    columns among them; what is over, or beyond the array of that number, is left out.
    """
    high, wide = mapping.rows_per_weight, mapping.columns_per_weight
    size = size_of_array(mapping, chip, number * mapping.physical_per_array)
    rows, columns = size[0] // high, size[1] // wide
    whole = array[:, : rows * high, : columns * wide].reshape(-1, rows, high, columns, wide)
    return whole.transpose(0, 2, 4, 1, 3)


def _lines(order: Order, mapping: Mapping, largest: tuple[int, int]) -> tuple[Any, Any]:
    """The word line and the bit line of the die's array for each of the mapping's, of as many as the largest has."""
    sides = (
        (order.row, order.row_reversed, mapping.rows_per_weight, largest[0]),
        (order.column, order.column_reversed, mapping.columns_per_weight, largest[1]),
    )
    found = []
    for unit, turned, size, count in sides:
        lines, within = np.arange(count), np.arange(size)
        offset = np.where(turned[:, None] == 1, within[::-1], within)
        lines[: len(unit) * size] = (unit[:, None] * size + offset).reshape(-1)
        found.append(lines)
    return found[0], found[1]
