"""Notebooks and the Python of the pages: what they import and call exists, with these arguments; the site builds.

They run whole in `python -m tests.benchmarks.notebooks`, which takes minutes.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cimc

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
# What they may need: the package's own dependencies, and PyTorch where the notebook is about it.
IMPORTS = {"cimc", "matplotlib", "numpy", "onnx", "pathlib"}
PAGES = {
    f"python.md, block {number}": block
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.M | re.S)
    )
}
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in NOTEBOOKS} | PAGES


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """The calls of public names, `cimc.NAME(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "cimc":
                yield node.func.attr, node


def test_there_are_five_notebooks_and_the_page_links_them() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names == {"quickstart", "my_device", "my_network", "deployment_over_time", "comparing_rules"}
    assert len(PAGES) >= 2
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert all(f"notebooks/{name}.py" in page for name in names)


@pytest.mark.parametrize("name", SOURCES)
def test_calls_of_the_package_are_possible(name: str) -> None:
    tree = ast.parse(SOURCES[name])
    found = list(calls(tree))
    assert found
    for function, call in found:
        assert function in cimc.__all__, function
        places = [object() for _ in call.args]
        inspect.signature(getattr(cimc, function)).bind_partial(
            *places, **{keyword.arg: None for keyword in call.keywords if keyword.arg}
        )
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_package(node.value)}
    assert used - {"__file__"} <= set(cimc.__all__)


def _is_package(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "cimc"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_percent_format_and_needs_only_what_is_installed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:\n")
    assert "format_name: percent" in text
    assert text.count("\n# %%") >= 6
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    assert modules - IMPORTS == ({"torch"} if path.stem == "my_network" else set())


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    config = ROOT / "docs" / "site" / "mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    pages = {str(page.relative_to(tmp_path / "site").parent) for page in (tmp_path / "site").rglob("index.html")}
    assert {".", "guide", "python", "notebooks/quickstart", "repository/CONTRIBUTING", "measured"} <= pages
    front = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="guide/"' in front
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', front)
    assert fetched == []
