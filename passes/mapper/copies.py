"""Copies: how often each layer is laid out, under a budget of arrays, for an objective. Every result has its bound.

All functions choose among states that do not depend on the budget, so more arrays never make a result worse.
"""

from collections.abc import Callable, Mapping, Sequence

from passes.mapper.layers import Layer

FIRST_COPIES = 8  # of the slowest layer, tried one by one

Copies = dict[str, int]
Arrays = Callable[[Sequence[Layer], Mapping[str, int]], int]


def one_each(layers: Sequence[Layer]) -> Copies:
    """One copy of every layer."""
    return {layer.name: 1 for layer in layers}


def arrays_of(layers: Sequence[Layer], copies: Mapping[str, int]) -> int:
    """Arrays that the copies take."""
    return sum(layer.arrays(copies[layer.name]) for layer in layers)


def area_of(layers: Sequence[Layer], copies: Mapping[str, int]) -> int:
    """Arrays that hold so many weights: no layout of the copies takes fewer."""
    weights = sum(layer.rows * layer.columns * copies[layer.name] for layer in layers)
    return -(-weights // (layers[0].chip.weight_rows * layers[0].chip.weight_columns))


def needed_for(layers: Sequence[Layer], units: int) -> Copies:
    """The fewest copies with which no array is busy for more than so many time units an image (`Task.unit_us`)."""
    return {layer.name: -(-layer.positions // max(units // layer.units_per_mvm, 1)) for layer in layers}


def copies_for(layers: Sequence[Layer], units: int) -> Copies:
    """`needed_for`, and those copies that fit in beside."""
    needed = needed_for(layers, units)
    return {layer.name: layer.fill_up(needed[layer.name]) for layer in layers}


def least_units(layers: Sequence[Layer], budget: int, arrays: Arrays = arrays_of) -> int:
    """The least time of the busiest array for one image that the budget allows, in units of `Task.unit_us`: exact.

    With u units a layer needs ceil(positions / floor(u / units an MVM)) copies, and its arrays grow with its copies, so
    the arrays needed fall with u: binary search. Exact for arrays that hold one layer each; with `area_of` in place of
    their number a bound for any layout.
    """
    low, high = max(layer.units_per_mvm for layer in layers), max(layer.units(1) for layer in layers)
    while low < high:
        middle = (low + high) // 2
        if arrays(layers, needed_for(layers, middle)) <= budget:
            high = middle
        else:
            low = middle + 1
    return low


def unit_steps(layers: Sequence[Layer], ratio: float) -> list[int]:
    """Time units from one copy each down to one read each: states that no budget depends on.

    First as many as the slowest layer has with 1, 2, 3 ... copies, then every step a factor.
    """
    top = max(layer.units(1) for layer in layers)
    floor = max(layer.units_per_mvm for layer in layers)
    steps = list(dict.fromkeys(max(floor, -(-top // copies)) for copies in range(1, FIRST_COPIES + 1)))
    while steps[-1] > floor:
        steps.append(max(floor, min(steps[-1] - 1, int(steps[-1] * ratio))))
    return steps
