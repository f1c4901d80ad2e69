"""The simulator beside the schedule, on the networks of all configurations and the shipped ones: one table.

    python -m tests.benchmarks.mapper.simulation [--configurations A B C D T] [--networks NAME ...] [--images 16]

T: the shipped networks with the arrays of Table 2 (arXiv 2305.14547). A line names what explains a difference of more
than 5 %; a difference that nothing explains is marked with `!`.
"""

import argparse
import time

import onnx_ir as ir

from cimc.chip import load_chip
from models.build import NETWORKS as SHIPPED
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.simulator.simulate import IMAGES, Comparison, compare
from tests.benchmarks.mapper.networks import CONFIGURATIONS, network

CHIPS = {"A": ("pimcomp-a",), "B": ("packing-256",), "C": ("isaac",), "D": ("isaac",)}
TABLE_2 = (("lenet1", "brram-soc", 9), ("vgg8", "brram-256x64", 87), ("resnet18", "brram-256x64", 1558))
OBJECTIVES = ("interval", "latency", "arrays")


def cases(configurations: list[str]) -> list[tuple[str, object, str, dict[str, object]]]:
    """(network, builder, chip, options of the mapper)."""
    found: list[tuple[str, object, str, dict[str, object]]] = []
    for letter in configurations:
        if letter == "T":
            found += [
                (name, SHIPPED[name], chip, {"objective": objective, "arrays": arrays})
                for name, chip, arrays in TABLE_2
                for objective in ("interval", "latency")
            ]
            continue
        for name in CONFIGURATIONS[letter]:
            for chip in CHIPS[letter]:
                objectives = OBJECTIVES if letter == "B" else OBJECTIVES[:2]
                found += [(name, None, chip, {"objective": objective}) for objective in objectives]
    return found


def shown(comparison: Comparison) -> str:
    """Simulated, analytic, difference, causes."""
    mark = "" if comparison.agrees else " !"
    figures = f"{comparison.simulated / 1e3:.1f} / {comparison.analytic / 1e3:.1f} | {comparison.deviation:+.1%}{mark}"
    return f"{figures} | {', '.join(comparison.causes)}"


def main() -> None:
    """Print the table in Markdown, a line as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", nargs="+", choices=[*CONFIGURATIONS, "T"], default=[*CONFIGURATIONS, "T"])
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args()
    print("| network | chip | objective | arrays | latency us: simulated / schedule | | cause |", end="")
    print(" interval us: simulated / schedule | | cause | CPU s |\n|" + "---|" * 11)
    for name, builder, chip_name, choice in cases(options.configurations):
        if options.networks and name not in options.networks:
            continue
        chip = load_chip(chip_name)
        model = lower(ir.from_proto(builder() if callable(builder) else network(name)))
        mapping = map_network(model, chip, options=MappingOptions(**choice))  # type: ignore[arg-type]
        start = f"| {name} | {chip_name} | {choice['objective']} | {mapping.arrays}"
        if len(mapping.segments) > 1:
            print(f"{start} | {len(mapping.segments)} segments, not simulated | | | | | | |", flush=True)
            continue
        before = time.process_time()
        _, (latency, interval) = compare(model, mapping, chip, images=options.images)
        seconds = time.process_time() - before
        print(f"{start} | {shown(latency)} | {shown(interval)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
