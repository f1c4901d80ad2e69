"""Every figure of a report can be saved: its links hold a drawing and its numbers, and no name breaks any of it."""

import base64
import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cimc.artifact import Artifact
from cimc.fault_map import Die
from cimc.mapping import Mapping
from cimc.package import Package
from cimc.program import LayerProgram, Program
from cimc.report.charts import Distribution, Line, histogram, line_chart, shades
from cimc.report.conductances import programmed_counts
from cimc.report.die import HIGH, IDLE, LOW, UNUSED, USED, die_map
from cimc.report.figure import Figure
from cimc.report.graph import network_boxes
from cimc.report.package_page import package_report
from cimc.report.page import report
from cimc.report.svg import DARK, LIGHT, fitted, layer_colour, text_width
from cimc.report.update_counts import accumulators_of, writes_of
from cimc.wiring import Wiring
from tests.cimc.test_report import Page, shipped

HOSTILE = "</title></svg><script>alert('x')</script>&\x01\x00\" onload=1 ' =1+1,\n層" + "n" * 200


def package_of(
    artifact: Artifact, die: Die | None = None, wiring: Wiring | None = None, notes: dict[str, Any] | None = None
) -> Package:
    """A package whose devices are all at 20 uS."""
    one = np.float32(1)
    layers = {
        layer.name: LayerProgram(np.full((2, layer.rows, layer.columns), 20.0, np.float32), one, one, one, None)
        for layer in artifact.mapping.layers
    }
    program = Program(layers, {})
    return Package(
        "m", artifact.chip, artifact.chip_text, artifact.mapping, program, b"", b"", notes or {}, die, wiring
    )


def trained(artifact: Artifact) -> Artifact:
    """With devices, counts, accumulators and a history of two epochs."""
    state, generator = {}, np.random.default_rng(0)
    for layer in artifact.mapping.layers:
        shape = (layer.rows, layer.columns)
        state[f"conductance/{layer.name}"] = generator.uniform(10, 70, (2, *shape)).astype(np.float32)
        state[f"writes/{layer.name}"] = generator.poisson(3, (2, *shape)).astype(np.int32)
        state[f"updates/{layer.name}"] = generator.poisson(2, shape).astype(np.int32)
        state[f"accumulator/{layer.name}"] = generator.normal(0, 0.02, shape).astype(np.float32)
        state[f"weight_range/{layer.name}"] = np.array(0.5, np.float32)
    begun = {name.partition("/")[2]: array - 5 for name, array in state.items() if name.startswith("conductance/")}
    names = [layer.name for layer in artifact.mapping.layers]
    history = {
        "options": {"policy": {"method": "mixed-precision", "sync": "auto"}, "data": "mnist", "images": 9},
        "step": 2,
        "steps": 2,
        "synthetic": False,
        "epochs": [
            {"epoch": at, "loss": 1.0 / at, "accuracy": 0.5, "lr": 0.1, "updates": 30.0 * at,
             "layers": {name: {"updates": 10.0 * at * at, "input_range": 1.0, "clipped_codes": 0.1} for name in names}}
            for at in (1, 2)
        ],
        "figures": {"weights": artifact.mapping.cost.weights, "threshold": 0.0625, "accuracy": 0.5},
        "begun": programmed_counts(begun, artifact.chip),
    }  # fmt: skip
    return replace(artifact, state=state, history=history)


def hostile(artifact: Artifact) -> Artifact:
    """With a name that means something to HTML, SVG and spreadsheets."""
    first, *others = artifact.mapping.layers
    costs = artifact.mapping.cost.layers
    cost = artifact.mapping.cost.model_copy(
        update={"layers": (costs[0].model_copy(update={"name": HOSTILE}), *costs[1:])}
    )
    mapping = artifact.mapping.model_copy(
        update={"layers": (first.model_copy(update={"name": HOSTILE}), *others), "cost": cost}
    )
    return replace(artifact, model=HOSTILE, mapping=mapping)


