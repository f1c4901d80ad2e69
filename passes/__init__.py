"""ONNX network in, mapped network out: one pass a file, listed in order in `passes.pipeline`."""
