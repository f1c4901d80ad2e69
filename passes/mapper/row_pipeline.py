"""The row pipeline: when every row of every stage is complete, exactly, and what the last one waited for.

A row starts when the rows it needs are complete and its stage has done the row before:
end(r) = max(ready(r) + first, end(r - 1) + row), which is a running maximum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
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
    line = Timeline({}, {}, {}, 0.0)
    last: dict[str, str] = {}
    for scan, group in groupby(stages, key=lambda stage: stage.scan):
        if scan:
            _run_steps(tuple(group), times, exclusive, line, last)
            continue
        for stage in group:
            start = np.zeros(stage.rows)
            for source in stage.inputs:
                if source.source:
                    np.maximum(start, line.ends[source.source][rows_needed(source, stage.rows) - 1], out=start)
            np.maximum(start, _free(stage, start[0], exclusive, line, last), out=start)
            time = times[stage.name]
            spaced = np.arange(stage.rows) * time.row_ns
            line.ready[stage.name] = start
            line.ends[stage.name] = np.maximum.accumulate(start + time.first_ns - spaced) + spaced
    return replace(line, latency_ns=max((float(end[-1]) for end in line.ends.values()), default=0.0))


def _free(
    stage: Stage, start: float, exclusive: Mapping[str, frozenset[str]], line: Timeline, last: dict[str, str]
) -> float:
    """When the arrays of a crossbar stage are free, if it can start at `start`; it is then their last user."""
    if stage.kind != "crossbar":
        return 0.0
    # Those of the same Scan are not done yet.
    rivals = [last[layer] for layer in exclusive.get(stage.layer, ()) if last.get(layer) in line.ends]
    last[stage.layer] = stage.name
    holder = max(rivals, key=lambda name: line.ends[name][-1], default=None)
    if holder is None or line.ends[holder][-1] <= start:
        return 0.0
    line.held[stage.name] = holder
    return float(line.ends[holder][-1])


def _run_steps(
    stages: Sequence[Stage],
    times: Mapping[str, StageTime],
    exclusive: Mapping[str, frozenset[str]],
    line: Timeline,
    last: dict[str, str],
) -> None:
    """Run the stages of a Scan, one step after the other, until every step takes as long as the one before.

    Within a step the arrays are taken in network order.
    """
    steps, place = stages[0].rows, {stage.name: number for number, stage in enumerate(stages)}
    first = [times[stage.name].first_ns for stage in stages]
    pace = [times[stage.name].row_ns for stage in stages]
    outer, inner, carried = [], [], []
    for stage in stages:
        known = [line.ends[source.source][-1] for source in stage.inputs if source.source in line.ends]
        start = max(known, default=0.0)
        outer.append(max(start, _free(stage, start, exclusive, line, last)))
        inner.append([place[s.source] for s in stage.inputs if s.source in place and not s.carried])
        carried.append([place[s.source] for s in stage.inputs if s.carried])
    users = [place[stage.name] for stage in stages if stage.kind == "crossbar"]
    rivals = [
        [user for user in users if stages[user].layer in exclusive.get(stage.layer, ())]
        if stage.kind == "crossbar"
        else []
        for stage in stages
    ]
    ready, ends = np.zeros((steps, len(stages))), np.zeros((steps, len(stages)))
    before = [0.0] * len(stages)
    for step in range(steps):
        now = list(before)  # of the stages to come: their ends in the step before
        for number, waits in enumerate(inner):
            sources = [now[source] for source in (*waits, *rivals[number])]
            start = max([outer[number], *sources, *(before[source] for source in carried[number])])
            ready[step, number] = start
            now[number] = max(start + first[number], before[number] + pace[number] if step else 0.0)
        ends[step], before = now, now
        if step > 1 and _even(ends[step - 2 : step + 1], outer):
            rest = np.arange(1, steps - step)[:, None] * (ends[step] - ends[step - 1])
            ends[step + 1 :], ready[step + 1 :] = ends[step] + rest, ready[step] + rest
            break
    for number, stage in enumerate(stages):
        line.ready[stage.name], line.ends[stage.name] = ready[:, number], ends[:, number]


def _even(ends: Times, outer: Sequence[float]) -> bool:
    """Whether the last steps ended at even distances in all stages of a Scan, which wait for each other only."""
    later = np.diff(ends, axis=0)
    return bool(np.ptp(later) <= 1e-9 * later.max() and ends[0].min() >= max(outer))


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
        if stage.scan:
            # One piece for all steps, and before it what the first one waited for.
            user = next((one for one in stages if one.scan == stage.scan and one.kind == "crossbar"), stage)
            stop, source, source_row = float(line.ends[name][row]), name, 0
            while source and by_name[source].scan == stage.scan:
                source, source_row = _waited_for(by_name[source], 0, line)
            start = float(line.ends[source][source_row]) if source else 0.0
            steps.append(Step(user.name, user.layer, 0, row, start, stop))
            name, row = source, source_row
            continue
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
        if source.source and not (source.carried and not row):
            needed = source.rows_needed(row) - 1
            if line.ends[source.source][needed] >= start:
                return source.source, needed
    holder = line.held.get(stage.name, "")
    return holder, len(line.ends[holder]) - 1 if holder else 0


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
