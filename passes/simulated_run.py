"""One run of the simulator: images go through the stages of a mapped network, row by row."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import onnx_ir as ir

from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.events import Clock, Server
from passes.layers import layers_of
from passes.row_flow import Flow, row_flow
from passes.simulated_chip import ArraysOfLayer, Gang, Link, Mesh, arrays_of_layer, rivals_of
from passes.stages import StageShape, stages_of

ROUNDS = 8  # pieces of a row's MVMs that a gang takes at a time where cores limit their starts
BUSY_LINKS = 16  # of the mesh are followed; the others carry less than these


class Job:
    """The MVMs of one row that are still to be given to a gang (left) or to be done (open), rounds of them to each."""

    def __init__(self, stage: "Stage", image: int, row: int, positions: int, side_by_side: int) -> None:
        self.stage, self.image, self.row = stage, image, row
        self.left = self.open = positions
        self.rounds = -(-positions // side_by_side)


class Layer:
    """The arrays of a layer at work: rows wait in `jobs`, gangs that are free take their MVMs."""

    def __init__(self, name: str, arrays: ArraysOfLayer) -> None:
        self.name, self.arrays = name, arrays
        self.jobs: deque[Job] = deque()
        self.free: list[Gang] = list(arrays.gangs)
        self.side_by_side = sum(gang.positions for gang in arrays.gangs)
        self.giving = False
        self.at_work: tuple[str, int] | None = None  # the stage and image that hold the arrays, where they are shared


class Stage:
    """A stage at work: the next row to begin, and the rows that are complete, by image."""

    def __init__(self, shape: StageShape, flow: Flow, images: int) -> None:
        self.shape, self.flow = shape, flow
        self.readers: list[Stage] = []
        self.image = self.row = 0
        self.beginning = False
        self.complete = [bytearray(flow.rows) for _ in range(images)]
        self.done = [0] * images  # rows from the first on that are complete, without a gap
        self.delivered = [0] * images  # to other cores
        self.moved: list[tuple[Server, float]] = []  # of one row
        self.delay_ns = 0.0  # of one row over links that are not followed

    def positions(self, row: int) -> int:
        """MVMs of a row."""
        total, rows = self.shape.positions, self.flow.rows
        return (row + 1) * total // rows - row * total // rows


class Run:
    """`images` images, all there at the start. ends: when each is complete, ns."""

    def __init__(self, model: ir.Model, mapping: Mapping, chip: Chip, images: int, lifted: frozenset[str]) -> None:
        self.chip, self.images, self.clock = chip, images, Clock()
        self.ends = [0.0] * images
        self.array_waits: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._lifted = lifted
        self._servers: dict[tuple[str, str, str], Server] = {}
        self._rivals = {} if "array" in lifted else rivals_of(mapping.layers, chip)
        self._waiting: list[tuple[Stage, float]] = []
        self._layers = {
            layer.name: Layer(layer.name, arrays_of_layer(layer, mapping.placement, chip)) for layer in mapping.layers
        }
        shapes = stages_of(model, layers_of(model, chip, mapping.input_range), chip)
        flows = row_flow(model)
        self._stages = {shape.name: Stage(shape, flows[shape.name], images) for shape in shapes}
        nodes = [shape.layer for shape in shapes if shape.kind == "crossbar"]
        self._held = {name for name in self._layers if self._rivals.get(name) or nodes.count(name) > 1}
        for stage in self._stages.values():
            for name in dict.fromkeys(source.node for source in stage.flow.sources):
                if name:
                    self._stages[name].readers.append(stage)
        self._route(mapping, chip)
        self._input_rows = self._feed(shapes)

    def servers(self) -> Iterable[Server]:
        """All resources that were asked for."""
        return self._servers.values()

    def finish(self) -> list[float]:
        """Run to the end; the ends of the images."""
        for stage in self._stages.values():
            self._begin_rows(stage)
        self.clock.run()
        stuck = [s.shape.name for s in self._stages.values() if s.done[-1] < s.flow.rows]
        assert not stuck, f"the simulation stopped before {stuck[0]} was complete"
        return self.ends

    def _server(self, kind: str, where: str, stage: str) -> Server:
        """The resource; where contention is lifted, each stage has its own."""
        key = (kind, where, stage if kind in self._lifted else "")
        if key not in self._servers:
            self._servers[key] = Server(self.clock, kind, where)
        return self._servers[key]

    # What moves, and over what.

    def _feed(self, shapes: Sequence[StageShape]) -> list[int]:
        """Network inputs come from the shared memory row by row, or are there: complete rows by image."""
        rate = self.chip.cores.global_bytes_per_ns
        rows = max((d.source_rows for s in shapes for d in s.inputs if not d.source), default=1)
        self._rows_of_input = rows
        if rate is None:
            return [rows] * self.images
        total = max((d.bytes for s in shapes for d in s.inputs if not d.source), default=0)
        server = self._server("global memory", "chip", "")
        for image in range(self.images):
            for _ in range(rows):
                service = total / rows / rate
                server.request(image, service, "input", partial(self._later, service, partial(self._input_row, image)))
        return [0] * self.images

    def _input_row(self, image: int) -> None:
        self._input_rows[image] += 1
        for stage in self._stages.values():
            if any(not source.node for source in stage.flow.sources):
                self._begin_rows(stage)

    def _route(self, mapping: Mapping, chip: Chip) -> None:
        """What the transfer of one row of each stage takes on the bus or on the links of the mesh."""
        if mapping.placement is None:
            return
        cores, mesh = chip.cores, Mesh(mapping.placement.mesh_columns)
        loads: dict[str, dict[Link, float]] = {}
        for stage in self._stages.values():
            away = {r.shape.layer: r.shape.kind for r in stage.readers if r.shape.layer not in ("", stage.shape.layer)}
            home = self._layers.get(stage.shape.layer)
            if home is None or not away:
                continue
            size = stage.shape.elements * cores.activation_bytes
            if cores.bus_bytes_per_ns is not None:
                service = size / stage.flow.rows / cores.bus_bytes_per_ns
                stage.moved = [(self._server("bus", "chip", stage.shape.name), service)]
            elif cores.link_bytes_per_ns is not None:
                flows: defaultdict[Link, float] = defaultdict(float)
                for name, kind in away.items():
                    arrays = self._layers[name].arrays
                    for source, made in home.arrays.outputs.items():
                        for target, read in (arrays.inputs if kind == "crossbar" else arrays.outputs).items():
                            if source != target:
                                flows[source, target] += size * made * read
                loads[stage.shape.name] = mesh.loads(flows)
        if loads and cores.link_bytes_per_ns is not None:
            self._route_links(loads, cores.link_bytes_per_ns)

    def _route_links(self, loads: dict[str, dict[Link, float]], rate: float) -> None:
        total: defaultdict[Link, float] = defaultdict(float)
        for load in loads.values():
            for link, size in load.items():
                total[link] += size
        followed = set(sorted(total, key=lambda link: -total[link])[:BUSY_LINKS])
        for name, load in loads.items():
            stage = self._stages[name]
            rows = stage.flow.rows
            stage.moved = [
                (self._server("link", f"core {link[0]} to {link[1]}", name), size / rows / rate)
                for link, size in load.items()
                if link in followed
            ]
            others = [size for link, size in load.items() if link not in followed]
            stage.delay_ns = max(others, default=0.0) / rows / rate

    # Rows begin.

    def _begin_rows(self, stage: Stage) -> None:
        """Begin the next row of a stage if all it needs is there; one at a time is on its way to arrays or units."""
        while not stage.beginning and stage.image < self.images and self._ready(stage):
            image, row = stage.image, stage.row
            if stage.shape.kind == "crossbar" and row == 0 and not self._hold(stage, image):
                return
            stage.row += 1
            if stage.row == stage.flow.rows:
                stage.image, stage.row = image + 1, 0
            positions = stage.positions(row)
            if not positions:
                self._digital_work(stage, image, row)
                continue
            stage.beginning = True
            layer = self._layers[stage.shape.layer]
            layer.jobs.append(Job(stage, image, row, positions, layer.side_by_side))
            self._give_work(layer)

    def _ready(self, stage: Stage) -> bool:
        for source in stage.flow.sources:
            needed = source.needed[stage.row]
            if not source.node:
                if self._input_rows[stage.image] < min(needed, self._rows_of_input):
                    return False
                continue
            other = self._stages[source.node]
            same = other.shape.layer == stage.shape.layer
            if (other.done if same else other.delivered)[stage.image] < needed:
                return False
        return True

    def _hold(self, stage: Stage, image: int) -> bool:
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

    def _release(self, stage: Stage) -> None:
        layer = self._layers[stage.shape.layer]
        if layer.name not in self._held:
            return
        layer.at_work = None
        order = {id(known): index for index, known in enumerate(self._stages.values())}
        for waiting, since in sorted(self._waiting, key=lambda entry: (entry[0].image, order[id(entry[0])])):
            if self._rival_at_work(self._layers[waiting.shape.layer]) is None:
                self._waiting.remove((waiting, since))
                self.array_waits[waiting.shape.layer, stage.shape.layer] += self.clock.now - since
                self._begin_rows(waiting)

    # Arrays.

    def _give_work(self, layer: Layer) -> None:
        """Free gangs take MVMs of the waiting rows, in order."""
        if layer.giving:  # the call that is at it goes on with what has come
            return
        layer.giving = True
        while layer.free and layer.jobs:
            gang, first = layer.free.pop(), layer.jobs[0]
            limited = self.chip.cores.mvm_start_ns is not None and bool(gang.starts)
            rounds = -(-first.rounds // ROUNDS) if limited else first.rounds
            parts = [(first, self._take(layer, rounds * gang.positions))]
            # The copies of a gang that the row leaves idle take MVMs of the next one.
            idle = -parts[0][1] % gang.positions
            while idle and layer.jobs:
                job = layer.jobs[0]
                parts.append((job, self._take(layer, idle)))
                idle -= parts[-1][1]
            rounds = -(-parts[0][1] // gang.positions)
            if limited:
                self._start(layer, gang, rounds, parts)
            else:
                self.clock.at(self.clock.now + rounds * gang.round_ns, partial(self._free, layer, gang))
                self._local(layer, gang, rounds, parts, self.clock.now + rounds * gang.round_ns)
        layer.giving = False

    def _take(self, layer: Layer, most: int) -> int:
        """MVMs of the first row that waits; when it has no more, its stage can begin the next one."""
        job = layer.jobs[0]
        taken = min(most, job.left)
        job.left -= taken
        if not job.left:
            layer.jobs.popleft()
            job.stage.beginning = False
            self._begin_rows(job.stage)
        return taken

    def _start(self, layer: Layer, gang: Gang, rounds: int, parts: list[tuple[Job, int]]) -> None:
        """MVMs whose starts the cores must make one after the other."""
        each = self.chip.cores.mvm_start_ns or 0.0
        job, waiting = parts[0][0], len(gang.starts)
        pace, end = 0.0, 0.0

        def begun(service: float) -> None:
            nonlocal waiting, pace, end
            waiting -= 1
            period = max(gang.round_ns, service)
            pace = max(pace, rounds * period)
            # The array that starts last begins its MVM after the other starts.
            end = max(end, self.clock.now + (rounds - 1) * period + service - each + gang.round_ns)
            if not waiting:
                self.clock.at(self.clock.now + pace, partial(self._free, layer, gang))
                self._local(layer, gang, rounds, parts, end)

        for core, starts in gang.starts.items():
            service = starts * each
            server = self._server("core starts", f"core {core}", job.stage.shape.name)
            server.request(job.image, rounds * service, layer.name, partial(begun, service))

    def _free(self, layer: Layer, gang: Gang) -> None:
        layer.free.append(gang)
        self._give_work(layer)

    def _local(self, layer: Layer, gang: Gang, rounds: int, parts: list[tuple[Job, int]], end: float) -> None:
        """Inputs and outputs go through the cores' memories meanwhile."""
        rate = self.chip.cores.local_bytes_per_ns
        if rate is None:
            self.clock.at(end, partial(self._computed, layer, parts))
            return
        job, waiting = parts[0][0], len(gang.local_bytes)

        def begun(service: float) -> None:
            nonlocal waiting, end
            waiting -= 1
            end = max(end, self.clock.now + service)
            if not waiting:
                self.clock.at(end, partial(self._computed, layer, parts))

        for core, size in gang.local_bytes.items():
            service = rounds * size / rate
            server = self._server("local memory", f"core {core}", job.stage.shape.name)
            server.request(job.image, service, layer.name, partial(begun, service))

    def _computed(self, layer: Layer, parts: list[tuple[Job, int]]) -> None:
        for job, taken in parts:
            job.open -= taken
            if not job.open:
                self._add_partial_sums(layer, job)

    def _add_partial_sums(self, layer: Layer, job: Job) -> None:
        work = partial(self._digital_work, job.stage, job.image, job.row)
        rate = self.chip.cores.bus_bytes_per_ns
        size = sum(layer.arrays.partial_bytes.values()) / job.stage.flow.rows
        if rate is None or not size:
            work()
            return
        service = size / rate
        server = self._server("bus", "chip", job.stage.shape.name)
        server.request(job.image, service, layer.name, partial(self._later, service, work))

    # Digital work, and the end of a row.

    def _digital_work(self, stage: Stage, image: int, row: int) -> None:
        """The vector units of the layer's cores share the operations of one row."""
        done = partial(self._row_done, stage, image, row)
        rate, operations = self.chip.cores.vector_bytes_per_ns, stage.shape.operations
        if rate is None or not operations:
            self._later(0.0, done)
            return
        layer = self._layers.get(stage.shape.layer)
        shares = {0: 1.0} if layer is None else layer.arrays.cores
        size = operations * self.chip.cores.activation_bytes / stage.flow.rows
        waiting, end = len(shares), 0.0

        def begun(service: float) -> None:
            nonlocal waiting, end
            waiting -= 1
            end = max(end, self.clock.now + service)
            if not waiting:
                self.clock.at(end, done)

        for core, fraction in shares.items():
            service = size * fraction / rate
            server = self._server("vector unit", f"core {core}", stage.shape.name)
            server.request(image, service, stage.shape.layer or "input", partial(begun, service))

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self.clock.at(self.clock.now + delay, action)

    def _row_done(self, stage: Stage, image: int, row: int) -> None:
        stage.complete[image][row] = 1
        if row != stage.done[image]:
            return
        before = row
        rows = stage.complete[image].find(0, row)
        stage.done[image] = rows if rows >= 0 else stage.flow.rows
        if stage.done[image] == stage.flow.rows:
            self.ends[image] = max(self.ends[image], self.clock.now)
            if stage.shape.kind == "crossbar":
                self._release(stage)
        for reader in stage.readers:
            if reader.shape.layer == stage.shape.layer:
                self._begin_rows(reader)
        for _ in range(before, stage.done[image]):
            self._send(stage, image)

    def _send(self, stage: Stage, image: int) -> None:
        """Move one complete row to the other cores that read it."""
        waiting, end = len(stage.moved), self.clock.now + stage.delay_ns

        def begun(service: float) -> None:
            nonlocal waiting, end
            waiting -= 1
            end = max(end, self.clock.now + service)
            if not waiting:
                self.clock.at(end, partial(self._deliver, stage, image))

        if not waiting:
            self._later(stage.delay_ns, partial(self._deliver, stage, image))
        for server, service in stage.moved:
            server.request(image, service, stage.shape.layer or "input", partial(begun, service))

    def _deliver(self, stage: Stage, image: int) -> None:
        stage.delivered[image] += 1
        for reader in stage.readers:
            self._begin_rows(reader)
