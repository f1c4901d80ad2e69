"""cimc: from an ONNX network to trained conductances on a compute-in-memory chip.

The public names are loaded on first use, so that `import cimc` costs nothing:

    import cimc
    cimc.compile_model("model.onnx", "brram-256x64", "model.cim")
    run, figures = cimc.train("model.cim", cimc.load_data("mnist"), cimc.TrainingOptions(), "trained.cim")
"""

from importlib import import_module
from typing import Any

from cimc.version import __version__

_PUBLIC = {
    "Chip": "cimc.chip",
    "CimcError": "cimc.errors",
    "Mapping": "cimc.mapping",
    "Policy": "runtime.training.options",
    "TrainingOptions": "runtime.training.options",
    "compile_model": "cimc.api.compile",
    "deploy": "cimc.api.deploy",
    "evaluate": "cimc.api.evaluate",
    "export": "cimc.api.export",
    "load_chip": "cimc.chip",
    "load_data": "cimc.data.load:load",
    "read_artifact": "cimc.artifact",
    "read_package": "cimc.package",
    "train": "cimc.api.train",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cimc' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute or name)
