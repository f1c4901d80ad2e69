"""The import rules: passes and runtime meet only in the vocabulary of cimc, and --help loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cimc", "passes", "runtime")
MODULES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
VOCABULARY = {"chip", "mapping", "schedule", "artifact", "errors", "operators", "program", "units", "files"}
MAY_IMPORT = {"passes": VOCABULARY, "runtime": VOCABULARY | {"data"}}
OTHER = {"passes": "runtime", "runtime": "passes"}
TOP = {
    "__main__",
    "api",
    "checkpoint",
    "compiler",
    "cli",
    "quickstart",
    "views",
    "plots",
    "explain",
    "report",
    "training_figures",
}
HEAVY = ("jax", "onnx", "onnx_ir", "onnxruntime", "numpy", "matplotlib")
LONGEST_MODULE = 400


def imported(source: str, package: str) -> set[str]:
    """Full names of all modules (or of names in modules) that the source of a module in `package` imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = f"{package}.{base}".rstrip(".")
            names |= {f"{base}.{alias.name}" if base in PACKAGES else base for alias in node.names}
    return names


def forbidden(source: str, module: Path) -> set[str]:
    """The imports of a module that the rules do not allow."""
    package = module.parts[0]
    wrong = set()
    for name in imported(source, package):
        root, _, rest = name.partition(".")
        first = rest.split(".")[0]
        if package in MAY_IMPORT:
            is_wrong = root == OTHER[package] or (root == "cimc" and first not in MAY_IMPORT[package])
        else:
            is_wrong = module.stem not in TOP and (root in MAY_IMPORT or (root == "cimc" and first in TOP))
        if is_wrong:
            wrong.add(name)
    return wrong


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_imports_only_what_its_layer_may(module):
    assert forbidden((ROOT / module).read_text(encoding="utf-8"), module) == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("passes/x.py", "import runtime.state"),
        ("passes/x.py", "from runtime import state"),
        ("passes/x.py", "def f():\n    from cimc.data import load"),
        ("passes/x.py", "from cimc import api"),
        ("passes/x.py", "import cimc"),
        ("runtime/x.py", "from passes.read import read_network"),
        ("runtime/x.py", "from cimc.package import Package"),
        ("cimc/data.py", "import runtime"),
        ("cimc/mapping.py", "from passes.read import read_network"),
        ("cimc/chip.py", "from .api import train"),
        ("cimc/chip.py", "from . import views"),
    ],
)
def test_the_rule_sees_a_forbidden_import(module, source):
    assert forbidden(source, Path(module))


def test_scan_found_modules_of_every_package():
    assert {module.parts[0] for module in MODULES} == set(PACKAGES)
    assert {module.stem for module in MODULES if module.parts[0] == "cimc"} >= TOP


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_fits_on_400_lines(module):
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_compiler_needs_no_runtime():
    source = (ROOT / "cimc" / "compiler.py").read_text(encoding="utf-8")
    assert not [name for name in imported(source, "cimc") if name.split(".")[0] in ("runtime", "jax")]


def test_command_line_starts_without_heavy_modules():
    code = "import sys, cimc.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "cimc.cli" in loaded
    assert loaded.isdisjoint(HEAVY)
