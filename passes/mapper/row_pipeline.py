"""The row pipeline: when every row of every stage is complete, exactly, and what the last one waited for.

A row starts when the rows it needs are complete and its stage has done the row before:
end(r) = max(ready(r) + first, end(r - 1) + row), which is a running maximum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.schedule import Dependency, Stage, Step

Times = npt.NDArray[np.float64]


class StageTime(NamedTuple):
    """Times of a stage in ns: round_ns of one MVM, row_ns and first_ns of a row (see `cimc.schedule.Stage`)."""

    round_ns: float
    row_ns: float
    first_ns: float


@dataclass(frozen=True)
class Timeline:
    """ready, ends: by stage, for every row, ns. held: the stage whose arrays a stage waited for, if any."""

    ready: dict[str, Times]
    ends: dict[str, Times]
    held: dict[str, str]
    latency_ns: float


def timeline(
    stages: Sequence[Stage], times: Mapping[str, StageTime], exclusive: Mapping[str, frozenset[str]]
) -> Timeline:
    """Run one image through the stages, row by row.

    Args:
        stages: in network order.
        times: by stage.
        exclusive: for a layer, the layers that use the same lines of an array, itself included where it is used by
            several nodes: their stages follow one another in network order.
    """
    ready: dict[str, Times] = {}
    ends: dict[str, Times] = {}
    held: dict[str, str] = {}
    last: dict[str, str] = {}
    for stage in stages:
        time = times[stage.name]
        start = np.zeros(stage.rows)
        for source in stage.inputs:
            if source.source:
                np.maximum(start, ends[source.source][rows_needed(source, stage.rows) - 1], out=start)
        if stage.kind == "crossbar":
            rivals = [last[layer] for layer in exclusive.get(stage.layer, ()) if layer in last]
            free = max(rivals, key=lambda name: ends[name][-1], default=None)
            if free is not None and ends[free][-1] > start[0]:
                held[stage.name] = free
                np.maximum(start, ends[free][-1], out=start)
            last[stage.layer] = stage.name
        spaced = np.arange(stage.rows) * time.row_ns
        ready[stage.name] = start
        ends[stage.name] = np.maximum.accumulate(start + time.first_ns - spaced) + spaced
    return Timeline(ready, ends, held, max((float(end[-1]) for end in ends.values()), default=0.0))


def rows_needed(source: Dependency, rows: int) -> npt.NDArray[np.int64]:
    """Complete source rows that each of `rows` output rows needs (`Dependency.rows_needed` for all at once)."""
    needed = source.first_rows + np.ceil(np.arange(rows) * source.step).astype(np.int64)
    return np.clip(needed, 1, source.source_rows)


def critical_path(stages: Sequence[Stage], times: Mapping[str, StageTime], line: Timeline) -> tuple[Step, ...]:
    """What the last row waited for, back to the network's input: rows of one stage without a gap, stage by stage."""
    by_name = {stage.name: stage for stage in stages}
    steps: list[Step] = []
    name = max(line.ends, key=lambda stage: line.ends[stage][-1], default="")
    row = len(line.ends[name]) - 1 if name else 0
    while name:
        stage, time, ready = by_name[name], times[name], line.ready[name]
        # The rows since the last one that had to wait for its input.
        waited = ready[: row + 1] - np.arange(row + 1) * time.row_ns
        first = int(np.argmax(waited))
        steps.append(Step(name, stage.layer, first, row, float(ready[first]), float(line.ends[name][row])))
        name, row = _waited_for(stage, first, line)
    return tuple(reversed(steps))


def _waited_for(stage: Stage, row: int, line: Timeline) -> tuple[str, int]:
    """The stage and the row whose end let `row` of `stage` start; "" where it could start at once."""
    start = line.ready[stage.name][row]
    if start <= 0:
        return "", 0
    for source in stage.inputs:
        if source.source:
            needed = source.rows_needed(row) - 1
            if line.ends[source.source][needed] >= start:
                return source.source, needed
    holder = line.held[stage.name]
    return holder, len(line.ends[holder]) - 1


def buffer_bytes(source: Dependency, rows: int, produced: Times, consumed: Times) -> int:
    """What an edge holds at most: source rows that are complete and that a later output row still reads, bytes.

    Args:
        source: the edge.
        rows: of the stage that reads.
        produced: end of each source row, ns.
        consumed: end of each row of the stage that reads, ns.
    """
    # The last output row that reads source row k: the last one whose window starts at k or before.
    starts = rows_needed(source, rows) - source.window
    last_reader = np.searchsorted(starts, np.arange(source.source_rows), side="right") - 1
    freed = consumed[np.clip(last_reader, 0, rows - 1)]
    events = np.concatenate([produced, freed])
    change = np.concatenate([np.ones(len(produced)), -np.ones(len(freed))])
    # At one moment rows are freed first.
    order = np.lexsort((change, events))
    held = int(np.max(np.cumsum(change[order]), initial=0))
    return -(-source.bytes * max(held, 0) // source.source_rows)
