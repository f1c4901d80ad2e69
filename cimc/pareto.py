"""The points that no other one beats."""

import numpy as np
import numpy.typing as npt


def pareto_front(figures: npt.ArrayLike, largest: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points are on the front: no other is as good in every figure and better in one.

    Args:
        figures: [points, figures]; a point with a NaN is not on it.
        largest: [figures], whether a figure is to be large.

    Returns:
        [points]
    """
    costs = np.where(np.asarray(largest, bool), -1.0, 1.0) * np.asarray(figures, np.float64)
    front = ~np.isnan(costs).any(axis=1)
    for index in np.flatnonzero(front):
        others = costs[front]
        beaten = np.all(others <= costs[index], axis=1) & np.any(others < costs[index], axis=1)
        front[index] = not beaten.any()
    return front