def die_of(mapping: Mapping, chip_rows: int, chip_columns: int, spare: int = 1) -> Die:
    """Array 0 has one cell stuck high that the first layer uses, and one stuck low that no layer uses."""
    stuck = np.full((mapping.arrays + spare, chip_rows, chip_columns), np.nan, np.float32)
    stuck[0, 0, 0], stuck[0, chip_rows - 1, chip_columns - 1] = 70.0, 10.0
    return Die(HOSTILE, stuck)


def moved_by_one(artifact: Artifact) -> Wiring:
    """Every array on the next one of the die."""
    arrays = artifact.mapping.arrays
    word, bit = (np.tile(np.arange(n), (arrays, 1)) for n in (artifact.chip.array.rows, artifact.chip.array.columns))
    return Wiring(np.arange(arrays) + 1, word, bit, arrays + 1)


def deployment_of(layers: dict[str, Any]) -> dict[str, Any]:
    """As `cimc deploy --json` prints one of two chips."""
    return {
        "measure": "accuracy",
        "accuracies": [0.5, 0.75],
        "accuracy": {"mean": 0.625, "std": 0.1, "min": 0.5, "median": 0.6},
        "yield": 1.0,
        "aged": [{"seconds": at, "accuracies": [0.5, 0.7 / at], "yield": 0.5,
                  "accuracy": {"mean": 0.6, "std": 0.1, "min": 0.5, "median": 0.6}} for at in (1.0, 9.0)],
        "worst": {"chip": 0, "value": 0.5, "stuck_share": 0.0, "layers": layers},
    }  # fmt: skip


def pages() -> dict[str, str]:
    artifact = shipped("lenet1")
    evil = hostile(artifact)
    rows, columns = artifact.chip.array.rows, artifact.chip.array.columns
    causes = {"read noise": {"share": 0.7}}
    layers = {HOSTILE: {"snr_db": 20.0, "own_snr_db": 25.0, "causes": causes}}
    wiring = moved_by_one(artifact)
    errors = {"expected_error": {"none": 0.5, "full": 1e-9}, "layers": {HOSTILE: {"none": 0.5, "full": 1e-9}}}
    package = package_of(evil, die_of(artifact.mapping, rows, columns), wiring, {"layers": layers, "die": errors})
    return {
        "compiled": report(artifact),
        "trained": report(trained(artifact)),
        "hostile": report(trained(evil)),
        "package": package_report(package, {HOSTILE: deployment_of(layers)}),
    }


PAGES: dict[str, str] = {}


@pytest.fixture(scope="module", params=["compiled", "trained", "hostile", "package"])
def page(request: pytest.FixtureRequest) -> str:
    if not PAGES:
        PAGES.update(pages())
    return PAGES[request.param]


def saved(page: str, kind: str) -> list[str]:
    found = re.findall(rf'download="[a-z0-9-]+\.{kind}" href="data:[a-z/+;=0-9-]+;base64,([^"]*)"', page)
    return [base64.b64decode(text).decode() for text in found]


def test_pages_are_well_formed_and_carry_all_that_they_need(page: str) -> None:
    attributes = Page(page).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 3
    assert all(value.startswith(("data:", "#")) for name, value in attributes if name == "href" and value is not None)
    assert {value[1:] for name, value in attributes if name == "href" and value and value[0] == "#"} <= set(ids)
    assert not {"src", "onload", "onclick", "srcset"} & {name for name, _ in attributes}
    assert "<script" not in page
    assert "url(" not in page
    assert '<meta name="viewport"' in page


