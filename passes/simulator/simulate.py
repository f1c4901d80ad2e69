"""An event-driven simulator of a mapped network, apart from the analytic schedule, which it checks.

Every output row of every stage is followed: it waits for the rows it needs (`passes.simulator.row_flow`), its MVMs for
arrays and for the starts that a core can make, its digital work for the vector units, its transfer for the bus, the
links or the shared memory. Several images can be on the way at once; older ones go first. Shared with the schedule is
only what there is to do (`passes.mapper.stages`: operations of digital stages); when it is done is found here.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import onnx_ir as ir

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from passes.simulator.simulated_moves import PARALLEL_LINKS, PARTIAL_SUMS
from passes.simulator.simulated_plan import Plan, plan_of
from passes.simulator.simulated_run import COPIES_IN_ONE_ARRAY, STAGGERED_STARTS, Run

IMAGES = 16  # in turn, for the interval
AGREE = 0.05
WHOLE_MVMS = "whole MVMs"


class Contention(NamedTuple):
    """Layers that wait for a resource while it serves others.

    kind: core starts, vector unit, local memory, bus, link, global memory, or array. where: which one. layers: those
    that wait, and those that are served meanwhile. wait_ns: all their waiting, added up.
    """

    kind: str
    where: str
    layers: tuple[str, ...]
    wait_ns: float


@dataclass(frozen=True)
class Simulation:
    """What the simulated chip did.

    latency_ns: one image alone. interval_ns: between the ends of images that come at the pace of the busiest resource,
    on average. buffer_bytes: what one image alone has in buffers, the most on each edge, added up; buffers are as large
    as it takes. busy: ns that one image keeps a resource at work, by (kind, where), the busiest first. contentions: of
    one image alone, the longest waits first; contentions_in_turn: of the images that came one after the other.
    """

    latency_ns: float
    interval_ns: float
    buffer_bytes: int
    busy: tuple[tuple[str, str, float], ...]
    contentions: tuple[Contention, ...]
    contentions_in_turn: tuple[Contention, ...]


@dataclass(frozen=True)
class Comparison:
    """The simulation beside an analytic figure, in ns.

    causes: what had to be taken out of the simulation, one after the other, until the two agreed:
        a kind of contention: every stage then has such a resource of its own;
        partial sums, parallel links: transfers that the schedule does not count or counts one after the other;
        staggered starts: the last array that a core starts is behind the first one;
        copies in one array: they are read together, and idle when a row has no work for all of them;
        whole MVMs: the schedule gives the copies fractions of a row, up to one MVM for each layer of the critical path.
    without_causes: the simulated figure then. agrees: within 5 %; or, where the schedule counts a part of a cause,
    somewhere between the figures with and without the causes.
    """

    what: str
    analytic: float
    simulated: float
    causes: tuple[str, ...] = ()
    without_causes: float = 0.0
    agrees: bool = False

    @property
    def deviation(self) -> float:
        """Of the simulated figure from the analytic one, as a fraction of the latter."""
        return self.simulated / self.analytic - 1 if self.analytic else 0.0


def simulate(
    model: ir.Model, mapping: Mapping, chip: Chip, *, images: int = IMAGES, without: frozenset[str] = frozenset()
) -> Simulation:
    """Run one image alone, then several one after the other, through a mapped network.

    Args:
        model: the lowered network.
        mapping: its mapping on `chip`.
        chip: the chip.
        images: for the interval, at least 4.
        without: kinds of contention (every stage then has such a resource of its own), "partial sums" (they take no
            time), "parallel links" (the bytes of a row take one link after the other), "staggered starts" (all arrays
            of an MVM end together), or "copies in one array" (each is read by itself).

    Raises:
        CimcError: the mapping has several segments, or `images` is less than 4.
    """
    if images < 4:
        raise CimcError(f"an interval needs at least 4 images, not {images}")
    plan = _plan(model, mapping, chip)
    alone = _alone(plan, without)
    several, interval = _in_turn(plan, images, without)
    busy = sorted(((s.kind, s.where, s.busy_ns) for s in alone.servers() if s.busy_ns), key=lambda entry: -entry[2])
    return Simulation(
        latency_ns=alone.ends[0],
        interval_ns=interval,
        buffer_bytes=alone.buffer_bytes(),
        busy=tuple(busy),
        contentions=_contentions(alone),
        contentions_in_turn=_contentions(several),
    )


def _plan(model: ir.Model, mapping: Mapping, chip: Chip) -> Plan:
    if len(mapping.segments) > 1:
        raise CimcError(
            f"the simulator follows networks that fit the chip, this one has {len(mapping.segments)} segments; "
            "choose a larger chip"
        )
    return plan_of(model, mapping, chip)


def _alone(plan: Plan, without: frozenset[str]) -> Run:
    run = Run(plan, lifted=without)
    run.finish()
    return run


def _in_turn(plan: Plan, images: int, without: frozenset[str]) -> tuple[Run, float]:
    """Images at the pace of the busiest resource, and the time between the ends of two."""
    pace = _alone(plan, without).busiest_ns()
    run = Run(plan, images, pace, without)
    ends = run.finish()
    # The first ones fill the pipeline; the last ones have it for themselves and can be closer than the pace.
    first, last = images // 2, 3 * images // 4
    return run, max(pace, (ends[last] - ends[first]) / (last - first))


def _contentions(run: Run) -> tuple[Contention, ...]:
    waits: defaultdict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for server in run.servers():
        for pair, wait in server.waits.items():
            waits[server.kind, server.where][pair] = wait
    for pair, wait in run.array_waits.items():
        waits["array", pair[0]][pair] = wait
    found = [
        Contention(kind, where, tuple(dict.fromkeys(name for pair in pairs for name in pair)), sum(pairs.values()))
        for (kind, where), pairs in waits.items()
    ]
    return tuple(sorted(found, key=lambda contention: -contention.wait_ns))


def compare(
    model: ir.Model, mapping: Mapping, chip: Chip, *, images: int = IMAGES
) -> tuple[Simulation, list[Comparison]]:
    """Simulate a mapping and hold latency and interval against its schedule.

    Where one deviates by more than 5 %, what can be the cause is taken out of the simulation in turn, contentions with
    the longest waits first, and stays out if that brings the two together.

    Raises:
        CimcError: the mapping has no schedule, or as `simulate` does.
    """
    plan, schedule = _plan(model, mapping, chip), mapping.schedule
    if schedule is None:
        raise CimcError("the mapping has no schedule to compare with; compile it for a chip that states its times")
    first = simulate(model, mapping, chip, images=images)
    on_path = {step.stage for step in schedule.critical_path}
    rounding = sum(stage.round_ns for stage in schedule.stages if stage.name in on_path)

    def latency(without: frozenset[str]) -> float:
        return _alone(plan, without).ends[0]

    def interval(without: frozenset[str]) -> float:
        return _in_turn(plan, images, without)[1]

    return first, [
        _explain(
            Comparison("latency", schedule.latency_ns, first.latency_ns),
            latency,
            contentions=first.contentions,
            rounding_ns=rounding,
        ),
        _explain(
            Comparison("interval", schedule.interval_ns, first.interval_ns),
            interval,
            contentions=first.contentions_in_turn,
            rounding_ns=0.0,
        ),
    ]


def _explain(
    comparison: Comparison,
    figure: Callable[[frozenset[str]], float],
    *,
    contentions: Sequence[Contention],
    rounding_ns: float,
) -> Comparison:
    """Take out what can be the cause of a difference, the longest waits first, if that brings the two together."""
    analytic, simulated = comparison.analytic, comparison.simulated
    waits: defaultdict[str, float] = defaultdict(float)
    for contention in contentions:
        waits[contention.kind] += contention.wait_ns
    causes: tuple[str, ...] = ()
    without, left = simulated, simulated - analytic
    others = (PARTIAL_SUMS, STAGGERED_STARTS, PARALLEL_LINKS, COPIES_IN_ONE_ARRAY)
    for cause in (*sorted(waits, key=lambda kind: -waits[kind]), *others):
        if abs(left) <= AGREE * analytic or left * (simulated - analytic) < 0:
            break
        found = figure(frozenset((*causes, cause)))
        if abs(found - analytic) < abs(left) or (found - analytic) * left < 0:
            causes, without, left = (*causes, cause), found, found - analytic
    agrees = abs(left) <= AGREE * analytic or left * (simulated - analytic) < 0
    if not agrees and abs(left) <= rounding_ns:
        causes, agrees = (*causes, WHOLE_MVMS), True
    return replace(comparison, causes=causes, without_causes=without, agrees=agrees)
