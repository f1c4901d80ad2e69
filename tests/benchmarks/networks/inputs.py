"""Make the inputs of a network of the list: `python -m tests.benchmarks.networks.inputs WORK NAME FILE.npz`.

One array a network input, by its name, samples along the first axis; drawn from a seed, so the same each time.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from tests.benchmarks.networks.listed import Network, Work, read_list
from tests.benchmarks.networks.packages import PHOTOS
from tests.benchmarks.networks.source import Inputs, Source


def make(network: Network, work: Work) -> Inputs:
    """The inputs of one network by its maker, such as `pictures.photos`."""
    arguments = dict(network.inputs)
    module, function = arguments.pop("maker").split(".")
    photos = [work.packages / package for package in PHOTOS]
    source = Source(work.package(network), photos, network.count, np.random.default_rng(0))
    inputs: Inputs = getattr(importlib.import_module(f"tests.benchmarks.networks.{module}"), function)(
        source, **arguments
    )
    return inputs


def main() -> None:
    """Write the file; print the least and greatest value of float inputs as JSON."""
    folder, name, file = sys.argv[1:]
    network = read_list([name])[0]
    inputs = make(network, Work(Path(folder)))
    np.savez(file, **inputs)  # type: ignore[arg-type]
    extremes = [(float(array.min()), float(array.max())) for array in inputs.values() if array.dtype == np.float32]
    low, high = min((low for low, _ in extremes), default=0.0), max((high for _, high in extremes), default=1.0)
    print(json.dumps({"low": min(low, 0.0), "high": high}))


if __name__ == "__main__":
    main()
