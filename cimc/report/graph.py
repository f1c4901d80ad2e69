"""The network as a drawing: crossbar layers as boxes with their sizes, digital operators between them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import onnx_ir as ir
from scipy.optimize import isotonic_regression

from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, layer_of
from cimc.report.figure import Figure
from cimc.report.svg import (
    BLUE,
    GREY,
    LINE,
    MUTED,
    ON_COLOUR,
    PAPER,
    UNUSED,
    drawing,
    fitted,
    layer_colour,
    line,
    rectangle,
    text,
)
from passes.scan_body import body_of

BOX, HEIGHT, GAP, RANK, TRACK = 268, 38, 22, 62, 10  # pixels; TRACK: width of an edge that passes a rank
SWEEPS = 12
STRAIGHT = 6.0  # how much more than a box an edge that passes a rank holds on to its place

# A box by its number; a place where what a box gives passes a rank: (its number, rank).
Node = int | tuple[int, int]


@dataclass
class Box:
    """One box: a crossbar layer (or, with `layer` None, digital operators) and the digital operators that follow it."""

    layer: str | None
    operators: list[str] = field(default_factory=list)
    shape: str = ""
    is_input: bool = False

    @property
    def digital(self) -> bool:
        """Whether it is neither a layer nor an input of the network."""
        return self.layer is None and not self.is_input

    @property
    def after(self) -> str:
        """The digital operators as text, each kind once, in the order of their first."""
        return ", ".join(name if n == 1 else f"{name} x {n}" for name, n in Counter(self.operators).items())


def network_figure(model: ir.Model, layers: Sequence[str]) -> Figure:
    """The network, inputs at the top; `layers`: names of the crossbar layers in the order of their numbers."""
    graph = network_boxes(model)
    links = _links(graph)
    places, width, height = _places(links)
    numbers = {name: index for index, name in enumerate(layers)}
    parts = [_edge(places[source], places[target]) for source, target in links.edges]
    parts += [_passing(places[node]) for node in links if isinstance(node, tuple)]
    for node, box in graph.nodes(data="box"):
        x, y = places[node]
        parts += _box(x, y, box, numbers)
    rows = [
        (
            number,
            None if box.layer is None or box.layer not in numbers else numbers[box.layer] + 1,
            box.layer,
            box.after,
            box.shape,
            " ".join(map(str, graph.pred[number])),
        )
        for number, box in graph.nodes(data="box")
    ]
    head = ["box", "number", "layer", "digital operators", "output", "from boxes"]
    return Figure("network graph", drawing(width, height, parts, "network graph"), head, rows, framed=True)


def network_boxes(model: ir.Model) -> nx.DiGraph:
    """The boxes (node attribute `box`) and what flows between them.

    Digital operators that depend on the same layers and inputs are one box; it is the layer's, where nothing but one
    layer goes into it.
    """
    graph = nx.DiGraph()
    owner: dict[str, int] = {}
    initializers = set(model.graph.initializers)
    for value in model.graph.inputs:
        if value.name not in initializers:
            owner[value.name or ""] = len(graph)
            graph.add_node(len(graph), box=Box(None, [f"input {value.name}"], _shape(value), is_input=True))
    for node in model.graph:
        body = body_of(node)
        if body is None:
            _add(node, graph, owner)
            continue
        # The layers of a sequence stand where it runs; what one step hands to the next is not drawn.
        _rename(owner, node.inputs, body.inputs)
        for inner in body:
            _add(inner, graph, owner)
        _rename(owner, body.outputs, node.outputs)
    return _joined(graph)


def _joined(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph with its digital operators in groups, boxes in the order of their first operators.

    Layers and inputs that a group depends on only become more along an edge, and do at a layer: no edge leads back.
    """
    before: dict[int, int] = {}  # by box the layers and inputs that it depends on, a bit each
    group_of: dict[int, int] = {}
    first_of: dict[int, int] = {}
    for number, box in graph.nodes(data="box"):
        depends = 0
        for source in graph.pred[number]:
            depends |= before[source] | (0 if graph.nodes[source]["box"].digital else 1 << source)
        before[number] = depends
        group_of[number] = first_of.setdefault(depends, number) if box.digital else number
    joined = nx.DiGraph()
    for number, box in graph.nodes(data="box"):
        group = group_of[number]
        if group == number:
            joined.add_node(group, box=Box(box.layer, list(box.operators), box.shape, is_input=box.is_input))
        else:
            joined.nodes[group]["box"].operators += box.operators
            joined.nodes[group]["box"].shape = box.shape
        joined.add_edges_from((s, group) for s in sorted({group_of[s] for s in graph.pred[number]}) if s != group)
    for number in [number for number, box in joined.nodes(data="box") if box.digital]:
        sources = list(joined.pred[number])
        box = joined.nodes[sources[0]]["box"] if len(sources) == 1 else None
        if box is not None and box.layer is not None:
            box.operators += joined.nodes[number]["box"].operators
            box.shape = joined.nodes[number]["box"].shape
            joined.add_edges_from((sources[0], target) for target in list(joined.succ[number]))
            joined.remove_node(number)
    return nx.convert_node_labels_to_integers(joined)


def _rename(owner: dict[str, int], values: Sequence[ir.Value | None], names: Sequence[ir.Value]) -> None:
    for value, name in zip(values, names, strict=True):
        if value is not None and value.name in owner:
            owner[name.name or ""] = owner[value.name]


