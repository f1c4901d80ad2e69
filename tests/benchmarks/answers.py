"""What keeps a trained network's answers on a chip: each step from one scale a layer to repeated rows, in one table.

    python -m tests.benchmarks.answers [NAME ...] [--work DIR] [--chip CHIP] [--fill 0,64] [--samples N]

For networks of `tests.benchmarks.networks`, compiled and with their inputs in its folder: agreement with the network in
float32, by its SNR and by what its outputs decide (`tests.benchmarks.decisions`), of the package's `model.onnx`, its
scales fitted without noise (`export --no-noise`), and of one virtual chip with all noise, its scales fitted with it; on
all inputs, of which 32 set the scales. The median SNR of the layers by themselves without noise; arrays, time and
energy. The first row of a network is one weight range a layer and nothing but an input range fitted, as exported before
the scales were.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import cimc
from cimc.api.sources import chip_of
from cimc.dataset import Dataset
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.repeat_rows import repeat_rows
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.programming import program_chip
from runtime.network.load import load_network
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.inference import batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.inputs import match_data
from runtime.system.layer_errors import layer_errors
from runtime.system.measures import agreement
from runtime.system.program import retarget
from runtime.system.state import RangeRule, State, System, build_system, initial_state, largest_weight
from runtime.system.weight_range import best_column_ranges, best_weight_range
from tests.benchmarks.decisions import DECISIONS, same_answers
from tests.benchmarks.networks.listed import Network, Work, read_list

NETWORKS = ("magika", "ocr-direction")


def rows_of(network: Network, work: Work, chip_name: str, fills: list[int], most: int) -> Iterator[list[str]]:
    """The rows of a network's table, from at most so many samples."""
    artifact = cimc.read_artifact(work.of(network, "network.cim"))
    chip, _ = chip_of(chip_name)
    data = cimc.load_data(work.of(network, "inputs.npz"))
    options = MappingOptions(input_range=artifact.mapping.input_range)
    for fill in fills:
        lowered = repeat_rows(artifact.network, {"": fill} if fill else {})
        mapping = map_network(lowered, chip, options=options)
        system = build_system(load_network(lowered), mapping, chip)
        matched = match_data(system.network, data, free_batch=False)
        matched = replace(matched, train=matched.train.take(slice(most)), test=matched.test.take(slice(most)))
        settings: list[tuple[str, RangeRule]] = [
            ("a layer", best_weight_range),
            ("a column", best_column_ranges),
            ("fitted", best_column_ranges),
        ]
        for name, rule in settings if fill == fills[0] else settings[-1:]:
            start = retarget(system, initial_state(system, weight_range=largest_weight), weight_range=rule)
            exact = exact_parameters(system, start)
            samples = matched.train.take(calibration_index(0, len(matched.train)))
            quiet, state = (
                calibrate(system, start, samples, matched.preprocess, key, fit=name == "fitted")
                for key in (None, new_key(0))
            )
            held = {**state, "conductance": program_chip(system, state, new_key(1))}
            own = [
                error.figures["own_snr_db"] for error in layer_errors(system, quiet, samples, matched.preprocess, None)
            ]
            cost = mapping.cost
            yield [
                network.name,
                name + (f", {fill} rows filled" if fill else ""),
                _agreement(network.name, system, quiet, matched, exact, None),
                _agreement(network.name, system, held, matched, exact, new_key(2)),
                f"{statistics.median(one for one in own if isinstance(one, float)):.1f}",
                str(cost.crossbars),
                f"{cost.latency_ms:.3g}",
                f"{cost.energy_mj:.3g}",
            ]


def _agreement(name: str, system: System, state: State, data: Dataset, exact: Any, key: jax.Array | None) -> str:
    """Of the first output: its SNR in dB, and how alike it decides."""
    outputs, wanted = [], []
    for batch in batches(system.network, data.test, data.preprocess):
        wanted.append(next(iter(outputs_exactly(system.network, exact, batch).values())))
        outputs.append(next(iter(outputs_on_arrays(system, state, batch, key).values())))
    both = np.concatenate([*map(np.atleast_1d, outputs)]), np.concatenate([*map(np.atleast_1d, wanted)])
    return f"{agreement(*both)['snr_db']:.1f} dB, {DECISIONS.get(name, same_answers)(*both)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NETWORKS, metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cimc-networks")
    parser.add_argument("--chip", default="brram-256x64")
    parser.add_argument("--fill", default="0,64", help="word lines filled, 0: none; comma-separated")
    parser.add_argument("--samples", type=int, default=100, help="at most so many")
    given = parser.parse_args()
    use_compilation_cache()
    fills = [int(fill) for fill in given.fill.split(",")]
    head = ["network", "scales", "no noise", "all noise", "layers, dB", "arrays", "ms", "mJ"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for network in read_list(list(given.names)):
        for row in rows_of(network, Work(given.work), given.chip, fills, given.samples):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
