"""Seeded mutations of every other file that is read: chips, devices, packages, `.cim`, data, measurements, sweeps.

Values are changed where they stand in the structure, under digests made anew, so that most cases pass the first checks.
"""

import gzip
import hashlib
import io
import json
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from cimc.api.compile import compile_model
from cimc.api.verify import verify
from cimc.artifact import read_artifact
from cimc.chip import Chip, chip_names, chip_text, parse_chip
from cimc.commands.mapping_table import figures
from cimc.data.load import load
from cimc.data.measured import read_measurements
from cimc.device_file import device_names, device_text, parse_device
from cimc.fault_map import read_fault_map, read_measured
from cimc.mapping import Mapping
from cimc.mapping_file import parse_mapping
from cimc.package import SEAL, Package, read_package, write_package
from cimc.program import LayerProgram, Program
from cimc.report.package_page import package_report
from cimc.report.page import report
from cimc.report.sweep import sweep_report
from cimc.sweep_result import read_sweep
from cimc.sweep_results import Results, Row
from cimc.sweep_spec import make_spec, read_toml
from cimc.units import device_targets
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from tests.changed_values import NUMBERS, change_tree, changed_json, changed_table, changed_toml
from tests.mutations import FLOATS, STRINGS, changed_bytes, networks
from tests.sealing import members_of, redigested, sealed

CHIP = "brram-256x64"


Case = tuple[str, Callable[[], object]]  # what was done, and what reads the file


@dataclass(frozen=True)
class Good:
    """Valid files, made once."""

    lowered: ir.Model
    chip: Chip
    mapping: Mapping
    artifact: bytes
    package: dict[str, bytes]
    data: bytes


def make_good(folder: Path) -> Good:
    """The valid files that the cases mutate."""
    path = folder / "net.onnx"
    onnx.save(networks()["convolution"], path)
    compile_model(path, CHIP, output=folder / "good.cim", verify=False)
    chip, lowered = parse_chip(chip_text(CHIP), CHIP), lower(read_network(path))
    mapping = map_network(lowered, chip)
    layers = {}
    for layer in mapping.layers:
        weight = np.random.default_rng(0).uniform(-0.3, 0.3, (layer.rows, layer.columns)).astype(np.float32)
        one = np.float32(1)
        layers[layer.name] = LayerProgram(device_targets(weight, one, chip), one, one, one, bias=None)
    program = Program(layers, {})
    given, shown = (
        ir.to_proto(model).SerializeToString() for model in (lowered, chip_network(lowered, mapping, chip, program))
    )
    write_package(
        folder / "package", Package("net", chip, chip_text(CHIP), mapping, program, given, shown, {"trained_on": CHIP})
    )
    file = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 4, 4), np.uint8)
    labels = np.arange(12) % 3
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    package = {
        one.relative_to(folder / "package").as_posix(): one.read_bytes()
        for one in (folder / "package").rglob("*")
        if one.is_file()
    }
    return Good(lowered, chip, mapping, (folder / "good.cim").read_bytes(), package, file.getvalue())


def _chip(random: Random, folder: Path, good: Good) -> Case:
    """A chip, with a network mapped on it, and the mapping read again."""
    name = random.choice(chip_names())
    text, what = changed_toml(chip_text(name), random)

    def use() -> None:
        mapping = map_network(good.lowered, parse_chip(text, "chip.toml"))
        assert parse_mapping(mapping.model_dump_json(), "out.cim") == mapping

    return f"{name}: {what}", use


def _device(random: Random, folder: Path, good: Good) -> Case:
    name = random.choice(device_names())
    text, what = changed_toml(device_text(name), random)
    return f"{name}: {what}", lambda: parse_device(text, "device.toml")


def _artifact(random: Random, folder: Path, good: Good) -> Case:
    """A `.cim` file, what `inspect` says of it, and its page."""
    members, path = members_of(good.artifact), folder / "changed.cim"
    name = random.choice([name for name in sorted(members) if name.endswith(".json") or random.random() < 0.3])
    data, what = (changed_json if name.endswith(".json") else changed_bytes)(members[name], random)
    changed = {**members, name: data} if name == "manifest.json" else redigested(good.artifact, name, data)
    path.write_bytes(sealed(changed))

    def use() -> None:
        artifact = read_artifact(path)
        figures(artifact)
        report(artifact)

    return f"{name}: {what}", use


