"""cimc: from an ONNX network to trained conductances on a compute-in-memory chip."""

__version__ = "0.1.0"
