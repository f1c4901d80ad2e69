"""The report is one valid page that names everything and needs nothing else."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from typer.testing import CliRunner

from cimc.api.compile import compile_model
from cimc.artifact import Artifact, read_artifact
from cimc.chip import chip_names, chip_text, load_chip, parse_chip
from cimc.commands.main import app
from cimc.errors import CimcError
from cimc.mapping import Link, Placement
from cimc.report.conductances import BINS, distribution
from cimc.report.graph import network_boxes
from cimc.report.html import write_page
from cimc.report.page import report
from cimc.report.svg import duration, energy, layer_colour, ticks, ticks_between
from cimc.schedule import Schedule, Stage, Step
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.network.load import load_network
from runtime.system.program import program_of, retarget
from runtime.system.state import build_system, initial_state
from tests.benchmarks.mapper.networks import network as benchmark_network
from tests.real_networks import REAL_NETWORKS

MODELS = Path(__file__).parents[2] / "models"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that every element is closed in order; collects texts and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def artifact_of(proto: object, chip: str = "brram-256x64", model: str = "model") -> Artifact:
    lowered = lower(ir.from_proto(proto))
    return Artifact(model, lowered, load_chip(chip), chip_text(chip), map_network(lowered, load_chip(chip)))


@cache
def shipped(name: str) -> Artifact:
    return compile_model(MODELS / f"{name}.onnx", "brram-256x64", verify=False).artifact


def drawings(page: str) -> dict[str, ElementTree.Element]:
    """The SVG drawings by their label, each parsed as XML."""
    found = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    parsed = [ElementTree.fromstring(text) for text in found]
    return {element.get("aria-label", ""): element for element in parsed}


def titles(element: ElementTree.Element) -> list[str]:
    return [title.text or "" for title in element.iter("{http://www.w3.org/2000/svg}title")]


@pytest.mark.parametrize("name", ["lenet1", "vgg8"])
def test_page_is_valid_and_names_every_layer(name: str) -> None:
    artifact = shipped(name)
    page = Page(report(artifact))
    words = " ".join(page.texts)
    for layer in artifact.mapping.layers:
        assert words.count(layer.name) >= 4, layer.name
    for figure in (f"{artifact.mapping.cost.crossbars:,}", f"{artifact.mapping.cost.devices:,}"):
        assert figure in words


@pytest.mark.parametrize("objective", [None, "latency", "arrays"])
@pytest.mark.parametrize("chip", chip_names())
def test_every_chip_has_a_page(chip: str, objective: str | None) -> None:
    lowered = lower(ir.from_proto(onnx.load(MODELS / "lenet1.onnx")))
    try:
        mapping = map_network(lowered, load_chip(chip), options=MappingOptions(objective=objective))
    except CimcError:
        assert chip == "brram-soc", "the others hold LeNet-1, or can be programmed anew"
        return
    words = " ".join(Page(report(Artifact("lenet1", lowered, load_chip(chip), chip_text(chip), mapping))).texts)
    assert all(layer.name in words for layer in mapping.layers)
    assert ("segments" in words) == (len(mapping.segments) > 0)
    assert "of 1 cores" not in words


@pytest.mark.parametrize("name", REAL_NETWORKS)
def test_pages_of_networks_that_people_bring(name: str) -> None:
    artifact = artifact_of(REAL_NETWORKS[name]())
    page = Page(report(artifact))
    boxes = network_boxes(artifact.network)
    assert {box.layer for _, box in boxes.nodes(data="box") if box.layer} == {
        layer.name for layer in artifact.mapping.layers
    }
    assert len(page.texts) > 50


def test_page_refers_to_nothing_outside() -> None:
    text = report(shipped("vgg8"))
    assert "<script" not in text
    assert not re.search(r"url\(|@import|<link|<img|<iframe", text)
    for name, value in Page(text).attributes:
        assert name not in ("src", "xlink:href", "srcset", "data")
        assert name != "href" or (value or "").startswith(("#", "data:"))
        assert "://" not in (value or "") or (name, value) == ("xmlns", "http://www.w3.org/2000/svg")


def test_names_from_the_network_cannot_break_the_page() -> None:
    artifact = replace(shipped("lenet1"), model='<img src="http://x.y">&"')
    layers = artifact.mapping.layers
    evil = layers[0].model_copy(update={"name": "<b>conv1</b>&amp;"})
    mapping = artifact.mapping.model_copy(update={"layers": (evil, *layers[1:])})
    text = report(replace(artifact, mapping=mapping))
    page = Page(text)
    assert "<img" not in text
    assert "<b>conv1" not in text
    assert any("<b>conv1</b>&amp;" in part for part in page.texts)


def test_floor_plan_shows_every_array_once_and_the_cells_in_use() -> None:
    artifact = shipped("vgg8")
    plan = drawings(report(artifact))["floor plan of the arrays"]
    arrays = [title for title in titles(plan) if title.startswith("array ")]
    assert [int(title.split()[1][:-1]) for title in arrays] == list(range(78))
    names = Counter(title.split(": ")[1].split()[0] for title in arrays)
    assert names == {cost.name: cost.arrays for cost in artifact.mapping.cost.layers}
    frames = [r for r in plan if r.tag.endswith("rect") and len(r)]
    filled = [r for r in plan if r.tag.endswith("rect") and r.get("class") == "b"]
    area, whole = (sum(float(r.attrib["width"]) * float(r.attrib["height"]) for r in some) for some in (filled, frames))
    assert area / whole == pytest.approx(artifact.mapping.cost.utilization, rel=0.01)


def test_floor_plan_goes_by_core_where_arrays_are_placed() -> None:
    artifact = shipped("lenet1")
    arrays = artifact.mapping.arrays
    placement = Placement(
        mesh_rows=2,
        mesh_columns=2,
        cores=tuple(array % 3 for array in range(arrays)),
        links=(Link(0, 1, 700), Link(1, 3, 900)),
        byte_hops=1600,
        byte_hops_bound=1500,
        byte_hops_unplaced=2000,
    )
    mapping = artifact.mapping.model_copy(update={"placement": placement})
    page = report(replace(artifact, mapping=mapping))
    plan = drawings(page)["floor plan of the arrays by core"]
    cores = [title for title in titles(plan) if title.startswith("core ")]
    assert len(cores) == min(3, arrays)
    assert sum(int(title.split(": ")[1].split()[0]) for title in cores) == arrays
    assert page.index("core 1 to 3") < page.index("core 0 to 1"), "the busiest link comes first"


def stage(name: str, layer: str, kind: str, start: float, stop: float) -> Stage:
    return Stage(
        name=name,
        operator="CrossbarConv",
        kind=kind,  # type: ignore[arg-type]
        layer=layer,
        rows=4,
        positions=16,
        round_ns=1.0,
        row_ns=1.0,
        first_ns=1.0,
        elements=1,
        operations=1,
        start_ns=start,
        stop_ns=stop,
        inputs=(),
    )


def test_timeline_is_that_of_the_schedule() -> None:
    artifact = shipped("lenet1")
    first, second = artifact.mapping.layers[0].name, artifact.mapping.layers[1].name
    schedule = Schedule(
        latency_ns=1000.0,
        sequential_ns=1500.0,
        interval_ns=400.0,
        limits=(),
        critical_path=(Step("a", first, 0, 3, 0.0, 600.0), Step("c", second, 2, 2, 600.0, 1000.0)),
        buffer_bytes=321,
        stages=(
            stage("a", first, "crossbar", 0.0, 600.0),
            stage("b", first, "digital", 100.0, 700.0),
            stage("c", second, "crossbar", 500.0, 1000.0),
        ),
    )
    page = report(replace(artifact, mapping=artifact.mapping.model_copy(update={"schedule": schedule})))
    Page(page)
    found = titles(drawings(page)["timeline of one input"])
    assert found == [
        f"{first} digital work: 100 ns to 700 ns",
        f"{first}: 0 ns to 600 ns",
        f"{second}: 500 ns to 1 µs",
        f"critical: {first}, 600 ns",
        f"critical: {second}, 400 ns",
    ]
    assert "321 bytes" in page


def test_histograms_show_trained_conductances_where_there_are_some() -> None:
    artifact = shipped("lenet1")
    layer = artifact.mapping.layers[0]
    targets = distribution(artifact, layer.name)
    assert targets is not None
    assert targets.counts.sum() == 2 * layer.rows * layer.columns
    assert targets.counts[0] >= layer.rows * layer.columns, "one device of each pair is idle at G_min"
    trained = np.full((2, layer.rows, layer.columns), 40.0, np.float32)
    found = distribution(replace(artifact, state={f"conductance/{layer.name}": trained}), layer.name)
    assert found is not None
    assert np.flatnonzero(found.counts).tolist() == [32], "40 uS is the middle of 10 to 70 uS"
    assert "trained devices" in report(replace(artifact, state={f"conductance/{layer.name}": trained}))


@pytest.mark.parametrize("key", ["levels = 2", "levels = 4", "granularity_uS = 4.0"])
def test_histograms_of_an_untrained_file_show_what_export_would_program(key: str) -> None:
    text = chip_text("brram-256x64").replace("granularity_uS = 4.0", key)
    artifact = replace(shipped("lenet1"), chip=parse_chip(text, "x"), chip_text=text)
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    programmed = program_of(system, retarget(system, initial_state(system)))
    for layer in artifact.mapping.layers:
        found = distribution(artifact, layer.name)
        assert found is not None
        targets = programmed.layers[layer.name].targets
        assert found.counts.tolist() == np.histogram(targets, BINS, (10, 70))[0].tolist()


@pytest.mark.parametrize("name", ["mobilenetv2", "inception_v3"])
def test_large_networks_stay_readable_and_small(name: str) -> None:
    artifact = artifact_of(benchmark_network(name))
    text = report(artifact)
    Page(text)
    assert len(text) < 8e6
    boxes = network_boxes(artifact.network)
    assert len(boxes) < 0.9 * len(list(artifact.network.graph))


def test_boxes_do_not_overlap() -> None:
    graph = drawings(report(artifact_of(benchmark_network("inception_v3"))))["network graph"]
    frames = [tuple(float(r.attrib[key]) for key in ("x", "y", "width", "height")) for r in graph if r.get("rx") == "5"]
    assert len(frames) > 94
    for index, (x, y, width, height) in enumerate(frames):
        for other_x, other_y, _, _ in frames[:index]:
            assert abs(x - other_x) >= width or abs(y - other_y) >= height


def test_command_writes_the_page_whole_or_not_at_all(tmp_path: Path) -> None:
    source, output = tmp_path / "model.cim", tmp_path / "report.html"
    compile_model(MODELS / "lenet1.onnx", "brram-256x64", output=source, verify=False)
    done = CliRunner().invoke(app, ["report", str(source), "-o", str(output)])
    assert done.exit_code == 0
    assert output.read_text(encoding="utf-8") == report(read_artifact(source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.cim", "report.html"]
    as_json = CliRunner().invoke(app, ["report", str(source), "-o", str(output), "--json"])
    assert json.loads(as_json.stdout) == {"model": "lenet1", "chip": "brram-256x64", "report": str(output)}
    with pytest.raises(CimcError, match="it is the input"):
        CliRunner().invoke(app, ["report", str(source), "-o", str(source)], catch_exceptions=False)
    with pytest.raises(CimcError, match="check the folder"):
        write_page(report(read_artifact(source)), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    ("ns", "shown"), [(0.0, "0 ns"), (200.0, "200 ns"), (1500.0, "1.5 µs"), (2.34e6, "2.34 ms"), (5e9, "5 s")]
)
def test_times_have_a_fitting_unit(ns: float, shown: str) -> None:
    assert duration(ns) == shown


@pytest.mark.parametrize(
    ("mj", "shown"), [(0.0, "0 pJ"), (2.5, "2.5 mJ"), (0.023, "23 µJ"), (2e-6, "2 nJ"), (4695.7, "4.7 J")]
)
def test_energies_have_a_fitting_unit(mj: float, shown: str) -> None:
    assert energy(mj) == shown


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (0.5, 0.5), (0.97, 0.984), (-3.0, 4.0), (0.0, 2.3), (1e-5, 3e-5), (12.0, 12000.0)]
)
def test_ticks_between_enclose_the_values_and_are_few_and_round(low: float, high: float) -> None:
    found = ticks_between(low, high)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 7
    assert len({float(f"{b - a:.3g}") for a, b in itertools.pairwise(found)}) == 1


@pytest.mark.parametrize("most", [0.0, 0.7, 3.0, 99.0, 12345.0, 2.1e7])
def test_ticks_are_few_and_round(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert found[-1] <= most * (1 + 1e-9)
    assert len(found) <= 8
    assert most == 0 or len(found) >= 3


def test_neighbouring_layers_have_colours_apart() -> None:
    def channels(index: int) -> np.ndarray:
        return np.array([int(layer_colour(index)[place : place + 2], 16) for place in (1, 3, 5)])

    for index in range(60):
        assert np.abs(channels(index) - channels(index + 1)).sum() > 60
        assert channels(index) @ (0.299, 0.587, 0.114) > 120, "dark text must be readable on it"
