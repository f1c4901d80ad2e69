"""Command lines that README.md and docs/ show: every one parses, and the road and all quick ones run, in their order.

All of them complete, slow ones too: `python -m tests.benchmarks.commands`.
"""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cimc.commands.main import app
from tests.shown_commands import PAGES, Shown, prepare, shown_in_blocks, shown_in_text, substituted

QUICK = {"compile", "inspect", "report", "chips", "ops"}
BLOCKS = {page.name: lines for page in PAGES if (lines := shown_in_blocks(page))}
ALL = [
    *(line for lines in BLOCKS.values() for line in lines),
    *(line for page in PAGES for line in shown_in_text(page)),
]


def group() -> typer.core.TyperGroup:
    """The command line as a group of commands."""
    found = typer.main.get_command(app)
    assert isinstance(found, typer.core.TyperGroup)
    return found


def commands() -> list[str]:
    """The names of all commands."""
    return group().list_commands(group().make_context("cimc", [], resilient_parsing=True))


def refusal(arguments: list[str]) -> str:
    """What the command line says of arguments that it does not take, before anything runs; empty: it takes them."""
    context = group().make_context("cimc", [], resilient_parsing=True)
    try:
        name, command, rest = group().resolve_command(context, list(arguments))
        if command is None:
            return f"no command {arguments[0]}"
        inner = command.make_context(name, rest, parent=context)
        if isinstance(command, typer.core.TyperGroup):  # `devices` has commands of its own
            name, own, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
            assert own is not None
            own.make_context(name, rest, parent=inner)
    except typer.Exit as left:  # --help
        return "" if left.exit_code == 0 else f"status {left.exit_code}"
    except Exception as error:
        return str(error)
    return ""


def test_pages_show_the_road_and_every_command() -> None:
    road = ["quickstart", "compile", "train", "eval", "export", "deploy"]
    assert [line.command for line in BLOCKS["README.md"]] == road
    assert {line.command for line in ALL} == set(commands())


@pytest.mark.parametrize("shown", [line for line in ALL if len(line.arguments) > 1], ids=str)
def test_line_parses(shown: Shown) -> None:
    assert refusal(list(shown.arguments)) == ""


def test_a_line_with_an_unknown_option_does_not_parse() -> None:
    assert "--epoch-count" in refusal(["train", "lenet1.cim", "--epoch-count", "3", "-o", "trained.cim"])
    assert "fast" in refusal(["compile", "model.onnx", "--row-split", "fast"])
    assert "fuse" in refusal(["fuse", "model.onnx"])


def is_quick(line: Shown) -> bool:
    """Whether a line runs in CI: the road, and what takes less than a second on the files that it leaves."""
    if "--explain" in line.arguments:
        return False  # tests/cimc/test_explain.py and tests/test_docs.py run it
    if line.arguments[:2] == ("report", "sweep/"):
        return False  # likewise; tests/cimc/test_sweep.py runs it
    if "--deployed" in line.arguments:
        return False  # of a slow line's output; tests/cimc/test_deploy_over_time.py runs it
    return line.command in QUICK or (line.page == "README.md" and line.command != "quickstart")


def test_road_and_quick_lines_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The road of README.md with few steps on embedded data; then every page's quick lines on what it left."""
    prepare(tmp_path, short=True)
    monkeypatch.chdir(tmp_path)
    lines = [line for page in BLOCKS.values() for line in page if is_quick(line)]
    assert len(lines) > 12
    for line in lines:
        result = CliRunner().invoke(app, substituted(line, short=True))
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
        if line.to is not None:
            Path(line.to).write_text(result.stdout, encoding="utf-8")
    assert (tmp_path / "package" / "program" / "targets.npy").exists()
    assert (tmp_path / "report.html").exists()