def _add(node: ir.Node, graph: nx.DiGraph, owner: dict[str, int]) -> None:
    """Add a node in a box of its own; not one that depends on no input."""
    sources = sorted({owner[value.name] for value in node.inputs if value is not None and value.name in owner})
    is_layer = node.domain == CROSSBAR_DOMAIN and node.op_type in CROSSBAR_OPERATORS
    if not sources and not is_layer:
        return
    number = len(graph)
    weight = node.inputs[1] if is_layer else None
    name = layer_of(weight.name or "") if weight is not None else None
    graph.add_node(number, box=Box(name, [] if is_layer else [node.op_type], _shape(node.outputs[0])))
    graph.add_edges_from((source, number) for source in sources)
    for value in node.outputs:
        owner[value.name or ""] = number


def _shape(value: ir.Value) -> str:
    """Sizes without the batch."""
    sizes = [str(size.value if isinstance(size, ir.SymbolicDim) else size) for size in (value.shape or ())]
    return " x ".join(sizes[1:]) or "scalar"


def _links(graph: nx.DiGraph) -> nx.DiGraph:
    """From rank to rank (node attribute `rank`): a box whose output is used further down passes the ranks between once.

    An input stands just above what uses it first.
    """
    ranks = {node: rank for rank, nodes in enumerate(nx.topological_generations(graph)) for node in nodes}
    for node in graph:
        if not graph.pred[node] and graph.succ[node]:
            ranks[node] = min(ranks[target] for target in graph.succ[node]) - 1
    links = nx.DiGraph()
    for node in graph:
        links.add_node(node, rank=ranks[node])
    for source in graph:
        last: Node = source
        targets = sorted(graph.succ[source], key=lambda target: ranks[target])
        for target in targets:
            while links.nodes[last]["rank"] < ranks[target] - 1:
                rank = links.nodes[last]["rank"] + 1
                links.add_node((source, rank), rank=rank)
                links.add_edge(last, (source, rank))
                last = (source, rank)
            links.add_edge(last, target)
    return links


def _places(links: nx.DiGraph) -> tuple[dict[Node, tuple[float, float]], float, float]:
    """Centre of every box and of every long edge in the ranks it passes: few crossings, near what they belong to."""
    rows: list[list[Node]] = [[] for _ in range(max(dict(links.nodes(data="rank")).values(), default=0) + 1)]
    for node, rank in links.nodes(data="rank"):
        rows[rank].append(node)
    x: dict[Node, float] = {}
    for row in rows:
        _spread(row, dict.fromkeys(row, 0.0), x)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            near = links.pred if sweep % 2 == 0 else links.succ
            wish = {node: _mean([x[other] for other in near[node]], x[node]) for node in row}
            row.sort(key=lambda node: wish[node])
            _spread(row, wish, x)
    left = min((x[node] - _width(node) / 2 for node in x), default=0.0)
    places = {node: (x[node] - left + 1, 1 + rank * RANK + HEIGHT / 2) for rank, row in enumerate(rows) for node in row}
    width = max((place[0] + _width(node) / 2 for node, place in places.items()), default=0.0) + 2
    return places, width, len(rows) * RANK - (RANK - HEIGHT) + 2


def _spread(row: Sequence[Node], wish: dict[Node, float], x: dict[Node, float]) -> None:
    """Places a row in its order, as near to the wishes (least squares) as the widths allow."""
    if not row:
        return
    widths = np.array([_width(node) + GAP for node in row])
    offsets = np.cumsum(widths) - widths / 2
    weights = [STRAIGHT if isinstance(node, tuple) else 1.0 for node in row]
    placed = isotonic_regression([wish[node] for node in row] - offsets, weights=weights).x + offsets
    x.update(zip(row, placed.tolist(), strict=True))


def _width(node: Node) -> float:
    return TRACK if isinstance(node, tuple) else BOX


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _edge(source: tuple[float, float], target: tuple[float, float]) -> str:
    """A curve from below the one to above the other."""
    (x, y), (to_x, to_y) = (source[0], source[1] + HEIGHT / 2), (target[0], target[1] - HEIGHT / 2)
    middle = (y + to_y) / 2
    path = f"M{x:.0f} {y:.0f}C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
    return f'<path d="{path}" stroke="{GREY}" fill="none"/>'


def _passing(place: tuple[float, float]) -> str:
    x, y = place
    return line(round(x), y - HEIGHT / 2, round(x), y + HEIGHT / 2, GREY)


def _box(x: float, y: float, box: Box, numbers: dict[str, int]) -> list[str]:
    left, top = x - BOX / 2, y - HEIGHT / 2
    if box.layer is None:
        title = f"{box.after} -> {box.shape}"
        return [
            rectangle(left, top, BOX, HEIGHT, UNUSED, LINE, title, 5),
            text(x, top + 16, fitted(box.after, BOX - 12), 11, "middle"),
            text(x, top + 30, fitted(box.shape, BOX - 12, 10), 10, "middle", MUTED),
        ]
    number = numbers.get(box.layer)
    colour = layer_colour(number) if number is not None else UNUSED
    second = f"{box.shape}: {box.after}" if box.after else box.shape
    return [
        rectangle(left, top, BOX, HEIGHT, PAPER, BLUE, f"{box.layer} -> {second}", 5),
        rectangle(left + 1, top + 1, 30, HEIGHT - 2, colour, "", "", 4),
        text(left + 16, y + 4, "" if number is None else str(number + 1), 11, "middle", ON_COLOUR),
        text(left + 38, top + 16, fitted(box.layer, BOX - 44), 11),
        text(left + 38, top + 30, fitted(second, BOX - 44, 10), 10, "start", MUTED),
    ]
