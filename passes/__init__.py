"""ONNX network in, mapped network out: one pass a file, in order in `passes.pipeline`; then `passes.mapper`."""
