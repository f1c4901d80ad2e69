"""What the simulator moves between cores: rows of a stage's output to the layers that read it, and partial sums."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from cimc.chip import Chip
from cimc.mapping import Placement
from cimc.schedule import Route, Stage
from passes.simulator.events import Clock, Server, join_services
from passes.simulator.simulated_chip import ArraysOfLayer, Link, Mesh

BUSY_LINKS = 16  # of the mesh are followed one by one; the others carry less than these
PARTIAL_SUMS = "partial sums"
PARALLEL_LINKS = "parallel links"


@dataclass
class Transfer:
    """What moving one row takes: services of the bus or of links, and the time on links that are not followed."""

    services: list[tuple[Server, float]] = field(default_factory=list)
    delay_ns: float = 0.0

    def start(self, clock: Clock, image: int, user: str, done: Callable[[], None]) -> None:
        """Move one row of an image; `done` runs when all of it is there."""
        begun = join_services(clock, len(self.services), clock.now + self.delay_ns, done)
        for server, service in self.services:
            server.request(image, service, user, partial(begun, service))


@dataclass(frozen=True)
class Flow:
    """Bytes of one image that a stage moves, from core to core.

    route: over the mesh; over the bus, once for all that read it; or by the shared memory, where it is written once and
    read by each of `readers` layers.
    """

    stage: str
    rows: int
    total: float
    by_cores: Mapping[Link, float]
    route: Route
    readers: int


def output_flow(shape: Stage, readers: Iterable[Stage], layers: Mapping[str, ArraysOfLayer], chip: Chip) -> Flow | None:
    """A stage's output on its way to other layers: MVMs take the rows of their cores, digital work the outputs."""
    home = layers.get(shape.layer)
    away = {reader.layer: reader.kind for reader in readers if reader.layer not in ("", shape.layer)}
    if home is None or not away:
        return None
    size = shape.elements * chip.cores.activation_bytes
    routes = {source.route for reader in readers for source in reader.inputs if source.source == shape.name}
    (route,) = routes - {"core"}
    by_cores: defaultdict[Link, float] = defaultdict(float)
    for name, kind in away.items():
        read = layers[name].inputs if kind == "crossbar" else layers[name].outputs
        for source, made in home.outputs.items():
            for target, share in read.items():
                if source != target:
                    by_cores[source, target] += size * made * share
    return Flow(shape.name, shape.rows, size, by_cores, route, len(away))


def partial_sums_flow(shape: Stage, positions: int, arrays: ArraysOfLayer, chip: Chip) -> Flow | None:
    """The partial sums of a crossbar stage between cores; `positions` are those of its layer."""
    if shape.kind != "crossbar" or not arrays.partial_bytes:
        return None
    by_cores = {link: size * shape.positions / positions for link, size in arrays.partial_bytes.items()}
    route: Route = "mesh" if chip.cores.bus_bytes_per_ns is None else "bus"
    return Flow(shape.name, shape.rows, sum(by_cores.values()), by_cores, route, 1)


def transfers(
    flows: Mapping[str, list[Flow]],
    placement: Placement,
    chip: Chip,
    server: Callable[[str, str, str], Server],
    lifted: frozenset[str],
) -> dict[str, dict[str, Transfer]]:
    """The transfer of one row of each flow, by kind ("output", "partial sums") and stage.

    Args:
        flows: by kind.
        placement: where the cores are.
        chip: the chip; what its file states no rate for takes no time.
        server: gives the resource of (kind, where, stage).
        lifted: "partial sums" take no time; without "parallel links" all bytes of a row take one link after the other.
    """
    cores, mesh = chip.cores, Mesh(placement.mesh_columns)
    found: dict[str, dict[str, Transfer]] = {kind: {} for kind in flows}
    moving = [(kind, flow) for kind, of_kind in flows.items() for flow in of_kind if kind not in lifted]
    one = {"bus": ("bus", cores.bus_bytes_per_ns), "memory": ("global memory", cores.global_bytes_per_ns)}
    for kind, flow in moving:
        name, rate = one.get(flow.route, ("", None))
        if rate is not None:
            times = 1 + flow.readers if flow.route == "memory" else 1
            service = times * flow.total / flow.rows / rate
            found[kind][flow.stage] = Transfer([(server(name, "chip", flow.stage), service)])
    moving = [(kind, flow) for kind, flow in moving if flow.route == "mesh"]
    if cores.link_bytes_per_ns is None:
        return found
    loads = {(kind, flow.stage): mesh.loads(flow.by_cores) for kind, flow in moving}
    total: defaultdict[Link, float] = defaultdict(float)
    for load in loads.values():
        for link, size in load.items():
            total[link] += size
    followed = set(sorted(total, key=lambda link: -total[link])[:BUSY_LINKS])
    for kind, flow in moving:
        transfer = found[kind][flow.stage] = Transfer()
        for link, size in loads[kind, flow.stage].items():
            service = size / flow.rows / cores.link_bytes_per_ns
            if link in followed:
                where = f"core {link[0]} to {link[1]}"
                transfer.services.append((server("link", where, flow.stage), service))
            else:
                transfer.delay_ns = max(transfer.delay_ns, service)
        if PARALLEL_LINKS in lifted:
            transfer.delay_ns = max(transfer.delay_ns, flow.total / flow.rows / cores.link_bytes_per_ns)
    return found
