"""cimc: from an ONNX network to trained conductances on a compute-in-memory chip.

One function a command. Paths are `str` or `Path`; a chip is a name, a path or a `Chip` in memory. Files are written
only where an output is named; each step takes the result of the last one as it is, or its file:

    import cimc

    data = cimc.load_data("digits")
    compiled = cimc.compile("model.onnx", "brram-256x64", output="model.cim")
    options = cimc.TrainingOptions(epochs=2, lr=0.02, schedule=cimc.RateSchedule.plateau)
    trained = cimc.train(compiled, data, options=options, output="trained.cim")
    package = cimc.export(trained, "hermes", output="package")
    chips = cimc.deploy(package, data, chips=5)
    print(trained.figures["accuracy"], chips.accuracies.mean(), chips.yield_fraction)

The names are loaded on first use, so that `import cimc` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cimc.version import __version__

if TYPE_CHECKING:
    from cimc.api.compile import Compiled, compile, compile_model
    from cimc.api.deploy import deploy
    from cimc.api.evaluate import Evaluation, evaluate
    from cimc.api.example_model import example_model
    from cimc.api.explain import explain
    from cimc.api.export import export
    from cimc.api.fit_device import FittedDevice, fit_device
    from cimc.api.from_torch import from_torch
    from cimc.api.measure import Measured, measure
    from cimc.api.plot_device import plot_device
    from cimc.api.plot_sweep import plot_sweep
    from cimc.api.plots import plot_deployment, plot_layers, plot_training
    from cimc.api.sweep import sweep
    from cimc.api.to_torch_state import to_torch_state
    from cimc.api.train import Trained, train
    from cimc.api.tune import tune
    from cimc.api.verify import verify
    from cimc.api.weights import weights
    from cimc.artifact import Artifact, read_artifact, write_artifact
    from cimc.chip import Chip, load_chip
    from cimc.data.load import load as load_data
    from cimc.dataset import Dataset, Preprocess, Samples
    from cimc.device_file import DeviceFile, load_device
    from cimc.errors import CimcError
    from cimc.mapping import Mapping
    from cimc.options import (
        Augment,
        Backward,
        Constraint,
        DiePlacement,
        Gradient,
        Keep,
        Loss,
        Optimizer,
        RateSchedule,
        Residual,
        RowSplit,
        ShareWeights,
        Sync,
        Weights,
        Write,
    )
    from cimc.package import Package, read_package, write_package
    from cimc.sweep_result import SweepResult, read_sweep
    from runtime.deployment.result import Deployment
    from runtime.training.frank_wolfe import FrankWolfe
    from runtime.training.options import Policy, TrainingOptions

# Name -> its module, and its name there if that is another. The imports above are the same for type checkers.
_PUBLIC = {
    "Artifact": "cimc.artifact",
    "Augment": "cimc.options",
    "Backward": "cimc.options",
    "Chip": "cimc.chip",
    "CimcError": "cimc.errors",
    "Compiled": "cimc.api.compile",
    "Constraint": "cimc.options",
    "Dataset": "cimc.dataset",
    "Deployment": "runtime.deployment.result",
    "DeviceFile": "cimc.device_file",
    "DiePlacement": "cimc.options",
    "Evaluation": "cimc.api.evaluate",
    "FittedDevice": "cimc.api.fit_device",
    "FrankWolfe": "runtime.training.frank_wolfe",
    "Gradient": "cimc.options",
    "Keep": "cimc.options",
    "Loss": "cimc.options",
    "Mapping": "cimc.mapping",
    "Measured": "cimc.api.measure",
    "Optimizer": "cimc.options",
    "Package": "cimc.package",
    "Policy": "runtime.training.options",
    "Preprocess": "cimc.dataset",
    "RateSchedule": "cimc.options",
    "Residual": "cimc.options",
    "RowSplit": "cimc.options",
    "Samples": "cimc.dataset",
    "ShareWeights": "cimc.options",
    "SweepResult": "cimc.sweep_result",
    "Sync": "cimc.options",
    "Trained": "cimc.api.train",
    "TrainingOptions": "runtime.training.options",
    "Weights": "cimc.options",
    "Write": "cimc.options",
    "compile": "cimc.api.compile",
    "compile_model": "cimc.api.compile",
    "deploy": "cimc.api.deploy",
    "evaluate": "cimc.api.evaluate",
    "example_model": "cimc.api.example_model",
    "explain": "cimc.api.explain",
    "export": "cimc.api.export",
    "fit_device": "cimc.api.fit_device",
    "from_torch": "cimc.api.from_torch",
    "load_chip": "cimc.chip",
    "load_data": "cimc.data.load:load",
    "load_device": "cimc.device_file",
    "measure": "cimc.api.measure",
    "plot_deployment": "cimc.api.plots",
    "plot_device": "cimc.api.plot_device",
    "plot_layers": "cimc.api.plots",
    "plot_sweep": "cimc.api.plot_sweep",
    "plot_training": "cimc.api.plots",
    "read_artifact": "cimc.artifact",
    "read_package": "cimc.package",
    "read_sweep": "cimc.sweep_result",
    "sweep": "cimc.api.sweep",
    "to_torch_state": "cimc.api.to_torch_state",
    "train": "cimc.api.train",
    "tune": "cimc.api.tune",
    "verify": "cimc.api.verify",
    "weights": "cimc.api.weights",
    "write_artifact": "cimc.artifact",
    "write_package": "cimc.package",
}

__all__ = [
    "Artifact",
    "Augment",
    "Backward",
    "Chip",
    "CimcError",
    "Compiled",
    "Constraint",
    "Dataset",
    "Deployment",
    "DeviceFile",
    "DiePlacement",
    "Evaluation",
    "FittedDevice",
    "FrankWolfe",
    "Gradient",
    "Keep",
    "Loss",
    "Mapping",
    "Measured",
    "Optimizer",
    "Package",
    "Policy",
    "Preprocess",
    "RateSchedule",
    "Residual",
    "RowSplit",
    "Samples",
    "ShareWeights",
    "SweepResult",
    "Sync",
    "Trained",
    "TrainingOptions",
    "Weights",
    "Write",
    "__version__",
    "compile",
    "compile_model",
    "deploy",
    "evaluate",
    "example_model",
    "explain",
    "export",
    "fit_device",
    "from_torch",
    "load_chip",
    "load_data",
    "load_device",
    "measure",
    "plot_deployment",
    "plot_device",
    "plot_layers",
    "plot_sweep",
    "plot_training",
    "read_artifact",
    "read_package",
    "read_sweep",
    "sweep",
    "to_torch_state",
    "train",
    "tune",
    "verify",
    "weights",
    "write_artifact",
    "write_package",
]


if not TYPE_CHECKING:  # for a type checker any name would be there

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'cimc' has no attribute {name!r}")
        module, _, attribute = _PUBLIC[name].partition(":")
        return getattr(import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
