"""The mapper's figures beside those of its peers: configurations A to D, and Table 2 with copies.

    python -m tests.benchmarks.mapper [A B C D table2] [--json]

Every network of A is mapped in a process of its own, so that processor time and peak memory are its own. The peers'
figures are those of `peers.py`, with their source.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from cimc.chip import Chip, load_chip
from models.build import NETWORKS as MODELS
from passes.mapper.layers import layers_of
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.mapper.pack import area_bound
from passes.pipeline import lower
from tests.benchmarks.mapper import peers
from tests.benchmarks.mapper.networks import CONFIGURATIONS, network

Rows = list[dict[str, Any]]


def _lowered(name: str) -> ir.Model:
    return lower(ir.from_proto(network(name)))


def configuration_a(names: tuple[str, ...] = CONFIGURATIONS["A"]) -> Rows:
    """PIMCOMP's configuration: one copy, interval and latency, at both MVM latencies."""
    rows = []
    for name in names:
        command = [sys.executable, "-m", "tests.benchmarks.mapper", "--one", name]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return rows


def one_of_a(name: str) -> dict[str, Any]:
    """One network of configuration A: figures of all modes, processor time of each, peak memory of all."""
    started = time.process_time()
    model = _lowered(name)
    lowering = time.process_time() - started
    row: dict[str, Any] = {"network": name, "one copy": map_network(model, load_chip("pimcomp-a")).arrays}
    row["one copy, peer"] = peers.PIMCOMP[name].arrays
    for mvm, chip in (("4000", "pimcomp-a"), ("800", "pimcomp-a-800")):
        for objective in ("interval", "latency"):
            started = time.process_time()
            mapping = map_network(model, load_chip(chip), options=MappingOptions(objective=objective))
            assert mapping.result is not None
            row[f"{objective} us, {mvm} ns"] = round(mapping.result.value * 1e3, 1)
            row[f"bound us of {objective}, {mvm} ns"] = round(mapping.result.bound * 1e3, 1)
            row[f"CPU s of {objective}, {mvm} ns"] = round(time.process_time() - started + lowering, 2)
    peer = peers.PIMCOMP[name]
    row |= {"interval us, peer": peer.interval_us, "latency us, peer": peer.latency_us}
    row |= {"CPU s, peer": peer.cpu_s, "RSS MB, peer": peer.rss_mb}
    row["RSS MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return row


def configuration_b() -> Rows:
    """The packing bench."""
    chip = load_chip("packing-256")
    rows = []
    for name in CONFIGURATIONS["B"]:
        model = _lowered(name)
        packed = map_network(model, chip, options=MappingOptions(objective="arrays"))
        row = {"network": name, "one layer an array": map_network(model, chip).arrays, "packed": packed.arrays}
        bound = area_bound(layers_of(model, chip, (0.0, 1.0)), chip)
        assert packed.schedule is not None
        rows.append(
            {
                **row,
                "area bound": bound,
                "peer": peers.MARP[name],
                "reads of the busiest array": round(packed.schedule.limits[0].busy_ns / (chip.cost.mvm_us * 1e3)),
            }
        )
    return rows


def configuration_c() -> Rows:
    """One rewritten crossbar, beside the same network with its weights resident on as many arrays as it takes."""
    chip = load_chip("cimaq-256")
    coarse = chip.model_copy(update={"weights": chip.weights.model_copy(update={"bits_per_cell": 2})})
    rows = []
    for name, cells in (*((name, 4) for name in CONFIGURATIONS["C"]), ("resnet18", 2)):
        used = chip if cells == 4 else coarse
        model = _lowered(name)
        rewritten, resident = (
            map_network(model, used, options=MappingOptions(objective="latency")),
            map_network(model, used),
        )
        assert resident.schedule is not None
        products = attention_ms(model, used)
        row = {"network": name, "cell bits": cells, "segments": len(rewritten.segments)}
        row["weights ms"] = round(rewritten.cost.latency_ms, 1)
        row["of it programming ms"] = round(rewritten.cost.reprogramming_ms, 1)
        row["products of values ms"] = round(products, 1)
        row["all ms"] = round(rewritten.cost.latency_ms + products, 1)
        row["peer ms"] = peers.CIM_AQ[name, cells]
        row["resident: arrays"] = resident.arrays
        row["resident: ms, layer by layer"] = round(resident.cost.latency_ms, 1)
        row["resident: ms, row-pipelined"] = round(resident.schedule.latency_ns * 1e-6, 2)
        rows.append(row)
    return rows


def attention_ms(model: ir.Model, chip: Chip) -> float:
    """Products of two values on the one crossbar, as the peer counts them: the second is written for every head.

    The mapper leaves them to the vector unit: programming cells for every image wears them out.
    """
    total = 0.0
    for node in model.graph:
        if node.op_type != "MatMul" or any(value is None or value.is_initializer() for value in node.inputs):
            continue
        left, right = ([s if isinstance(s, int) else 1 for s in v.shape or ()] for v in node.inputs if v is not None)
        heads = 1
        for extent in left[:-2]:
            heads *= extent
        tiles = -(-right[-2] // chip.weight_rows) * -(-right[-1] // chip.weight_columns)
        write_ms = chip.array.rows * (chip.cost.row_write_us or 0.0) * 1e-3
        total += heads * tiles * (write_ms + left[-2] * chip.cost.mvm_us * 1e-3)
    return total


def configuration_d() -> Rows:
    """ZigZag's analog preset: one array, weights from DRAM for every part of the network."""
    chip = load_chip("aimc-128")
    mapping = map_network(_lowered("resnet18"), chip, options=MappingOptions(objective="latency"))
    cost = mapping.cost
    cycle_us = chip.cost.mvm_us / 4
    parts = {part.name: part for part in cost.components}
    arrays_pj = sum((parts[name].energy_mj or 0.0) for name in ("ADC", "DAC", "array", "shift-add")) * 1e9
    weights_pj = (parts["reprogramming"].energy_mj or 0.0) * 1e9
    moved_pj = sum((parts[name].energy_mj or 0.0) for name in ("local memory", "shared memory")) * 1e9
    area = {name: (part.area_mm2 or 0.0) / cost.crossbars for name, part in parts.items()}
    return [
        {"figure": "area mm2", "here": round(sum(area.values()), 4), "peer": peers.ZIGZAG.area_mm2},
        {"figure": "energy pJ", "here": f"{arrays_pj + weights_pj + moved_pj:.4g}", "peer": peers.ZIGZAG.energy_pj},
        {"figure": "  arrays", "here": f"{arrays_pj:.4g}", "peer": "not given apart"},
        {"figure": "  weights from DRAM", "here": f"{weights_pj:.4g}", "peer": "not given apart"},
        {"figure": "  activations", "here": f"{moved_pj:.4g}", "peer": "not given apart"},
        {"figure": "cycles", "here": round(cost.latency_ms * 1e3 / cycle_us), "peer": peers.ZIGZAG.cycles},
        {"figure": "  MVMs", "here": cost.tile_ops * 4, "peer": "not given apart"},
        {"figure": "  weights from DRAM", "here": round(cost.reprogramming_ms * 1e3 / cycle_us), "peer": ""},
    ]


def table_2() -> Rows:
    """Table 2 with copies: the table's arrays, and those that its speed-up takes when columns are checked."""
    rows = []
    for name, chip, table, checked in (
        ("lenet1", "brram-soc", 9, 9),
        ("vgg8", "brram-256x64", 85, 87),
        ("resnet18", "brram-256x64", 1554, 1558),
    ):
        model = lower(ir.from_proto(MODELS[name]()))
        plain = map_network(model, load_chip(chip))
        for arrays in dict.fromkeys((table, checked)):
            mapping = map_network(model, load_chip(chip), options=MappingOptions(objective="interval", arrays=arrays))
            assert mapping.result is not None
            row = {"network": name, "one copy": plain.arrays, "budget": arrays, "arrays": mapping.arrays}
            row["interval ms"] = round(mapping.result.value, 4)
            row["bound ms"] = round(mapping.result.bound, 4)
            row["table ms"] = peers.TABLE_2[name]
            rows.append(row)
    return rows


TABLES: dict[str, Callable[[], Rows]] = {
    "A": configuration_a,
    "B": configuration_b,
    "C": configuration_c,
    "D": configuration_d,
    "table2": table_2,
}


def main() -> None:
    """Print the tables that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--one", metavar="NETWORK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_of_a(options.one)))
        return
    results = {name: TABLES[name]() for name in options.tables or TABLES}
    if options.json:
        print(json.dumps(results))
        return
    for name, rows in results.items():
        print(f"\n## {name}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
        for row in rows:
            print("| " + " | ".join("" if value is None else str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()
