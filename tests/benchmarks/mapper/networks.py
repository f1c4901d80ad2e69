"""The networks of configurations A to D by name, and as files.

    python -m tests.benchmarks.mapper.networks resnet18 vgg16 --out DIR

A: PIMCOMP-NN (128x128 logical arrays). B: MARP (256x256). C: CIM-AQ (one rewritten 256x256). D: ZigZag (128x128).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import onnx

from tests.benchmarks.mapper.builder import write
from tests.benchmarks.mapper.imagenet import IMAGENET
from tests.benchmarks.mapper.tiny import TINY

NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = IMAGENET | TINY
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "A": (
        "squeezenet",
        "resnet18",
        "resnet34",
        "resnet50",
        "googlenet",
        "inception_v3",
        "mobilenetv2",
        "shufflenet",
        "alexnet",
        "vgg16",
    ),
    "B": ("autoencoder", "ds_cnn", "resnet8", "mobilenetv2_cifar"),
    "C": ("resnet18", "vgg16", "vit_b_32"),
    "D": ("resnet18",),
}


def network(name: str) -> onnx.ModelProto:
    """The network of that name, its weights as ConstantOfShape nodes (some kilobytes, whatever the size).

    Raises:
        KeyError: there is no such network.
    """
    return NETWORKS[name]()


def main() -> None:
    """Write the named networks with seeded weights as external data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(NETWORKS), metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        path = options.out / f"{name}.onnx"
        print(f"{path}  {write(network(name), path) / 1e6:.2f} M weights")


if __name__ == "__main__":
    main()
