"""The latency of one image as a function of copies: its longest path, and the least that any copies can have.

What the last row waited for is a path from row to row and stage to stage. With c copies a row of W MVMs takes at least
W / c of their time, and at least one, so the time of a path is at least a sum of work / copies and of what is fixed,
whatever the copies are: the latency is never below a path, nor below a mean of paths. The mean whose least sum within
the budget is the largest is approached by adding, again and again, the longest path of the copies of that least sum
(Frank and Wolfe); each step's sum is a bound.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes.mapper.plan import Task
from passes.mapper.row_pipeline import critical_path, timeline
from passes.mapper.schedule import LayerTime, stage_times

PATHS = 60

Numbers = NDArray[np.float64]  # one a layer, in their order


@dataclass(frozen=True)
class Path:
    """work_ns: of one copy of each layer. fixed_ns: what no copies shorten."""

    work_ns: Numbers
    fixed_ns: float

    def mean(self, other: "Path", share: float) -> "Path":
        """The mean with another path, which has that share."""
        work = (1 - share) * self.work_ns + share * other.work_ns
        return Path(work, (1 - share) * self.fixed_ns + share * other.fixed_ns)


def longest_path(task: Task, copies: Numbers) -> Path:
    """The longest path with these copies, fractions too, before placement."""
    layers, chip = task.layers, task.chip
    positions = {layer.name: layer.positions for layer in layers}
    rounds = {layer.name: layer.mvm_ns for layer in layers}
    number = {layer.name: index for index, layer in enumerate(layers)}
    pace = {name: LayerTime(rounds[name], copies[index], 0, chip.cores.count) for name, index in number.items()}
    times = stage_times(task.stages, pace, positions=positions, chip=chip)
    stages = {stage.name: stage for stage in task.stages}
    work, fixed = np.zeros(len(layers)), 0.0
    for step in critical_path(task.stages, times, timeline(task.stages, times, {})):
        stage, time, more = stages[step.stage], times[step.stage], step.last_row - step.first_row
        if stage.kind == "digital" or stage.layer not in number:
            fixed += time.first_ns + more * time.row_ns
            continue
        index, round_ns, row = number[stage.layer], rounds[stage.layer], stage.positions / stage.rows
        alone = round_ns * -(-row // copies[index])  # as `stage_times` has it
        fixed += time.first_ns - alone
        # Of two lower bounds the one that is larger with these copies.
        if row > copies[index]:
            work[index] += round_ns * row
        else:
            fixed += round_ns
        if time.row_ns <= round_ns * row / copies[index] * (1 + 1e-9):
            work[index] += more * round_ns * row
        else:
            fixed += more * time.row_ns
    return Path(work, fixed)


def latency_floor(task: Task, arrays_per_copy: Numbers, budget: int) -> float:
    """No copies within the budget have a shorter latency, ns."""
    most = np.array([layer.positions for layer in task.layers], np.float64)
    path = longest = longest_path(task, np.ones_like(most))
    found = 0.0
    before: Numbers | None = None
    for step in range(PATHS):
        copies, least = _cheapest(path, arrays_per_copy, most, budget)
        found = max(found, least)
        if task.late:
            break
        if before is None or not np.array_equal(copies, before):
            longest, before = longest_path(task, copies), copies
        path = path.mean(longest, 2 / (step + 3))
    return found


def _at_price(path: Path, arrays_per_copy: Numbers, most: Numbers, price: float) -> Numbers:
    """The copies, from 1 to the most, with the least of work / copies + price x arrays."""
    return np.clip(np.sqrt(path.work_ns / (price * arrays_per_copy)), 1, most)


def _cheapest(path: Path, arrays_per_copy: Numbers, most: Numbers, budget: int) -> tuple[Numbers, float]:
    """The copies within the budget, and what no copies within it are below on the path, ns (Lagrange)."""
    if arrays_per_copy @ most <= budget:
        return most, float(np.sum(path.work_ns / most)) + path.fixed_ns
    low, high = 1e-12, 1e12  # ns an array
    for _ in range(80):
        price = math.sqrt(low * high)
        if arrays_per_copy @ _at_price(path, arrays_per_copy, most, price) <= budget:
            high = price
        else:
            low = price
    copies = _at_price(path, arrays_per_copy, most, high)
    spared = high * float(arrays_per_copy @ copies - budget)
    return copies, float(np.sum(path.work_ns / copies)) + spared + path.fixed_ns
