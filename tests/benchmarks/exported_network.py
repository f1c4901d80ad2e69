"""An exported package's `model.onnx` in plain onnxruntime against the runtime's noise-free prediction.

    python -m tests.benchmarks.exported_network PACKAGE --data mnist --data-dir DIR

Prints on how many test images both predict the same class, and the largest difference of a logit.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

from cimc.data.load import load
from cimc.package import read_package
from runtime.network.load import load_network
from runtime.system.inference import predict
from runtime.system.inputs import match_data
from runtime.system.program import programmed_state
from runtime.system.state import build_system


def main() -> None:
    """Run both on the whole test set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    package, data = read_package(options.package), load(options.data, options.data_dir)
    system = build_system(load_network(package.network), package.mapping, package.chip)
    samples = match_data(system.network, data).test
    state = programmed_state(system, package.program)
    (runtime,) = predict(system, state, samples, data.preprocess).values()
    session = onnxruntime.InferenceSession(str(options.package / "model.onnx"), providers=["CPUExecutionProvider"])
    ((name, images),) = samples.inputs.items()
    pixels = data.preprocess.apply(images)
    exported = np.concatenate([session.run(None, {name: pixels[i : i + 500]})[0] for i in range(0, len(pixels), 500)])
    same = int(np.sum(np.argmax(runtime, axis=1) == np.argmax(exported, axis=1)))
    print(f"same class on {same} of {len(images)} images; largest difference {np.abs(runtime - exported).max():.3g}")


if __name__ == "__main__":
    main()
