"""The network as a drawing: crossbar layers as boxes with their sizes, digital operators between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx as nx
import onnx_ir as ir

from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, layer_of
from cimc.report.svg import (
    BLUE,
    GREY,
    INK,
    LINE,
    MUTED,
    PAPER,
    UNUSED,
    drawing,
    layer_colour,
    rectangle,
    shortened,
    text,
)
from passes.scan_body import body_of

BOX, HEIGHT, GAP, RANK, TRACK = 268, 38, 22, 62, 16  # pixels; TRACK: width of an edge that passes a rank
SWEEPS = 6


@dataclass
class Box:
    """One box: a crossbar layer (or, with `layer` None, digital operators) and the digital operators that follow it."""

    layer: str | None
    operators: list[str] = field(default_factory=list)
    shape: str = ""


def network_drawing(model: ir.Model, layers: Sequence[str]) -> str:
    """The network as SVG, inputs at the top; `layers`: names of the crossbar layers in the order of their numbers."""
    graph = network_boxes(model)
    places, width, height = _places(graph)
    numbers = {name: index for index, name in enumerate(layers)}
    parts = [_edge(places, source, target, chain) for source, target, chain in _chains(graph)]
    for node, box in graph.nodes(data="box"):
        x, y = places[node]
        parts += _box(x, y, box, numbers)
    return drawing(width, height, parts, "network graph")


def network_boxes(model: ir.Model) -> nx.DiGraph:
    """The boxes (node attribute `box`) and what flows between them; a chain of digital operators joins one box."""
    graph = nx.DiGraph()
    owner: dict[str, int] = {}
    initializers = set(model.graph.initializers)
    for value in model.graph.inputs:
        if value.name not in initializers:
            owner[value.name or ""] = len(graph)
            graph.add_node(len(graph), box=Box(None, [f"input {value.name}"], _shape(value)))
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
    return graph


def _rename(owner: dict[str, int], values: Sequence[ir.Value | None], names: Sequence[ir.Value]) -> None:
    for value, name in zip(values, names, strict=True):
        if value is not None and value.name in owner:
            owner[name.name or ""] = owner[value.name]


def _add(node: ir.Node, graph: nx.DiGraph, owner: dict[str, int]) -> None:
    """Add a node: in a box of its own, or in the box of what it follows."""
    sources = sorted({owner[value.name] for value in node.inputs if value is not None and value.name in owner})
    is_layer = node.domain == CROSSBAR_DOMAIN and node.op_type in CROSSBAR_OPERATORS
    single = len(sources) == 1 and all(
        len(value.consumers()) == 1 for value in node.inputs if value is not None and value.name in owner
    )
    if not sources and not is_layer:
        return
    box = graph.nodes[sources[0]]["box"] if sources else None
    if not is_layer and single and box is not None and not (box.layer is None and box.operators[0][:5] == "input"):
        number = sources[0]
        box.operators.append(node.op_type)
    else:
        number = len(graph)
        weight = node.inputs[1] if is_layer else None
        name = layer_of(weight.name or "") if weight is not None else None
        graph.add_node(number, box=Box(name, [] if is_layer else [node.op_type]))
        graph.add_edges_from((source, number) for source in sources)
    graph.nodes[number]["box"].shape = _shape(node.outputs[0])
    for value in node.outputs:
        owner[value.name or ""] = number


def _shape(value: ir.Value) -> str:
    """Sizes without the batch."""
    sizes = [str(size.value if isinstance(size, ir.SymbolicDim) else size) for size in (value.shape or ())]
    return " x ".join(sizes[1:]) or "scalar"


def _chains(graph: nx.DiGraph) -> list[tuple[object, object, list[tuple[str, object, object, int]]]]:
    ranks = _ranks(graph)
    return [
        (source, target, [("pass", source, target, rank) for rank in range(ranks[source] + 1, ranks[target])])
        for source, target in graph.edges
    ]


def _ranks(graph: nx.DiGraph) -> dict[object, int]:
    return {node: rank for rank, nodes in enumerate(nx.topological_generations(graph)) for node in nodes}


def _places(graph: nx.DiGraph) -> tuple[dict[object, tuple[float, float]], float, float]:
    """Centre of every box and of every long edge in the ranks it passes: layers in ranks, few crossings, straight."""
    ranks = _ranks(graph)
    rows: list[list[object]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    links = nx.DiGraph()
    for node, rank in ranks.items():
        rows[rank].append(node)
        links.add_node(node)
    for source, target, chain in _chains(graph):
        nx.add_path(links, [source, *chain, target])
        for entry in chain:
            rows[entry[3]].append(entry)
    x: dict[object, float] = {}
    for row in rows:
        _spread(row, dict.fromkeys(row, 0.0), x)
    for sweep in range(SWEEPS):
        ordered = rows if sweep % 2 == 0 else rows[::-1]
        for row in ordered:
            near = links.pred if sweep % 2 == 0 else links.succ
            wish = {node: _mean([x[other] for other in near[node]], x[node]) for node in row}
            row.sort(key=lambda node: wish[node])
            _spread(row, wish, x)
    left = min((x[node] - _width(node) / 2 for node in x), default=0.0)
    places = {node: (x[node] - left + 1, 1 + rank * RANK + HEIGHT / 2) for rank, row in enumerate(rows) for node in row}
    width = max((place[0] + _width(node) / 2 for node, place in places.items()), default=0.0) + 2
    return places, width, len(rows) * RANK - (RANK - HEIGHT) + 2


def _spread(row: Sequence[object], wish: dict[object, float], x: dict[object, float]) -> None:
    """Places a row in its order, as near to the wishes as the widths allow."""
    edge = float("-inf")
    for node in row:
        x[node] = max(wish[node], edge + _width(node) / 2)
        edge = x[node] + _width(node) / 2 + GAP
    shift = _mean([wish[node] - x[node] for node in row], 0.0)
    for node in row:
        x[node] += shift


def _width(node: object) -> float:
    return TRACK if isinstance(node, tuple) else BOX


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _edge(places: dict[object, tuple[float, float]], source: object, target: object, chain: Sequence[object]) -> str:
    points = [places[node] for node in (source, *chain, target)]
    x, y = points[0][0], points[0][1] + HEIGHT / 2
    path = [f"M{x:.1f} {y:.1f}"]
    for index, (next_x, centre) in enumerate(points[1:]):
        next_y = centre - HEIGHT / 2
        middle = (y + next_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        if index < len(points) - 2:
            path.append(f"V{centre + HEIGHT / 2:.1f}")
        x, y = next_x, centre + HEIGHT / 2
    return f'<path d="{" ".join(path)}" stroke="{GREY}" fill="none"/>'


def _box(x: float, y: float, box: Box, numbers: dict[str, int]) -> list[str]:
    left, top = x - BOX / 2, y - HEIGHT / 2
    after = ", ".join(box.operators)
    if box.layer is None:
        title = f"{after} -> {box.shape}"
        return [
            rectangle(left, top, BOX, HEIGHT, UNUSED, LINE, title, 5),
            text(x, top + 16, shortened(after, 42), 11, "middle"),
            text(x, top + 30, box.shape, 10, "middle", MUTED),
        ]
    number = numbers.get(box.layer)
    colour = layer_colour(number) if number is not None else UNUSED
    second = f"{box.shape}  {after}" if after else box.shape
    return [
        rectangle(left, top, BOX, HEIGHT, PAPER, BLUE, f"{box.layer} -> {second}", 5),
        rectangle(left + 1, top + 1, 30, HEIGHT - 2, colour, "", "", 4),
        text(left + 16, y + 4, "" if number is None else str(number + 1), 11, "middle", INK),
        text(left + 38, top + 16, shortened(box.layer, 34), 11),
        text(left + 38, top + 30, shortened(second, 42), 10, "start", MUTED),
    ]
