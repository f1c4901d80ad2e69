"""Seeded mutations of every other file that is read: chips, devices, packages, `.cim`, data, measurements, fault maps.

Values are changed where they stand in the structure, under digests made anew, so that most cases pass the first checks.
"""

import gzip
import hashlib
import io
import json
import tomllib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
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
from cimc.fault_map import read_fault_map
from cimc.mapping import Mapping
from cimc.mapping_file import parse_mapping
from cimc.package import SEAL, Package, read_package, write_package
from cimc.program import LayerProgram, Program
from cimc.report.losses import package_report
from cimc.report.page import report
from cimc.toml_text import toml_text
from cimc.units import device_targets
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from tests.mutations import FLOATS, INTEGERS, STRINGS, changed_bytes, networks
from tests.sealing import members_of, redigested, sealed

NUMBERS = (*INTEGERS, *FLOATS, 1e-12, 1e12, 1e-300, 1e308, 5e-324, 0.5, 1.5, 10**30)
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


def change_tree(tree: Any, random: Random) -> str:
    """Change a value anywhere in nested lists and dictionaries; what was done."""
    places = [place for place in _places(tree, "") if place[2] != "sha256"]
    if not places:
        return "nothing left"
    leaves = [place for place in places if not isinstance(place[1][place[2]], dict | list)]
    path, parent, key = random.choice(leaves if leaves and random.random() < 0.8 else places)
    old, action = parent[key], random.random()
    if action < 0.05:
        del parent[key]
        return f"deleted {path}"
    if action < 0.15:
        _, other, name = random.choice(places)
        parent[key] = deepcopy(other[name])
        return f"{path} as another value"
    if action < 0.2 and isinstance(parent, list):
        parent.extend([old] * random.choice((1, 3, 200)))
        return f"more of {path}"
    if action < 0.25 and isinstance(parent, dict):
        parent[random.choice(STRINGS)] = old
        return f"another name for {path}"
    if action < 0.9 and isinstance(old, int) and not isinstance(old, bool):
        parent[key] = random.choice((*INTEGERS, *range(9), old * 2, old * 3, old + 1, -old, old // 2))
    elif action < 0.9 and isinstance(old, float):
        parent[key] = random.choice((*NUMBERS, *(old * factor for factor in (-1.0, 2.0, 10.0, 1e3, 1e-3, 0.999))))
    else:
        parent[key] = random.choice((random.choice(NUMBERS), random.choice(STRINGS), [], {}, [1] * 5000, True))
    return f"{path} = {str(parent[key])[:40]!r}"


def _places(tree: Any, path: str) -> list[tuple[str, Any, Any]]:
    """(path, what holds it, key or index) of every value."""
    found: list[tuple[str, Any, Any]] = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found.append((f"{path}/{key}", tree, key))
        if isinstance(value, dict | list):
            found += _places(value, f"{path}/{key}")
    return found


def _changed_json(content: bytes, random: Random) -> tuple[bytes, str]:
    tree = json.loads(content)
    what = "; ".join(change_tree(tree, random) for _ in range(random.choice((1, 1, 2, 5))))
    return json.dumps(tree).encode(), what


def _changed_toml(text: str, random: Random) -> tuple[str, str]:
    if random.random() < 0.1:
        data, what = changed_bytes(text.encode(), random)
        return data.decode("utf-8", "replace"), what
    tree = tomllib.loads(text)
    what = "; ".join(change_tree(tree, random) for _ in range(random.choice((1, 1, 1, 2, 5))))
    return toml_text(_without_none(tree)), what


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):  # TOML has tables in lists too, which no file of ours does
        return [str(value) if isinstance(value, dict) else _without_none(value) for value in tree if value is not None]
    return tree


def _changed_table(text: str, random: Random) -> tuple[bytes, str]:
    """A CSV file with other cells or lines."""
    if random.random() < 0.2:
        return changed_bytes(text.encode(), random)
    rows, done = [line.split(",") for line in text.splitlines()], []
    for _ in range(random.choice((1, 1, 2, 5))):
        row = random.randrange(len(rows) - 1) if random.random() < 0.9 else 0
        column, action = random.randrange(len(rows[row]) or 1), random.random()
        if action < 0.1:
            del rows[row]
        elif action < 0.2:
            rows.insert(random.randrange(len(rows)), list(rows[row]))
        elif action < 0.3:
            rows = [line[:column] + line[column + 1 :] for line in rows]
        elif rows[row]:
            rows[row][column % len(rows[row])] = str(random.choice((*NUMBERS, *STRINGS, *range(6)))).replace("\n", " ")
        done.append(f"{row}, {column}, {action:.2f}")
    return "\n".join(map(",".join, rows)).encode("utf-8", "replace"), "; ".join(done)


def _chip(random: Random, folder: Path, good: Good) -> Case:
    """A chip, with a network mapped on it, and the mapping read again."""
    name = random.choice(chip_names())
    text, what = _changed_toml(chip_text(name), random)

    def use() -> None:
        mapping = map_network(good.lowered, parse_chip(text, "chip.toml"))
        assert parse_mapping(mapping.model_dump_json(), "out.cim") == mapping

    return f"{name}: {what}", use


def _device(random: Random, folder: Path, good: Good) -> Case:
    name = random.choice(device_names())
    text, what = _changed_toml(device_text(name), random)
    return f"{name}: {what}", lambda: parse_device(text, "device.toml")


def _artifact(random: Random, folder: Path, good: Good) -> Case:
    """A `.cim` file, what `inspect` says of it, and its page."""
    members, path = members_of(good.artifact), folder / "changed.cim"
    name = random.choice([name for name in sorted(members) if name.endswith(".json") or random.random() < 0.3])
    data, what = (_changed_json if name.endswith(".json") else changed_bytes)(members[name], random)
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
        text, what = _changed_toml(files[name].decode(), random)
        files[name] = text.encode("utf-8", "replace")
    else:
        files[name], what = (_changed_json if name.endswith(".json") else changed_bytes)(files[name], random)
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
    return f"{name}: {what}", lambda: verify(place) if thorough else package_report(read_package(place), {})


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


def _idx(random: Random, folder: Path, good: Good) -> Case:
    """The four files of MNIST, one of them changed."""
    images = bytes((0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 5)) + bytes(100)
    labels = bytes((0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4))
    files = {f"{part}-images-idx3-ubyte": images for part in ("train", "t10k")}
    files |= {f"{part}-labels-idx1-ubyte": labels for part in ("train", "t10k")}
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


def _measurements(random: Random, folder: Path, good: Good) -> Case:
    """Pulse trains or retention, as `devices fit` reads them."""
    if random.random() < 0.7:
        lines = ["device,pulse,direction,conductance_uS"]
        for device in range(2):
            lines += [f"d{device},{n},{'up' if n <= 25 else 'down'},{10 + 25 - abs(25 - n)}" for n in range(51)]
    else:
        lines = ["device,time_s,current_uA"]
        lines += [f"d{device},{10**n},{5 - n * 0.1}" for device in range(3) for n in range(5)]
    content, what = _changed_table("\n".join(lines), random)
    path = folder / "measured.csv"
    path.write_bytes(content)
    return what, lambda: read_measurements(path, random.choice((0.2, None)))


def _fault_map(random: Random, folder: Path, good: Good) -> Case:
    """Stuck cells in a CSV or an NPZ."""
    if random.random() < 0.5:
        lines = ["array,row,column,kind", *(f"0,{n},{2 * n},stuck-{('low', 'high')[n % 2]}" for n in range(8))]
        if random.random() < 0.5:
            lines = ["array,row,column,conductance_uS", *(f"0,{n},{2 * n},{n}.5" for n in range(8))]
        content, what = _changed_table("\n".join(lines), random)
        path = folder / "map.csv"
    else:
        file = io.BytesIO()
        index = np.arange(6, dtype=random.choice((np.int64, np.float32, np.uint8, np.complex64)))
        values = np.full(6, random.choice(NUMBERS), np.float64)
        whole = {"stuck_uS": np.full((random.choice((1, 2, 9)), 256, random.choice((64, 128, 3))), values[0])}
        listed = {"array": index * 0, "row": index, "column": index, "conductance_uS": values}
        np.savez_compressed(file, **random.choice((whole, listed)))
        content, what = file.getvalue(), f"{index.dtype}, {values[0]}"
        if random.random() < 0.5:
            content, what = changed_bytes(content, random)
        path = folder / "map.npz"
    path.write_bytes(content)
    return what, lambda: read_fault_map(path, good.mapping, chip=good.chip)


KINDS: dict[str, Callable[[Random, Path, Good], Case]] = {
    "chip": _chip,
    "device": _device,
    "artifact": _artifact,
    "package": _package,
    "arrays": _arrays,
    "idx": _idx,
    "measurements": _measurements,
    "fault map": _fault_map,
}


def mutated_file(seed: int, folder: Path, good: Good) -> Case:
    """What was done to a file of a kind, and the function that reads it; the kinds take turns."""
    kind = list(KINDS)[seed % len(KINDS)]
    what, use = KINDS[kind](Random(seed), folder, good)
    return f"{kind}: {what}", use
