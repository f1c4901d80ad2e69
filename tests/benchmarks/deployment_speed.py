"""How long many virtual chips take: LeNet-5 as it is in `models/`, all MNIST test images, and the memory they take.

    python -m tests.benchmarks.deployment_speed --data-dir DIR [--chip brram-256x64] [--dies 100 1000] [--images 10000]

The weights are not trained, which no time depends on. A first, short deployment compiles all programs and is not timed.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cimc
from tests.benchmarks.runs import MODELS, first_images


def main() -> None:
    """Measure each number of dies, in this order: the memory is the most that was taken up to there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--chip", default="brram-256x64")
    parser.add_argument("--dies", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    data = first_images("mnist", options.data_dir, options.images)
    with tempfile.TemporaryDirectory() as folder:
        compiled, package = Path(folder) / "lenet5.cim", Path(folder) / "package"
        cimc.compile(MODELS / "lenet5.onnx", options.chip, output=compiled, verify=False)
        cimc.export(compiled, output=package, data=data)
        cimc.deploy(package, data, chips=8)
        print("| dies x images | wall s | CPU s | dies x images / CPU s | most memory MB |")
        print("|---|---|---|---|---|")
        for dies in options.dies:
            wall, cpu = time.perf_counter(), time.process_time()
            cimc.deploy(package, data, chips=dies)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            done = dies * len(data.test)
            print(
                f"| {dies} x {len(data.test)} | {wall:.0f} | {cpu:.0f} | {done / cpu:.0f} | {memory:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
