"""cimc: from an ONNX network to trained conductances on a compute-in-memory chip.

The public names are loaded on first use, so that `import cimc` costs nothing:

    import cimc
    cimc.compile_model("model.onnx", "brram-256x64", "model.cim")
    run, figures = cimc.train("model.cim", cimc.load_data("mnist"), cimc.TrainingOptions(), "trained.cim")
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Chip": "cimc.chip",
    "CimcError": "cimc.errors",
    "Mapping": "cimc.mapping",
    "Policy": "runtime.update",
    "TrainingOptions": "runtime.options",
    "compile_model": "cimc.compiler",
    "deploy": "cimc.api",
    "evaluate": "cimc.api",
    "export": "cimc.api",
    "load_chip": "cimc.chip",
    "load_data": "cimc.data:load",
    "read_artifact": "cimc.artifact",
    "read_package": "cimc.package",
    "train": "cimc.api",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cimc' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute or name)
