"""Third parties add chips and passes by entry points alone; a plug-in that is broken is named in one line."""

import logging
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from typer.testing import CliRunner

from cimc.chip import chip_names, chip_text, load_chip
from cimc.commands.main import app
from cimc.errors import CimcError
from cimc.plugins import plugins
from passes.mapper.map_network import map_network
from passes.mapper.objective import find_objective, objective_names
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.read import read_network
from passes.verify import run
from runtime.training.options import Policy
from runtime.training.policies import POLICIES, find_policy
from tests.networks import layers, network_proto, weights

LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"
SOURCE = Path(__file__).parents[1] / "plugin"
Install = Callable[[str, dict[str, dict[str, str]]], None]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What a test installs is not there for the next one."""
    plugins.cache_clear()
    yield
    plugins.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution: its entry points by group, as pip would write them."""

    def write(name: str, groups: dict[str, dict[str, str]]) -> None:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in given.items()) for group, given in groups.items()]
        (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.syspath_prepend(str(SOURCE))

    return write


@pytest.fixture
def acme(install: Install) -> None:
    """The package of `tests/plugin`, installed."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(project["name"], project["entry-points"])


@pytest.mark.usefixtures("acme")
def test_a_chip_of_a_plug_in_is_found_by_name_as_file_and_as_text() -> None:
    assert {"acme-64", "acme-wide", "brram-soc"} <= set(chip_names())
    assert load_chip("acme-64").array.columns == 64
    assert load_chip("acme-wide").array.columns == 256
    assert chip_text("acme-64").startswith("# A chip that nobody makes.\n")


@pytest.mark.usefixtures("acme")
def test_the_command_lists_and_prints_a_chip_of_a_plug_in() -> None:
    listed = CliRunner().invoke(app, ["chips", "--json"])
    assert '"acme-64"' in listed.stdout
    assert CliRunner().invoke(app, ["chips", "acme-64"]).stdout == chip_text("acme-64")


@pytest.mark.usefixtures("acme")
def test_a_misspelt_chip_of_a_plug_in_is_recognised() -> None:
    with pytest.raises(CimcError, match=r"unknown chip 'acme-46'.*did you mean acme-64\?"):
        load_chip("acme-46")


def test_without_the_plug_in_its_names_are_unknown() -> None:
    assert plugins("cimc.chips") == {}
    with pytest.raises(CimcError, match="unknown chip 'acme-64'"):
        load_chip("acme-64")


def test_a_built_in_chip_wins_and_says_so(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    before = load_chip("ideal")
    install("acme-cimc", {"cimc.chips": {"ideal": "acme_cimc:CHIP"}})
    with caplog.at_level(logging.WARNING):
        assert chip_names().count("ideal") == 1
    assert caplog.messages == ["warning: cimc.chips 'ideal' of acme-cimc 1.0 is left out: that name is built in"]
    assert load_chip("ideal") == before


def test_two_plug_ins_of_one_name_are_both_named(install: Install) -> None:
    for name in ("acme-cimc", "bcme-cimc"):
        install(name, {"cimc.chips": {"acme-64": "acme_cimc:CHIP"}})
    with pytest.raises(CimcError, match=r"acme-cimc 1\.0 and bcme-cimc 1\.0 both declare cimc\.chips 'acme-64'"):
        chip_names()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:CHIP", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("acme_cimc:NO_SUCH_CHIP", "AttributeError: .*NO_SUCH_CHIP"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_named(install: Install, target: str, words: str) -> None:
    install("acme-cimc", {"cimc.chips": {"acme-64": target}})
    with pytest.raises(CimcError, match=rf"cannot load cimc\.chips 'acme-64' of acme-cimc 1\.0: {words}") as caught:
        load_chip("acme-64")
    assert "\n" not in str(caught.value)


def test_a_broken_plug_in_leaves_the_built_in_chips_alone(install: Install) -> None:
    install("acme-cimc", {"cimc.chips": {"acme-64": "no_such_module:CHIP"}})
    assert load_chip("ideal").name == "ideal"


def test_a_chip_that_is_neither_path_nor_text_is_refused(install: Install) -> None:
    install("acme-cimc", {"cimc.chips": {"acme-64": "acme_cimc:EXPAND_SWISH"}})
    with pytest.raises(CimcError, match=r"the plug-in of chip 'acme-64' gives .*, not a path or TOML text"):
        load_chip("acme-64")


def swish(standard: bool) -> ir.Model:
    """A product and a swish: as the operator of the third party, or in standard operators."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="fc")]
    if standard:
        nodes += [helper.make_node("Sigmoid", ["h"], ["s"]), helper.make_node("Mul", ["h", "s"], ["y"])]
    else:
        nodes += [helper.make_node("Swish", ["h"], ["y"], domain="ai.acme")]
    proto = network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})
    if not standard:
        proto.opset_import.append(helper.make_opsetid("ai.acme", 1))
    return ir.from_proto(proto)


@pytest.mark.usefixtures("acme")
def test_a_pass_of_a_plug_in_lowers_an_operator_that_cimc_does_not_know() -> None:
    lowered = lower(swish(standard=False))
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)
    assert len(layers(lowered)) == 1
    feeds: dict[str, Any] = {"x": weights(5, 4, seed=2)}
    computed: Any = run(lowered, feeds)[0]
    expected: Any = run(swish(standard=True), feeds)[0]
    assert np.abs(computed - expected).max() < 1e-6


def test_without_the_pass_the_operator_is_refused() -> None:
    with pytest.raises(CimcError, match="Swish"):
        lower(swish(standard=False))


def test_a_pass_that_is_none_is_refused(install: Install) -> None:
    install("acme-cimc", {"cimc.passes": {"acme-swish": "acme_cimc:ExpandSwish"}})
    with pytest.raises(CimcError, match=r"the plug-in pass 'acme-swish' is .*ExpandSwish.*declare an instance"):
        lower(swish(standard=True))


@pytest.mark.usefixtures("acme")
def test_an_update_policy_of_a_plug_in_is_found_with_its_options() -> None:
    chip = load_chip("brram-256x64")
    rule = Policy(method="acme-patient", settings=(("factor", "3"),)).rule
    assert rule.threshold(chip) == pytest.approx(3 * chip.cell.granularity)
    assert find_policy("mixed-precision") is POLICIES["mixed-precision"]
    with pytest.raises(CimcError, match=r"did you mean acme-patient\?"):
        Policy(method="acme-patent")


@pytest.mark.usefixtures("acme")
def test_an_objective_of_a_plug_in_maps_a_network() -> None:
    assert "acme-columns" in objective_names()
    lowered = lower(read_network(LENET1))
    mapping = map_network(lowered, load_chip("isaac"), options=MappingOptions(objective="acme-columns"))
    assert mapping.result is not None
    assert mapping.result.unit == "arrays of acme"


def test_what_is_no_policy_or_objective_is_said(install: Install) -> None:
    install("odd", {"cimc.policies": {"odd": "acme_cimc:CHIP"}, "cimc.objectives": {"odd": "acme_cimc:CHIP"}})
    for name in (lambda: find_policy("odd"), lambda: find_objective("odd")):
        with pytest.raises(CimcError, match=r"'odd' is .*, not an (UpdatePolicy|Objective); mend") as error:
            name()
        assert "\n" not in str(error.value)
