"""An event-driven simulator of a mapped network, apart from the analytic schedule, which it checks.

Every output row of every stage is followed: it waits for the rows it needs (`passes.row_flow`), its MVMs for arrays and
for the starts that a core can make, its digital work for the vector units, its transfer for the bus, the links or the
shared memory. Several images are on the way at once; older ones go first. Shared with the schedule is only what there
is to do (`passes.stages`: operations of digital stages); when it is done is found here.
"""

from collections import defaultdict
from dataclasses import dataclass

import onnx_ir as ir

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from passes.simulated_run import Run

IMAGES = 4  # on the way for the interval
AGREE = 0.05


@dataclass(frozen=True)
class Contention:
    """Layers that wait for a resource while it serves others.

    kind: core starts, vector unit, local memory, bus, link, global memory, or array. where: which one. layers: those
    that wait, and those that are served meanwhile. wait_ns: all their waiting for one image, added up.
    """

    kind: str
    where: str
    layers: tuple[str, ...]
    wait_ns: float


@dataclass(frozen=True)
class Simulation:
    """What the simulated chip did.

    latency_ns: one image alone. interval_ns: between the ends of images, `images` of them on the way at once.
    busy: ns that one image keeps a resource at work, by (kind, where), the busiest first. contentions: of one image
    alone, the longest waits first.
    """

    latency_ns: float
    interval_ns: float
    images: int
    busy: tuple[tuple[str, str, float], ...]
    contentions: tuple[Contention, ...]


@dataclass(frozen=True)
class Comparison:
    """The simulation beside an analytic figure, in ns.

    lifted: resources whose contention had to be lifted, one after the other, until the two agreed; `simulated_lifted`
    is the figure then. agrees: within 5 % after that.
    """

    what: str
    analytic: float
    simulated: float
    lifted: tuple[str, ...]
    simulated_lifted: float

    @property
    def deviation(self) -> float:
        """Of the simulated figure from the analytic one, as a fraction of the latter."""
        return self.simulated / self.analytic - 1 if self.analytic else 0.0

    @property
    def agrees(self) -> bool:
        """Within 5 % once the lifted contentions are out of the way."""
        return abs(self.simulated_lifted - self.analytic) <= AGREE * self.analytic


def simulate(
    model: ir.Model, mapping: Mapping, chip: Chip, images: int = IMAGES, lifted: frozenset[str] = frozenset()
) -> Simulation:
    """Run one image alone, then several at once, through a mapped network.

    Args:
        model: the lowered network.
        mapping: its mapping on `chip`.
        chip: the chip.
        images: on the way at once for the interval; at least 2.
        lifted: kinds of resources without contention: every stage has one of its own.

    Raises:
        CimcError: the mapping has several segments, or `images` is less than 2.
    """
    if len(mapping.segments) > 1:
        raise CimcError(
            f"the simulator follows networks that fit the chip, this one has {len(mapping.segments)} segments; "
            "choose a larger chip"
        )
    if images < 2:
        raise CimcError(f"an interval needs at least 2 images, not {images}")
    alone = Run(model, mapping, chip, 1, lifted)
    alone.finish()
    several = Run(model, mapping, chip, images, lifted)
    ends = several.finish()
    middle = (images - 1) // 2
    busy = sorted(((s.kind, s.where, s.busy_ns) for s in alone.servers() if s.busy_ns), key=lambda entry: -entry[2])
    return Simulation(
        latency_ns=alone.ends[0],
        interval_ns=(ends[-1] - ends[middle]) / (images - 1 - middle),
        images=images,
        busy=tuple(busy),
        contentions=_contentions(alone),
    )


def _contentions(run: Run) -> tuple[Contention, ...]:
    waits: defaultdict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for server in run.servers():
        for pair, wait in server.waits.items():
            waits[server.kind, server.where][pair] = wait
    for (layer, other), wait in run.array_waits.items():
        waits["array", layer][layer, other] = wait
    found = [
        Contention(
            kind,
            where,
            tuple(dict.fromkeys(name for pair in sorted(pairs, key=lambda p: -pairs[p]) for name in pair)),
            sum(pairs.values()),
        )
        for (kind, where), pairs in waits.items()
    ]
    return tuple(sorted(found, key=lambda contention: -contention.wait_ns))


def compare(model: ir.Model, mapping: Mapping, chip: Chip, images: int = IMAGES) -> tuple[Simulation, list[Comparison]]:
    """Simulate a mapping and hold latency and interval against its schedule.

    Where one deviates by more than 5 %, the contentions that the simulation met are lifted in turn, the longest waits
    first, until it agrees: what was lifted explains the difference.

    Raises:
        CimcError: the mapping has no schedule, or as `simulate` does.
    """
    schedule = mapping.schedule
    if schedule is None:
        raise CimcError("the mapping has no schedule to compare with; compile it for a chip that states its times")
    simulation = simulate(model, mapping, chip, images)
    totals: defaultdict[str, float] = defaultdict(float)
    for contention in simulation.contentions:
        totals[contention.kind] += contention.wait_ns
    kinds = sorted(totals, key=lambda kind: -totals[kind])
    comparisons = []
    for what, analytic in (("latency", schedule.latency_ns), ("interval", schedule.interval_ns)):
        lifted: tuple[str, ...] = ()
        now = simulation
        for kind in kinds:
            figure = now.latency_ns if what == "latency" else now.interval_ns
            if abs(figure - analytic) <= AGREE * analytic:
                break
            lifted += (kind,)
            now = simulate(model, mapping, chip, images, frozenset(lifted))
        first, last = (s.latency_ns if what == "latency" else s.interval_ns for s in (simulation, now))
        comparisons.append(Comparison(what, analytic, first, lifted, last))
    return simulation, comparisons
