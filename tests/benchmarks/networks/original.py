"""An ONNX file in onnxruntime, sample by sample, in a process of its own.

python -m tests.benchmarks.networks.original MODEL INPUTS.npz OUTPUTS.npz [NAME=INTEGER ...]
"""

import sys

import numpy as np
import onnxruntime
from numpy.typing import NDArray


def run(
    model: str, inputs: dict[str, NDArray[np.generic]], constants: dict[str, int]
) -> dict[str, NDArray[np.generic]]:
    """The outputs by name, [samples, ...].

    An array of `inputs` with the input's own number of axes holds the samples along the first; one more: each sample
    is a whole input.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    axes = {value.name: len(value.shape) for value in session.get_inputs()}
    fixed = {name: np.asarray(value, np.int64) for name, value in constants.items() if name in axes}
    names = [value.name for value in session.get_outputs()]
    found: dict[str, list[NDArray[np.generic]]] = {name: [] for name in names}
    for index in range(len(next(iter(inputs.values())))):
        sample = {
            name: array[index] if array.ndim > axes[name] else array[index : index + 1]
            for name, array in inputs.items()
            if name in axes
        }
        for name, value in zip(names, session.run(None, {**sample, **fixed}), strict=True):
            found[name].append(value)
    return {name: np.stack(values) for name, values in found.items()}


def main() -> None:
    """Run and write."""
    model, inputs, outputs, *constants = sys.argv[1:]
    with np.load(inputs) as arrays:
        samples = {name: arrays[name] for name in arrays.files}
    settings = {name: int(value) for name, value in (text.split("=") for text in constants)}
    np.savez(outputs, **run(model, samples, settings))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
