"""The schedule of a mapped network: stages, what they wait for, how long they take, and what limits them.

Written by `passes.mapper.schedule`, checked by the event-driven simulator, drawn by the report. All times in ns.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

Route = Literal["core", "mesh", "bus", "memory"]


class Record(BaseModel):
    """Data that is written once and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Dependency(NamedTuple):
    """What a stage needs of another one (or of the network input, source "").

    Before output row r (from 0) can start, the source's rows 0 .. `rows_needed(r, source_rows)` - 1 must be complete,
    with rows_needed = min(source_rows, max(1, first_rows + ceil(r step))). A stage that needs all of its input has
    first_rows = source_rows, step = 0. window: source rows that one output row reads, the last of them the last that it
    needs. bytes: what one image moves along this edge. buffer_bytes: what the edge must hold at most in the
    row-pipelined schedule: rows that are complete and still to be read. route: within the core; over the mesh's links;
    once over the bus; or written to and read from the shared memory, as the network's inputs are read. carried: the
    state of a sequence: row r needs the first r rows of a source that may come later in the network. network_input:
    which one, where the source is "".
    """

    source: str
    source_rows: int
    first_rows: int
    step: float
    window: int
    bytes: int
    buffer_bytes: int = 0
    route: Route = "core"
    carried: bool = False
    network_input: str = ""

    def rows_needed(self, row: int) -> int:
        """Complete source rows needed for output row `row`."""
        needed = self.first_rows + int(-(-row * self.step // 1))
        return min(self.source_rows, max(1, needed))


class Stage(Record):
    """One node of the lowered network, at work once for every image.

    name: of its first output. layer: the crossbar layer that it is, or whose cores do its digital work ("" where no
    crossbar layer comes before it). rows: its output comes row by row (the height of an image, the tokens of a
    sequence; 1: all at once). positions: MVMs of one image, over all copies (0 for a digital stage), phases not
    counted, one of `round_ns`. operations: of the vector unit, on single elements; elements: of the output;
    network_outputs: those of them that are outputs of the network (None in files that do not say). scan: the Scan in
    whose body it is: its rows are the steps of a sequence ("" elsewhere).

    row_ns: from one row's end to the next one's when nothing has to be waited for. first_ns: from the moment all that a
    row needs is there to its end, alone; row r ends at max(ready(r) + first_ns, end(r - 1) + row_ns). start_ns,
    stop_ns: of one image alone, row-pipelined: the first row begins, the last ends. All times, with round_ns of one
    MVM, are 0 until `passes.mapper.schedule` has found them.
    """

    name: str
    operator: str
    kind: Literal["crossbar", "digital"]
    layer: str
    rows: int
    positions: int
    round_ns: float = 0.0
    row_ns: float = 0.0
    first_ns: float = 0.0
    elements: int
    operations: int
    network_outputs: int | None = None
    start_ns: float = 0.0
    stop_ns: float = 0.0
    scan: str = ""
    inputs: tuple[Dependency, ...]

    @property
    def busy_ns(self) -> float:
        """Time at work for one image."""
        return self.rows * self.row_ns


class Step(NamedTuple):
    """A piece of the critical path: the stage that everything waited for, from row to row, and when."""

    stage: str
    layer: str
    first_row: int
    last_row: int
    start_ns: float
    stop_ns: float


class Limit(NamedTuple):
    """A resource and the time that one image keeps it busy: no interval between images can be shorter.

    kind: array (of a layer), stage (its rows, inputs moved and outputs finished one after the other), core starts (MVMs
    started one after the other), vector unit, local memory, link, bus, global memory. where: the layer (of an array
    that several share, all of them: "a + b"; with how many more layers have arrays as busy), stage, core or link.
    """

    kind: str
    where: str
    busy_ns: float


class Schedule(Record):
    """When everything happens.

    latency_ns: one image alone, row-pipelined: a stage starts a row as soon as its input rows are there.
    sequential_ns: one image, stage after stage. interval_ns: between images in the steady state: the largest limit.
    limits: the busiest resource of each kind, the largest first. buffer_bytes: of all edges together, row-pipelined.
    """

    latency_ns: float
    sequential_ns: float
    interval_ns: float
    limits: tuple[Limit, ...]
    critical_path: tuple[Step, ...]
    buffer_bytes: int
    stages: tuple[Stage, ...]
