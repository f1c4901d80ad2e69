"""One run of the simulator: images go through the stages of a mapped network, row by row."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import networkx as nx
import numpy as np

from cimc.mapping import Placement
from cimc.schedule import Stage
from passes.simulator.events import Clock, Server, join_services
from passes.simulator.row_flow import Flow, most_rows_held
from passes.simulator.simulated_chip import ArraysOfLayer, GangArrays, one_by_one
from passes.simulator.simulated_moves import PARTIAL_SUMS, Transfer, output_flow, partial_sums_flow, transfers
from passes.simulator.simulated_plan import Plan

COPIES_IN_ONE_ARRAY = "copies in one array"
STAGGERED_STARTS = "staggered starts"
PIECES = 8  # in which a gang takes its share of a row; finer makes no difference


@dataclass
class Job:
    """The MVMs of one row of a stage that are still to be done."""

    stage: "RunningStage"
    image: int
    row: int
    open: int


class Gang:
    """Arrays at work that are read together: rows wait in `queue` with the MVMs that they have for this gang."""

    def __init__(self, arrays: GangArrays) -> None:
        self.arrays = arrays
        self.queue: deque[tuple[Job, int]] = deque()
        self.called = False  # to take the next MVMs when it is free
        self.free_at = self.busy_ns = 0.0

    def take(self) -> tuple[int, list[tuple[Job, int]]]:
        """The next MVMs: how many one after the other, and of which rows."""
        job, waiting = self.queue.popleft()
        copies = self.arrays.positions
        rounds = -(-waiting // (copies * PIECES))
        taken = min(waiting, rounds * copies)
        if taken < waiting:
            self.queue.appendleft((job, waiting - taken))
        parts, idle = [(job, taken)], -taken % copies
        # Copies that the row leaves idle compute the next row meanwhile.
        while idle and self.queue and self.queue[0][0] is not job:
            job, waiting = self.queue.popleft()
            taken = min(waiting, idle)
            if taken < waiting:
                self.queue.appendleft((job, waiting - taken))
            parts.append((job, taken))
            idle -= taken
        return rounds, parts


class Layer:
    """The arrays of a layer at work. Position p of an image goes to copy p mod copies, wherever its gang is."""

    def __init__(self, name: str, positions: int, arrays: ArraysOfLayer) -> None:
        self.name, self.positions, self.arrays = name, positions, arrays
        self.gangs = [Gang(gang) for gang in arrays.gangs]
        self.gang_of_copy = [number for number, gang in enumerate(arrays.gangs) for _ in range(gang.positions)]
        self.at_work: tuple[str, int] | None = None  # the stage and image that hold the arrays, where they are shared

    def shares(self, first: int, last: int) -> dict[int, int]:
        """How many of the positions first .. last - 1 each gang gets, by its number."""
        copies = len(self.gang_of_copy)
        whole, rest = divmod(last - first, copies)
        shares: defaultdict[int, int] = defaultdict(int)
        if whole:
            for number, gang in enumerate(self.arrays.gangs):
                shares[number] = whole * gang.positions
        for position in range(first, first + rest):
            shares[self.gang_of_copy[position % copies]] += 1
        return shares


class RunningStage:
    """A stage at work: the next row to begin, and the rows that are complete, by image."""

    def __init__(self, shape: Stage, flow: Flow, images: int) -> None:
        self.shape, self.flow = shape, flow
        self.readers: list[RunningStage] = []
        self.begun = [0] * images  # rows
        self.first_open = 0  # the first image of which rows are still to begin
        self.complete = [bytearray(flow.rows) for _ in range(images)]
        self.done = [0] * images  # rows from the first on that are complete, without a gap
        self.delivered = [0] * images  # to other cores
        self.ended = [0.0] * flow.rows  # of the first image, ns
        self.moved = Transfer()
        self.partial_sums = Transfer()

    def positions(self, row: int) -> tuple[int, int]:
        """The MVMs of a row, (first, behind the last)."""
        total, rows = self.shape.positions, self.flow.rows
        return row * total // rows, (row + 1) * total // rows


class Run:
    """`images` images, one every `pace_ns`. ends: when each is complete, ns.

    lifted: what is left out, see `passes.simulator.simulate.simulate`.
    """

    def __init__(self, plan: Plan, images: int = 1, pace_ns: float = 0.0, lifted: frozenset[str] = frozenset()) -> None:
        self.chip, self.images, self.clock = plan.chip, images, Clock()
        self.ends = [0.0] * images
        self.array_waits: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._lifted = lifted
        self._placed = plan.placement is not None
        self._servers: dict[tuple[str, str, str], Server] = {}
        self._rivals = {} if "array" in lifted else plan.rivals
        self._waiting: list[tuple[RunningStage, float]] = []
        apart = COPIES_IN_ONE_ARRAY in lifted
        self._layers = {
            name: Layer(name, plan.positions[name], one_by_one(arrays) if apart else arrays)
            for name, arrays in plan.arrays.items()
        }
        shapes = plan.shapes
        self._stages = {shape.name: RunningStage(shape, plan.flows[shape.name], images) for shape in shapes}
        nodes = [shape.layer for shape in shapes if shape.kind == "crossbar"]
        self._held = {name for name in self._layers if self._rivals.get(name) or nodes.count(name) > 1}
        for stage in self._stages.values():
            for name in dict.fromkeys(source.node for source in stage.flow.sources):
                if name:
                    self._stages[name].readers.append(stage)
        if plan.placement is not None:
            self._route(plan.placement)
        self._input_rows = [0] * images
        self._rows_of_input = max((d.source_rows for s in shapes for d in s.inputs if not d.source), default=1)
        size = max((d.bytes for s in shapes for d in s.inputs if not d.source), default=0)
        for image in range(images):
            self.clock.at(image * pace_ns, partial(self._feed, image, size))

    def servers(self) -> Iterable[Server]:
        """All resources that were asked for."""
        return self._servers.values()

    def finish(self) -> list[float]:
        """Run to the end; the ends of the images."""
        for stage in self._stages.values():
            if not stage.flow.sources:
                self._begin_rows(stage)
        self.clock.run()
        stuck = [s.shape.name for s in self._stages.values() if s.done[-1] < s.flow.rows]
        assert not stuck, f"the simulation stopped before {stuck[0]} was complete"
        return self.ends

    def busiest_ns(self) -> float:
        """How long one image keeps the busiest resource at work: no interval can be shorter."""
        busy = {name: round(max(gang.busy_ns for gang in layer.gangs)) for name, layer in self._layers.items()}
        rivals = nx.Graph([(name, other) for name, others in self._rivals.items() for other in others])
        nx.set_node_attributes(rivals, busy, "busy")
        shared = nx.max_weight_clique(rivals, "busy")[1] if rivals else 0
        servers = [server.busy_ns for server in self.servers()]
        return float(max(shared, *busy.values(), *servers))

    def buffer_bytes(self) -> int:
        """What the first image has in buffers: the most rows that are complete and still read, over all edges."""
        total = 0.0
        for reader in self._stages.values():
            for source in {source.node: source for source in reader.flow.sources if source.node}.values():
                stage = self._stages[source.node]
                size = stage.shape.elements * self.chip.cores.activation_bytes / stage.flow.rows
                total += size * most_rows_held(np.array(stage.ended), np.array(reader.ended), source.oldest)
        return round(total)

    def _server(self, kind: str, where: str, stage: str) -> Server:
        """The resource; where contention is lifted, each stage has its own."""
        key = (kind, where, stage if kind in self._lifted else "")
        if key not in self._servers:
            self._servers[key] = Server(self.clock, kind, where)
        return self._servers[key]

    # What moves, and over what.

    def _feed(self, image: int, size: int) -> None:
        """An image comes from the shared memory row by row; without a rate it is there."""
        rate, rows = self.chip.cores.global_bytes_per_ns, self._rows_of_input
        if rate is None:
            self._input_came(image, rows)
            return
        service = size / rows / rate
        for _ in range(rows):
            row = partial(self._later, service, partial(self._input_came, image, 1))
            self._server("global memory", "chip", "").request(image, service, "input", row)

    def _input_came(self, image: int, rows: int) -> None:
        self._input_rows[image] += rows
        for stage in self._stages.values():
            if any(not source.node for source in stage.flow.sources):
                self._begin_rows(stage)

    def _route(self, placement: Placement) -> None:
        """What moving one row of each stage takes."""
        arrays = {name: layer.arrays for name, layer in self._layers.items()}
        outputs, sums = [], []
        for stage in self._stages.values():
            outputs.append(output_flow(stage.shape, [r.shape for r in stage.readers], arrays, self.chip))
            if stage.shape.kind == "crossbar":
                layer = self._layers[stage.shape.layer]
                sums.append(partial_sums_flow(stage.shape, layer.positions, layer.arrays, self.chip))
        flows = {"output": [f for f in outputs if f is not None], PARTIAL_SUMS: [f for f in sums if f is not None]}
        found = transfers(flows, placement, self.chip, self._server, self._lifted)
        for name, stage in self._stages.items():
            stage.moved = found["output"].get(name, stage.moved)
            stage.partial_sums = found[PARTIAL_SUMS].get(name, stage.partial_sums)

    # Rows begin.

    def _begin_rows(self, stage: RunningStage) -> None:
        """Begin the next rows of a stage for which all is there."""
        while (image := self._next_image(stage)) is not None:
            row = stage.begun[image]
            one_by_one = row == 0 or bool(stage.shape.scan)
            if stage.shape.kind == "crossbar" and one_by_one and not self._hold(stage, image):
                return
            stage.begun[image] += 1
            first, last = stage.positions(row)
            if first == last:
                self._digital_work(stage, image, row)
                continue
            layer, job = self._layers[stage.shape.layer], Job(stage, image, row, last - first)
            for number, count in layer.shares(first, last).items():
                gang = layer.gangs[number]
                gang.queue.append((job, count))
                if not gang.called:  # so that all rows of this moment have come
                    gang.called = True
                    self.clock.at(gang.free_at, partial(self._work, layer, gang))

    def _next_image(self, stage: RunningStage) -> int | None:
        """The image whose next row can begin: between the steps of a sequence those of later ones fit."""
        for image in range(stage.first_open, self.images):
            if stage.begun[image] == stage.flow.rows:
                stage.first_open += image == stage.first_open
            elif self._ready(stage, image):
                return image
            elif not stage.shape.scan:
                return None
        return None

    def _ready(self, stage: RunningStage, image: int) -> bool:
        for source in stage.flow.sources:
            needed = source.needed[stage.begun[image]]
            if not source.node:
                if self._input_rows[image] < min(needed, self._rows_of_input):
                    return False
                continue
            other = self._stages[source.node]
            same = other.shape.layer == stage.shape.layer
            if (other.done if same else other.delivered)[image] < needed:
                return False
        return True

    def _hold(self, stage: RunningStage, image: int) -> bool:
        """Take the arrays of a layer that shares their lines with others, for one image; the oldest goes first."""
        layer = self._layers[stage.shape.layer]
        if layer.name not in self._held or layer.at_work == (stage.shape.name, image):
            return True
        holder = self._rival_at_work(layer)
        if holder is None:
            layer.at_work = (stage.shape.name, image)
            return True
        if all(waiting is not stage for waiting, _ in self._waiting):
            self._waiting.append((stage, self.clock.now))
        return False

    def _rival_at_work(self, layer: Layer) -> str | None:
        names = (layer.name, *self._rivals.get(layer.name, ()))
        return next((name for name in names if self._layers[name].at_work is not None), None)

    def _release(self, stage: RunningStage) -> None:
        layer = self._layers[stage.shape.layer]
        if layer.name not in self._held:
            return
        layer.at_work = None
        order = {id(known): index for index, known in enumerate(self._stages.values())}
        for waiting, since in sorted(self._waiting, key=lambda entry: (entry[0].first_open, order[id(entry[0])])):
            if self._rival_at_work(self._layers[waiting.shape.layer]) is None:
                self._waiting.remove((waiting, since))
                self.array_waits[waiting.shape.layer, stage.shape.layer] += self.clock.now - since
                self._begin_rows(waiting)

    # Arrays.

    def _work(self, layer: Layer, gang: Gang) -> None:
        """A gang that is free takes the next MVMs."""
        rounds, parts = gang.take()
        if self.chip.cores.mvm_start_ns is not None and gang.arrays.starts:
            self._start(layer, gang, rounds, parts)
        else:
            self._busy(layer, gang, rounds * gang.arrays.round_ns)
            self._local(layer, gang, rounds, parts, self.clock.now + rounds * gang.arrays.round_ns)

    def _start(self, layer: Layer, gang: Gang, rounds: int, parts: list[tuple[Job, int]]) -> None:
        """MVMs whose starts the cores must make one after the other."""
        each, mvm = self.chip.cores.mvm_start_ns or 0.0, gang.arrays.round_ns
        job, waiting = parts[0][0], len(gang.arrays.starts)
        pace, end = 0.0, 0.0

        def begun(service: float) -> None:
            nonlocal waiting, pace, end
            waiting -= 1
            period = max(mvm, service)
            pace = max(pace, rounds * period)
            # The array that starts last begins its MVM after the other starts.
            late = 0.0 if STAGGERED_STARTS in self._lifted else service - each
            end = max(end, self.clock.now + max((rounds - 1) * period + late + mvm, rounds * period))
            if not waiting:
                self._busy(layer, gang, pace)
                self._local(layer, gang, rounds, parts, end)

        for core, starts in gang.arrays.starts.items():
            service = starts * each
            server = self._server("core starts", f"core {core}", job.stage.shape.name)
            server.request(job.image, rounds * service, layer.name, partial(begun, service))

    def _busy(self, layer: Layer, gang: Gang, duration: float) -> None:
        gang.busy_ns += duration
        gang.free_at = self.clock.now + duration
        gang.called = bool(gang.queue)
        if gang.queue:
            self.clock.at(gang.free_at, partial(self._work, layer, gang))

    def _local(self, layer: Layer, gang: Gang, rounds: int, parts: list[tuple[Job, int]], end: float) -> None:
        """Inputs and outputs go through the cores' memories meanwhile."""
        rate, job = self.chip.cores.local_bytes_per_ns, parts[0][0]
        moved = {} if rate is None else {core: size / rate for core, size in gang.arrays.local_bytes.items()}
        begun = join_services(self.clock, len(moved), end, partial(self._computed, parts))
        for core, each in moved.items():
            server = self._server("local memory", f"core {core}", job.stage.shape.name)
            server.request(job.image, rounds * each, layer.name, partial(begun, rounds * each))

    def _computed(self, parts: list[tuple[Job, int]]) -> None:
        for job, taken in parts:
            job.open -= taken
            if not job.open:
                work = partial(self._digital_work, job.stage, job.image, job.row)
                job.stage.partial_sums.start(self.clock, job.image, job.stage.shape.layer, work)

    # Digital work, and the end of a row.

    def _digital_work(self, stage: RunningStage, image: int, row: int) -> None:
        """The vector units of the layer's cores share the operations of one row."""
        done = partial(self._row_done, stage, image, row)
        rate, operations = self.chip.cores.vector_bytes_per_ns, stage.shape.operations
        if rate is None or not operations:
            self._later(0.0, done)
            return
        layer = self._layers.get(stage.shape.layer)
        shares = {0: 1.0} if layer is None else layer.arrays.cores
        # Several chips: each layer has a core for itself.
        place = "core" if self._placed else f"core of {stage.shape.layer}"
        size = operations * self.chip.cores.activation_bytes / stage.flow.rows
        begun = join_services(self.clock, len(shares), self.clock.now, done)
        for core, fraction in shares.items():
            service = size * fraction / rate
            server = self._server("vector unit", f"{place} {core}", stage.shape.name)
            server.request(image, service, stage.shape.layer or "input", partial(begun, service))

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self.clock.at(self.clock.now + delay, action)

    def _row_done(self, stage: RunningStage, image: int, row: int) -> None:
        stage.complete[image][row] = 1
        if image == 0:
            stage.ended[row] = self.clock.now
        if row != stage.done[image]:
            return
        before = row
        rows = stage.complete[image].find(0, row)
        stage.done[image] = rows if rows >= 0 else stage.flow.rows
        if stage.done[image] == stage.flow.rows:
            self.ends[image] = max(self.ends[image], self.clock.now)
        if stage.shape.kind == "crossbar" and (stage.shape.scan or stage.done[image] == stage.flow.rows):
            self._release(stage)
        for reader in stage.readers:
            if reader.shape.layer == stage.shape.layer:
                self._begin_rows(reader)
        for _ in range(before, stage.done[image]):
            stage.moved.start(self.clock, image, stage.shape.layer, partial(self._deliver, stage, image))

    def _deliver(self, stage: RunningStage, image: int) -> None:
        stage.delivered[image] += 1
        for reader in stage.readers:
            self._begin_rows(reader)
