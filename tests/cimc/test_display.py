"""How results show themselves in notebooks: tables whose texts are escaped, figures that touch no global state."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.lines import Line2D
from onnx import helper

import cimc
from cimc.api.evaluate import Evaluation
from cimc.api.plots import NotebookFigure
from cimc.html_table import html_figures, html_table
from tests.networks import network_proto, weights


def deployment(**given: Any) -> cimc.Deployment:
    return cimc.Deployment(np.array([0.9, 0.8, 0.85]), 0.91, 0.95, **given)


def text_of(html: str) -> list[str]:
    """The texts of a table that is well-formed."""
    return [element.text or "" for element in ElementTree.fromstring(html).iter() if element.text]


def heights(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata(), float)


def test_texts_are_escaped_and_numbers_are_short() -> None:
    html = html_table("a <b> & c", ("<i>",), [["<script>", 0.123456, 12345, None]])
    assert text_of(html) == ["a <b> & c", "<i>", "<script>", "0.1235", "12,345", "None"]
    assert text_of(html_figures("t", {"left out": None, "kept": True})) == ["t", "kept", "True"]


def test_results_show_what_they_are() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "fc")
    proto = network_proto([node], {"x": ("N", 4)}, {"y": ("N", 3)}, {"w": weights(4, 3)})
    proto.graph.name = "<net>"
    compiled = text_of(cimc.compile(proto, "ideal", verify=False)._repr_html_())
    assert compiled[0].startswith("<net> on ideal")
    assert {"fc", "4 x 3", "total"} <= set(compiled)
    evaluation = Evaluation({"accuracy": 0.5, "agreement": {"<y>": {"snr_db": 20.0}}, "layers": {}})
    assert text_of(evaluation._repr_html_()) == [
        "on the test set",
        "accuracy",
        "0.5",
        "snr db of <y> with float32",
        "20",
    ]
    chips = text_of(deployment(aged={3600.0: np.array([0.7, 0.6, 0.5])})._repr_html_())
    assert chips[0] == "accuracy of 3 chips, baseline 0.9100"
    rows = chips[chips.index("as programmed") :]
    assert rows == ["as programmed", "0.85", "0.05", "0.8", "0.85", "33%", "1h", "0.6", "0.1", "0.5", "0.6", "0%"]


def test_figures_are_pictures_and_pyplot_knows_of_none() -> None:
    before = set(Gcf.figs)
    chips = deployment(aged={60.0: np.array([0.5, 0.6, 0.7])})
    figures = [cimc.plot_deployment(chips), cimc.plot_deployment(chips.at(60.0))]
    figures.append(cimc.plot_layers({"layers": {"fc": {"own_snr_db": 20.0, "snr_db": None}}}))
    for figure in figures:
        assert isinstance(figure, NotebookFigure)
        assert figure._repr_png_()[:4] == b"\x89PNG"
    assert set(Gcf.figs) == before


def test_the_lines_of_a_figure_are_the_figures_of_the_result() -> None:
    aged = {3600.0: np.array([0.7, 0.6, 0.5]), 60.0: np.array([0.9, 0.9, 0.6])}
    (axis,) = cimc.plot_deployment({"a": deployment(aged=aged), "b": deployment(aged=aged)}).axes
    line = axis.lines[0]
    np.testing.assert_allclose(np.asarray(line.get_xdata(), float), [20, 60, 3600])
    np.testing.assert_allclose(heights(line), [0.85, 0.8, 0.6])
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["baseline", "a", "b"]
    history = [{"epoch": n, "loss": 1 / n, "accuracy": 0.1 * n, "updates": 24.0 * n} for n in (1, 2)]
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "fc")
    proto = network_proto([node], {"x": ("N", 4)}, {"y": ("N", 3)}, {"w": weights(4, 3)})
    artifact = cimc.compile(proto, "ideal", verify=False).artifact
    with pytest.raises(cimc.CimcError, match="nothing to draw"):
        cimc.plot_training(artifact)
    artifact.history["epochs"] = history
    loss, updates, accuracy = cimc.plot_training(artifact).axes
    np.testing.assert_allclose(heights(loss.lines[0]), [1, 0.5])
    np.testing.assert_allclose(heights(accuracy.lines[0]), [10, 20])
    np.testing.assert_allclose(heights(updates.lines[0]), [2, 4])
    with pytest.raises(cimc.CimcError, match="call evaluate or export with layers=True"):
        cimc.plot_layers({"accuracy": 1.0})
