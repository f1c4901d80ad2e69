"""The lines of one array of the mapping on an array of a die: rows and columns by least expected output error.

Units: the rows and the columns of lines that a weight takes, such as the two bit lines of a pair. A unit of the mapping
may lie on any unit of the die's array, its lines as they are or in reverse: G+ and G- of a pair change places, which
the digital side undoes as it takes the columns from where they lie. Of a single weight it cannot, since a bit line
gives one sum. Where rows are given, the columns are an assignment problem, and the other way round, each solved
exactly; in turn they go on until neither gets better. Both together are no assignment problem: `bound` is what no order
has less than.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from passes.dies.reach import Doubles, Programmable, bounds

Indices = npt.NDArray[np.intp]
MOST_TURNS = 50
BETTER = 1e-6  # of the error: what a turn must gain to go on


@dataclass(frozen=True, eq=False)
class Wanted:
    """An array of the mapping, in units. weight: the sum that each weight's devices are to have, [rows, columns].
    importance: what its squared error costs; 0 where nothing is held.
    """

    weight: Doubles
    importance: Doubles


@dataclass(frozen=True, eq=False)
class Found:
    """An array of a die, in units: bounds [2, 2, rows, columns] of a weight in each, with the lines of its rows and of
    its columns as they are (0) or in reverse (1). faulty [rows, columns]: with a stuck cell.
    """

    low: Doubles
    high: Doubles
    faulty: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Order:
    """Where the units of the mapping lie in the die's array: row [rows], column [columns], and whether in reverse."""

    row: Indices
    column: Indices
    row_reversed: Indices
    column_reversed: Indices


def found_of(stuck: npt.NDArray[np.float32], counts: Doubles, cell: Programmable) -> Found:
    """The bounds of an array of a die, from what is stuck [slices, rows of a unit, columns of a unit, rows, columns].

    Of bit slices in arrays of their own it is these together, whose lines lie alike; else there is one.
    """
    both = []
    for rows in (stuck, stuck[:, ::-1]):
        for lines in (rows, rows[:, :, ::-1]):
            by_device = lines.swapaxes(1, 2).reshape(-1, *stuck.shape[3:])  # numbered column by column
            both.append(bounds(by_device, counts, cell))
    low, high = (np.stack(side).reshape(2, 2, *stuck.shape[3:]) for side in zip(*both, strict=True))
    return Found(low, high, np.any(~np.isnan(stuck), axis=(0, 1, 2)))


def as_mapped(rows: int, columns: int) -> Order:
    """All units where the mapping has them."""
    return Order(np.arange(rows), np.arange(columns), np.zeros(rows, np.intp), np.zeros(columns, np.intp))


def error(wanted: Wanted, found: Found, order: Order) -> float:
    """The expected output error in that order."""
    low, high = (_ordered(side, order) for side in (found.low, found.high))
    return float(np.sum(wanted.importance * _missed(wanted.weight, low, high)))


def best_order(wanted: Wanted, found: Found) -> Order:
    """The order of rows and columns, by turns."""
    order = as_mapped(*wanted.weight.shape)
    best = error(wanted, found, order)
    for _ in range(MOST_TURNS if best else 0):
        tried = order_rows(wanted, found, order_columns(wanted, found, order))
        reached = error(wanted, found, tried)
        if reached >= best * (1 - BETTER):
            break
        order, best = tried, reached
    return order


def order_columns(wanted: Wanted, found: Found, order: Order) -> Order:
    """The best order of the columns with the rows as they are."""
    rows = order.row
    low, high = found.low[order.row_reversed, :, rows], found.high[order.row_reversed, :, rows]
    column, turned = _assigned(
        wanted.weight, wanted.importance, low.swapaxes(0, 1), high.swapaxes(0, 1), found.faulty[rows]
    )
    return Order(order.row, column, order.row_reversed, turned)


def order_rows(wanted: Wanted, found: Found, order: Order) -> Order:
    """The best order of the rows with the columns as they are."""
    low, high = (side[:, order.column_reversed, :, order.column].swapaxes(0, 1) for side in (found.low, found.high))
    row, turned = _assigned(wanted.weight.T, wanted.importance.T, low, high, found.faulty[:, order.column].T)
    return Order(row, order.column, turned, order.column_reversed)


def _assigned(
    weight: Doubles, importance: Doubles, low: Doubles, high: Doubles, faulty: npt.NDArray[np.bool_]
) -> tuple[Indices, Indices]:
    """The place of each column, and whether it lies in reverse there, with the rows given.

    Args:
        weight, importance: [rows, columns].
        low, high: by whether it is in reverse, row, and place: [2, rows, places].
        faulty: [rows, places].
    """
    places = faulty.shape[1]
    costs = np.zeros((2, weight.shape[1], places))
    for place in range(places):
        rows = faulty[:, place]
        if rows.any():
            missed = _missed(weight[None, rows], low[:, rows, place, None], high[:, rows, place, None])
            costs[:, :, place] = np.sum(importance[rows] * missed, axis=1)
    chosen = linear_sum_assignment(costs.min(axis=0))[1]
    return chosen, np.argmin(costs, axis=0)[np.arange(len(chosen)), chosen]


def bound(wanted: Wanted, found: Found) -> float:
    """What no order of rows and columns has less than.

    Each row may choose, for every faulty cell that it has to cover, the weight of its own that loses least by it, and
    the rows are assigned; the same of the columns; the larger of both. Units that hold nothing cover the worst cells.
    """
    return max(
        _bound(wanted.weight, wanted.importance, found),
        _bound(
            wanted.weight.T,
            wanted.importance.T,
            Found(found.low.transpose(1, 0, 3, 2), found.high.transpose(1, 0, 3, 2), found.faulty.T),
        ),
    )


def _bound(weight: Doubles, importance: Doubles, found: Found) -> float:
    """Of the rows."""
    if not found.faulty.any():
        return 0.0
    where = np.nonzero(found.faulty)
    ends = np.concatenate(
        [side.reshape(4, *found.faulty.shape)[:, where[0], where[1]] for side in (found.low, found.high)]
    ).T
    kinds, kind = np.unique(ends, axis=0, return_inverse=True)
    counts = np.zeros((len(kinds), len(weight)))
    np.add.at(counts, (kind.reshape(-1), where[0]), 1)
    low, high = kinds[:, :4], kinds[:, 4:]
    free = importance == 0
    losses = np.full((len(weight), len(kinds)), np.inf)
    for place in range(4):  # of lines as they are and in reverse
        for number in range(len(kinds)):
            missed = importance * _missed(weight, low[number, place], high[number, place])
            least = np.where(free, np.inf, missed).min(axis=1)
            losses[:, number] = np.minimum(losses[:, number], least)
    losses = np.where(np.isfinite(losses), losses, 0.0)  # a row without weights
    spared = free.sum(axis=1) * losses.max(axis=1)
    costs = np.maximum(losses @ counts - spared[:, None], 0)
    return float(costs[linear_sum_assignment(costs)].sum())


def _missed(weight: Doubles, low: Doubles, high: Doubles) -> Doubles:
    """The squared distance of weights from what can be held."""
    missed: Doubles = np.square(weight - np.clip(weight, low, high))
    return missed


def _ordered(side: Doubles, order: Order) -> Doubles:
    """Bounds of each weight of the mapping where it lies."""
    rows, columns = order.row[:, None], order.column[None]
    bounds_there: Doubles = side[order.row_reversed[:, None], order.column_reversed[None], rows, columns]
    return bounds_there