def _package(random: Random, folder: Path, good: Good) -> Case:
    """A package, and its page or what `cimc verify` says of it."""
    files = dict(good.package)
    name = random.choice([name for name in sorted(files) if name.endswith((".json", ".toml")) or random.random() < 0.5])
    if name.endswith(".toml"):
        text, what = changed_toml(files[name].decode(), random)
        files[name] = text.encode("utf-8", "replace")
    else:
        files[name], what = (changed_json if name.endswith(".json") else changed_bytes)(files[name], random)
    if name not in ("manifest.json", SEAL):
        manifest = json.loads(files["manifest.json"])
        manifest["sha256"][name] = hashlib.sha256(files[name]).hexdigest()
        files["manifest.json"] = json.dumps(manifest).encode()
    if name != SEAL:
        files[SEAL] = f"{hashlib.sha256(files['manifest.json']).hexdigest()}  manifest.json\n".encode()
    place = folder / "changed"
    for name_in_package, content in files.items():
        file = place / name_in_package
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    thorough = random.random() < 0.2
    return f"{name}: {what}", lambda: verify(place) if thorough else package_report(read_package(place))


def _arrays(random: Random, folder: Path, good: Good) -> Case:
    """Data in an NPZ: other bytes, or other arrays."""
    path = folder / "data.npz"
    if random.random() < 0.5:
        content, what = changed_bytes(good.data, random)
        path.write_bytes(content)
        return what, lambda: load(str(path))
    with np.load(io.BytesIO(good.data)) as file:
        arrays = dict(file)
    done = []
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice(sorted(arrays))
        array, action = arrays[name], random.randrange(6)
        if action == 0:
            arrays[random.choice((*STRINGS[:5], "train/x", "test/x", "labels", "train/labels"))] = arrays.pop(name)
        elif action == 1:
            arrays[name] = array[: random.randrange(len(array) + 1)] if array.ndim else array
        elif action == 2:
            kind = random.choice((np.float32, np.float64, np.complex64, np.bool_, np.int64, np.str_, "S3", "M8[s]"))
            arrays[name] = array.astype(np.int64).astype(kind)
        elif action == 3:
            arrays[name] = array.reshape(random.choice(((-1,), (1, *array.shape), (*array.shape, 1), (-1, 1))))
        elif action == 4:
            with np.errstate(all="ignore"):
                arrays[name] = array.astype(np.float64) * random.choice(FLOATS)
        else:
            arrays[name] = np.array(random.choice((0, -1, 2**40, 1.5)))
        done.append(f"{name}: {action}")
    np.savez(path, **arrays)
    return "; ".join(done), lambda: load(str(path))


def idx_files() -> dict[str, bytes]:
    """The four files of MNIST, with four images of 5 x 5."""
    images = bytes((0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 5)) + bytes(100)
    labels = bytes((0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4))
    files = {f"{part}-images-idx3-ubyte": images for part in ("train", "t10k")}
    return files | {f"{part}-labels-idx1-ubyte": labels for part in ("train", "t10k")}


def _idx(random: Random, folder: Path, good: Good) -> Case:
    files = idx_files()
    name = random.choice(sorted(files))
    zipped = random.random() < 0.3
    content, what = changed_bytes(gzip.compress(files[name]) if zipped else files[name], random)
    place = folder / "mnist"
    place.mkdir(exist_ok=True)
    for file in place.iterdir():
        file.unlink()
    for other in files:
        (place / (f"{other}.gz" if other == name and zipped else other)).write_bytes(
            content if other == name else files[other]
        )
    return f"{name}: {what}", lambda: load("mnist", place)


def measurement_texts() -> tuple[str, str]:
    """Pulse trains and retention, as `devices fit` reads them."""
    trains = ["device,pulse,direction,conductance_uS"]
    for device in range(2):
        trains += [f"d{device},{n},{'up' if n <= 25 else 'down'},{10 + 25 - abs(25 - n)}" for n in range(51)]
    kept = ["device,time_s,current_uA", *(f"d{device},{10**n},{5 - n * 0.1}" for device in range(3) for n in range(5))]
    return "\n".join(trains), "\n".join(kept)


def _measurements(random: Random, folder: Path, good: Good) -> Case:
    content, what = changed_table(measurement_texts()[random.random() >= 0.7], random)
    path = folder / "measured.csv"
    path.write_bytes(content)
    return what, lambda: read_measurements(path, random.choice((0.2, None)))


def fault_map_texts() -> tuple[str, str]:
    """Stuck cells by kind, and cells with their conductance."""
    kinds = ["array,row,column,kind", *(f"0,{n},{2 * n},stuck-{('low', 'high')[n % 2]}" for n in range(8))]
    values = ["array,row,column,conductance_uS", *(f"0,{n},{2 * n},{n}.5" for n in range(8))]
    return "\n".join(kinds), "\n".join(values)


