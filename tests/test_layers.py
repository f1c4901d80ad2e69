"""The import rules, from where files lie alone: no list of names. And --help loads nothing heavy.

Plain files in `cimc/` are the vocabulary, its folders are the face. `passes` and `runtime` import the vocabulary and
never each other; the vocabulary imports itself only; the face imports all. Rooms (folders) never import in a circle.
"""

import ast
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cimc", "passes", "runtime")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = {".".join(module.with_suffix("").parts).removesuffix(".__init__") for module in MODULES}
HEAVY = ("jax", "onnx", "onnx_ir", "onnxruntime", "numpy", "matplotlib")
LONGEST_MODULE = 400


def imported(source: str, module: Path) -> set[str]:
    """Full names of all modules of the project that the source of a module imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*module.parts[: -node.level], node.module or ""]).rstrip(".") if node.level else node.module
            )
            names |= {full if (full := f"{base}.{alias.name}") in NAMES else str(base) for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def is_vocabulary(name: str) -> bool:
    """Whether a module is a plain file of `cimc/`."""
    path = ROOT / name.replace(".", "/")
    return name.startswith("cimc.") and path.parent.name == "cimc" and path.with_suffix(".py").exists()


def forbidden(source: str, module: Path) -> set[str]:
    """The imports of a module that the rules do not allow."""
    if module.parts[0] == "cimc" and (len(module.parts) > 2 or module.stem in ("__init__", "__main__")):
        return set()  # the face
    own = module.parts[0] if module.parts[0] != "cimc" else None
    return {name for name in imported(source, module) if not is_vocabulary(name) and name.split(".")[0] != own}


def imports() -> nx.DiGraph:
    """Which module imports which."""
    graph = nx.DiGraph()
    for module in MODULES:
        name = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
        found = imported((ROOT / module).read_text(encoding="utf-8"), module)
        # `import cimc` is the public face: its names load the rest only when used.
        graph.add_edges_from((name, other) for other in found & NAMES if other not in (name, "cimc"))
    return graph


def room(name: str) -> str:
    """The folder of a module of the project."""
    path = ROOT / name.replace(".", "/")
    folder = path if path.is_dir() else path.parent
    return str(folder.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_imports_only_what_its_layer_may(module: Path) -> None:
    assert forbidden((ROOT / module).read_text(encoding="utf-8"), module) == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("passes/x.py", "import runtime.system.state"),
        ("passes/x.py", "from runtime import system"),
        ("passes/x.py", "def f():\n    from cimc.data.load import load"),
        ("passes/mapper/x.py", "from cimc import api"),
        ("passes/x.py", "import cimc"),
        ("runtime/x.py", "from passes.read import read_network"),
        ("runtime/system/x.py", "from cimc.report.page import report"),
        ("cimc/dataset.py", "import runtime"),
        ("cimc/mapping.py", "from passes.read import read_network"),
        ("cimc/chip.py", "from .api.train import train"),
        ("cimc/chip.py", "from . import commands"),
    ],
)
def test_the_rule_sees_a_forbidden_import(module: str, source: str) -> None:
    assert forbidden(source, Path(module))


def test_no_module_is_imported_in_a_circle() -> None:
    assert sorted(nx.simple_cycles(imports())) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_is_imported_in_a_circle(package: str) -> None:
    rooms = nx.DiGraph()
    for one, other in imports().edges:
        start, end = room(one), room(other)
        if start.startswith(f"{package}/") and end.startswith(f"{package}/") and start != end:
            rooms.add_edge(start, end)
    assert sorted(nx.simple_cycles(rooms)) == []


def test_scan_found_modules_of_every_package_and_imports_between_them() -> None:
    assert {module.parts[0] for module in MODULES} == set(PACKAGES)
    assert len({room(name) for name in NAMES}) > 10
    assert imports().has_edge("cimc.api.compile", "passes.pipeline")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_fits_on_400_lines(module: Path) -> None:
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_compiler_needs_no_runtime_unless_it_measures() -> None:
    code = "import cimc, sys; cimc.compile('models/lenet1.onnx', 'brram-256x64'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "passes" in loaded
    assert loaded.isdisjoint({"jax", "runtime"})


def test_command_line_starts_without_heavy_modules() -> None:
    code = "import sys, cimc.commands.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "cimc.commands.main" in loaded
    assert loaded.isdisjoint(HEAVY)