def test_every_figure_has_a_name_a_drawing_and_its_numbers(page: str) -> None:
    shown = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    drawings, tables = saved(page, "svg"), saved(page, "csv")
    assert len(shown) == len(drawings) == len(tables) > 3
    labels = []
    for inline, alone, numbers in zip(shown, drawings, tables, strict=True):
        element = ElementTree.fromstring(alone)
        assert element.get("role") == "img"
        labels.append(element.get("aria-label"))
        assert len(list(element.iter())) == len(list(ElementTree.fromstring(inline).iter()))
        assert "var(" not in alone, "a program for papers knows no variables"
        head, *rows = csv.reader(io.StringIO(numbers))
        assert rows, labels[-1]
        assert {len(row) for row in rows} == {len(head)}
    assert len(set(labels)) == len(labels)


def test_names_stay_text_in_pages_drawings_and_tables() -> None:
    page = (PAGES or pages())["hostile"]
    assert "alert('x')</script>" not in page
    clean = HOSTILE.replace("\x00", "?").replace("\x01", "?")
    titles = [title.text or "" for text in saved(page, "svg") for title in ElementTree.fromstring(text).iter()]
    assert any(clean in title for title in titles), "the whole name is under the pointer"
    cells = [cell for text in saved(page, "csv") for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert HOSTILE in cells


def test_the_same_file_gives_the_same_bytes() -> None:
    artifact = trained(shipped("lenet1"))
    assert report(artifact) == report(artifact)


def numbers(figure: Figure) -> list[list[str]]:
    return list(csv.reader(io.StringIO(figure.csv)))


def test_tables_have_the_numbers_of_their_figures() -> None:
    found = Distribution(np.array([5, 0, 1]), 10.0, 70.0, "µS")
    before = Distribution(np.array([1, 2, 3]), 10.0, 70.0, "µS")
    assert numbers(histogram("h", found, "#000000", before=before)) == [
        ["from (µS)", "to (µS)", "count", "count before"],
        ["10.0", "30.0", "5", "1"],
        ["30.0", "50.0", "0", "2"],
        ["50.0", "70.0", "1", "3"],
    ]
    course = Line("a, b", "#000000", [(1.0, 0.5), (2.0, float("nan"))])
    assert numbers(line_chart("l", [course], show=str))[1:] == [["a, b", "1.0", "0.5"], ["a, b", "2.0", "nan"]]
    table = shades("s", ["x"], ["1", "2"], np.array([[0.0, 3.0]]), show=str, across="epoch")
    assert numbers(table) == [["name", "epoch", "value"], ["x", "1", "0.0"], ["x", "2", "3.0"]]


def test_updates_of_an_epoch_are_what_it_added() -> None:
    page = report(trained(shipped("lenet1")))
    layer = shipped("lenet1").mapping.layers[0]
    rows = next(rows for text in saved(page, "csv") if (rows := text.splitlines())[0] == "name,epoch,value")
    weights = layer.rows * layer.columns
    assert rows[1:3] == [f"{layer.name},1,{10 / weights}", f"{layer.name},2,{30 / weights}"]


def test_conductances_before_training_stand_beside_those_after() -> None:
    page, layer = report(trained(shipped("lenet1"))), shipped("lenet1").mapping.layers[0]
    rows = next(rows for text in saved(page, "csv") if (rows := text.splitlines())[0].endswith("count before"))
    after, before = np.array([row.split(",")[2:] for row in rows[1:]], int).T
    assert after.sum() == before.sum() == 2 * layer.rows * layer.columns
    centres = np.array([float(row.split(",")[0]) for row in rows[1:]])
    assert (after - before) @ centres / after.sum() == pytest.approx(5.0, abs=0.2)
    assert "before training" in page


def test_counts_of_writes_and_accumulators() -> None:
    found = writes_of(np.array([0, 0, 1, 5]))
    assert (found.counts.tolist(), found.low, found.high) == ([2, 1, 0, 0, 0, 1], 0.0, 6.0)
    assert writes_of(np.array([0, 1000])).counts.sum() == 2
    held = accumulators_of(np.array([[0.05, -0.05], [9.0, 0.0]]), np.array([1.0, 2.0]), 0.05)
    places = np.repeat(np.array(held.edges[:-1]), held.counts)
    assert places == pytest.approx([-0.5, 0.0, 1.0, held.high], abs=0.13), "in thresholds; beyond them in the last bin"


def test_the_map_of_a_die_shows_what_is_stuck_where_weights_are() -> None:
    artifact = shipped("lenet1")
    rows, columns = artifact.chip.array.rows, artifact.chip.array.columns
    die = die_of(artifact.mapping, rows, columns)
    head, *found = numbers(die_map(package_of(artifact, die)))
    assert head[1:3] == ["stuck low in use, as mapped", "stuck high in use, as mapped"]
    assert found[0] == ["0", "0", "1", "0", "1"], "of the two stuck cells one is in use, and it is stuck high"
    assert {cell for row in found[1:] for cell in row[1:]} == {"0"}
    assert numbers(die_map(package_of(artifact, die, moved_by_one(artifact))))[1] == ["0", "0", "1", "0", "0"], (
        "moved off that array"
    )
    assert len({UNUSED, USED, IDLE, LOW, HIGH}) == 5


def test_what_deployments_share_is_shown_once_and_their_worst_chips_to_one_scale() -> None:
    artifact = shipped("lenet1")
    name = artifact.mapping.layers[0].name
    good, bad = (
        {name: {"snr_db": snr, "own_snr_db": snr, "causes": {"read noise": {"share": 1.0}}}} for snr in (30.0, 10.0)
    )
    package = package_of(artifact, notes={"layers": good})
    deployed = {"no compensation": deployment_of(bad), "global": deployment_of(good)}
    page = package_report(package, deployed)
    assert page.count("mean accuracy as programmed<") == page.count("<b>62.50 %</b>") == 1
    assert "`" not in " ".join(Page(page).texts)
    assert not re.search(r">0\.[4-7]\d*<", page), "accuracies are in percent"
    widths = [float(found) for found in re.findall(r'width="([\d.]+)"[^>]*><title>read noise: 100%', page)]
    assert widths == pytest.approx([widths[0], widths[0] / 3, widths[0]], abs=0.01)
    other = {**deployed, "global": {**deployment_of(good), "accuracies": [0.5, 0.5]}}
    assert package_report(package, other).count("mean accuracy as programmed, ") == 2


def test_digital_operators_that_depend_on_the_same_layers_are_one_box() -> None:
    graph = network_boxes(shipped("lenet1").network)
    boxes = [box for _, box in graph.nodes(data="box")]
    assert [box.is_input for box in boxes] == [True, *[False] * (len(boxes) - 1)]
    assert [box.layer for box in boxes[1:]] == [layer.name for layer in shipped("lenet1").mapping.layers]
    assert list(graph.edges) == [(number, number + 1) for number in range(len(boxes) - 1)]


@pytest.mark.parametrize("name", ["conv1", "W" * 60, "a/very/long/name/of/a/layer/MatMul_1", "層" * 40])
def test_a_name_fits_the_room_it_has(name: str) -> None:
    shown = fitted(name, 120, 11)
    assert text_width(shown, 11) <= 120
    assert shown == name or "…" in shown


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_can_be_seen_on_their_paper(colours: dict[str, str]) -> None:
    """The thresholds of WCAG 2: 4.5 for text, 3 for graphics."""
    assert LIGHT.keys() == DARK.keys()
    for name in ("ink", "muted", "link"):
        assert min(contrast(colours[name], colours[ground]) for ground in ("paper", "stripe")) >= 4.5, name
    assert contrast(colours["muted"], colours["unused"]) >= 4.5
    for name in ("blue", "orange", "green", "purple", "red", "teal", "grey"):
        assert contrast(colours[name], colours["paper"]) >= 3, name
    assert min(contrast(LIGHT["ink"], layer_colour(index)) for index in range(60)) >= 4.5