def _cells(random: Random, folder: Path) -> tuple[Path, str]:
    """Values of cells in a CSV or an NPZ."""
    if random.random() < 0.5:
        content, what = changed_table(fault_map_texts()[random.random() < 0.5], random)
        path = folder / "map.csv"
    else:
        file = io.BytesIO()
        index = np.arange(6, dtype=random.choice((np.int64, np.float32, np.uint8, np.complex64)))
        values = np.full(6, random.choice(NUMBERS), np.float64)
        shape = (random.choice((1, 2, 9)), 256, random.choice((64, 128, 3)))
        whole = {random.choice(("stuck_uS", "conductance_uS")): np.full(shape, values[0])}
        listed = {"array": index * 0, "row": index, "column": index, "conductance_uS": values}
        np.savez_compressed(file, **random.choice((whole, listed)))
        content, what = file.getvalue(), f"{index.dtype}, {values[0]}"
        if random.random() < 0.5:
            content, what = changed_bytes(content, random)
        path = folder / "map.npz"
    path.write_bytes(content)
    return path, what


def _fault_map(random: Random, folder: Path, good: Good) -> Case:
    path, what = _cells(random, folder)
    return what, lambda: read_fault_map(path, good.mapping, chip=good.chip)


def _measured(random: Random, folder: Path, good: Good) -> Case:
    """Conductances read back from a chip, as `cimc measure` reads them."""
    path, what = _cells(random, folder)
    return what, lambda: read_measured(path, good.mapping, chip=good.chip, arrays=good.mapping.arrays)


SWEEP = """seeds = 3
objective = ["accuracy:max", "energy:min"]
devices = "auto"
do = "eval"
random = 4

[vary]
"adc.bits" = "6:9"
cell.read_noise_uS = [0.4, 0.8, 1.6]
train.lr = "1e-3:1e-2:log"
chip = "isaac,puma"
seed = "0:2"
"""


def _sweep_file(random: Random, folder: Path, good: Good) -> Case:
    """A sweep file, and the points of its specification."""
    text, what = changed_toml(SWEEP.replace("seeds = 3\n", ""), random)
    path = folder / "sweep.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    return what, lambda: read_sweep_file(path)


def read_sweep_file(path: Path) -> None:
    """Read a sweep file as `cimc sweep` does, and list its first points."""
    settings = read_toml(path)
    deque(islice(make_spec(settings.pop("vary", {}), **settings).points(), 20))


def _sweep_folder(random: Random, folder: Path, good: Good) -> Case:
    """A folder of results: what was asked for, or figures and fields of a row are others."""
    place = folder / "sweep"
    place.mkdir(exist_ok=True)
    spec: dict[str, Any] = {"format": 1, "source": "net", "vary": {"adc.bits": [6, 7], "cell.read_noise_uS": "0:2"}}
    spec |= {"seeds": [0], "objectives": ["accuracy:max", "energy_mj:min"], "do": "eval", "points": 3, "done": False}
    rows: list[Any] = [
        [{"adc.bits": 6, "cell.read_noise_uS": n}, {"accuracy": 0.5, "energy_mj": 0.1}] for n in range(3)
    ]
    what = change_tree(random.choice((spec, rows)), random)
    (place / "sweep.json").write_text(json.dumps(spec), encoding="utf-8", errors="replace")
    (place / "results.sqlite").unlink(missing_ok=True)
    with closing(Results(place)) as results:
        for number, row in enumerate(rows):
            fields, figures_of = row if isinstance(row, list) and len(row) == 2 else (row, {})
            results.add(
                Row(number, {"n": number, **fields} if isinstance(fields, dict) else fields, 0, figures_of, None, 1.0)
            )
    if random.random() < 0.3:
        content, what = changed_bytes((place / "results.sqlite").read_bytes(), random)
        (place / "results.sqlite").write_bytes(content)

    def use() -> None:
        found = read_sweep(place)
        assert len(found.groups) <= len(rows)
        sweep_report(place)

    return what, use


KINDS: dict[str, Callable[[Random, Path, Good], Case]] = {
    "chip": _chip,
    "device": _device,
    "artifact": _artifact,
    "package": _package,
    "arrays": _arrays,
    "idx": _idx,
    "measurements": _measurements,
    "fault map": _fault_map,
    "measured": _measured,
    "sweep file": _sweep_file,
    "sweep folder": _sweep_folder,
}


def mutated_file(seed: int, folder: Path, good: Good) -> Case:
    """What was done to a file of a kind, and the function that reads it; the kinds take turns."""
    kind = list(KINDS)[seed % len(KINDS)]
    what, use = KINDS[kind](Random(seed), folder, good)
    return f"{kind}: {what}", use
