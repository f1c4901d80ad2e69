"""The network that the package brings along."""

from importlib import resources
from pathlib import Path

MODEL = "lenet1.onnx"


def example_model() -> Path:
    """The ONNX file of LeNet-1, untrained, for images [N, 1, 28, 28] of ten classes."""
    installed = Path(str(resources.files("cimc"))) / "models" / MODEL
    return installed if installed.exists() else Path(__file__).parents[2] / "models" / MODEL
