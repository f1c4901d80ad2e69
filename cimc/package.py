"""The export package: a folder with what a chip team programs, and the network that the programmed chip computes.

manifest.json              what, for which chip, SHA-256 of every file
chip.toml, mapping.json    the chip and where every block sits
program/targets.npy        target conductances [arrays, rows, columns] in uS; NaN: cell not used
program/array_0000.csv     the same, one file an array; empty: cell not used
program/addresses.npz      for every cell: layer (index into `layers`, -1: not used), copy, weight_row, weight_column,
                           sign
program/blocks.csv         the same, block by block
digital.safetensors        scales and input ranges by layer, digital constants
model.onnx                 the chip-exact network (noise-free), runs in plain onnxruntime
network.onnx               the lowered network with the trained weights
"""

import csv
import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from cimc import __version__
from cimc.chip import Chip, parse_chip
from cimc.errors import CimcError
from cimc.files import replacing_folder
from cimc.mapping import Mapping, parse_mapping
from cimc.program import Floats, LayerProgram, Program

FORMAT = 2
SCALES = ("weight_range", "input_range", "gain")


@dataclass(frozen=True)
class Package:
    """Contents of a package. network, chip_network: serialised ONNX. notes: origin and training settings (JSON)."""

    model: str
    chip: Chip
    chip_text: str
    mapping: Mapping
    program: Program
    network: bytes
    chip_network: bytes
    notes: dict[str, Any]


def write_package(folder: Path, package: Package) -> None:
    """Write the folder in one piece; an earlier package of that name is replaced. Raises CimcError if it cannot be."""
    layers = package.program.layers
    digital = {f"digital/{name}": np.asarray(array) for name, array in package.program.digital.items()}
    for name, layer in layers.items():
        digital |= {f"{scale}/{name}": np.asarray(getattr(layer, scale)) for scale in SCALES}
        if layer.bias is not None:
            digital[f"bias/{name}"] = layer.bias
    targets = array_targets(package.mapping, package.chip, package.program)
    with replacing_folder(Path(folder), _is_package) as temporary:
        program = temporary / "program"
        program.mkdir()
        np.save(program / "targets.npy", targets)
        for index, array in enumerate(targets):
            (program / f"array_{index:04d}.csv").write_text(_csv(array), encoding="ascii")
        np.savez_compressed(program / "addresses.npz", **_addresses(package.mapping, package.chip))  # type: ignore[arg-type]
        (program / "blocks.csv").write_text(_blocks(package.mapping), encoding="utf-8")
        (temporary / "chip.toml").write_text(package.chip_text, encoding="utf-8")
        (temporary / "mapping.json").write_text(package.mapping.model_dump_json(), encoding="utf-8")
        (temporary / "digital.safetensors").write_bytes(safetensors.numpy.save(digital))
        (temporary / "network.onnx").write_bytes(package.network)
        (temporary / "model.onnx").write_bytes(package.chip_network)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {
            "format": FORMAT,
            "tool": f"cimc {__version__}",
            "model": package.model,
            "chip": package.chip.name,
            "arrays": package.mapping.arrays,
            "layers": list(layers),
            "notes": package.notes,
            "sha256": {path.relative_to(temporary).as_posix(): _sha256(path.read_bytes()) for path in files},
        }
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_package(folder: Path) -> Package:
    """Read a package after checking its digests; the targets come from `program/targets.npy`.

    Raises:
        CimcError: missing, not a package, or damaged.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        contents = {name: _checked(folder, name, manifest["sha256"][name]) for name in _READ}
        if manifest["format"] != FORMAT:
            raise CimcError(f"{folder} has format {manifest['format']}, this version reads {FORMAT}; export it again")
        for name, digest in manifest["sha256"].items():
            if name not in contents and ".." not in name:
                _checked(folder, name, digest)
        chip_text = contents["chip.toml"].decode()
        chip = parse_chip(chip_text, f"in {folder}")
        mapping = parse_mapping(contents["mapping.json"], str(folder))
        digital = safetensors.numpy.load(contents["digital.safetensors"])
        targets = np.load(io.BytesIO(contents["program/targets.npy"]), allow_pickle=False)
        return Package(
            model=str(manifest["model"]),
            chip=chip,
            chip_text=chip_text,
            mapping=mapping,
            program=_program(mapping, targets, digital),
            network=contents["network.onnx"],
            chip_network=contents["model.onnx"],
            notes=dict(manifest["notes"]),
        )
    except FileNotFoundError as error:
        missing = Path(error.filename or folder).name
        raise CimcError(f"{folder} is not a package ({missing} is missing); make one with: cimc export") from None
    except OSError as error:
        raise CimcError(f"cannot read package {folder}: {error.strerror or error}; check the path") from None
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError):
        raise CimcError(f"package {folder} is damaged or made by another version; export it again") from None


_READ = (
    "chip.toml",
    "mapping.json",
    "digital.safetensors",
    "program/targets.npy",
    "network.onnx",
    "model.onnx",
)


def _is_package(folder: Path) -> bool:
    """Whether this tool wrote the folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return str(manifest["tool"]).startswith("cimc ") and "sha256" in manifest
    except (OSError, ValueError, KeyError, TypeError):
        return False


def array_targets(mapping: Mapping, chip: Chip, program: Program) -> Floats:
    """Target conductances as the arrays hold them: [arrays, rows, columns] in uS; NaN where a cell is not used."""
    targets = np.full((mapping.arrays, chip.array.rows, chip.array.columns), np.nan, np.float32)
    for layer in mapping.layers:
        pair = program.layers[layer.name].targets
        for block in layer.blocks:
            part = pair[:, block.row_start : block.row_stop, block.column_start : block.column_stop]
            rows, columns = part.shape[1], 2 * part.shape[2]
            place = targets[block.array, block.array_row : block.array_row + rows]
            # Adjacent columns: G+ and G- of one weight side by side.
            place[:, block.array_column : block.array_column + columns] = part.transpose(1, 2, 0).reshape(rows, columns)
    return targets


def _program(mapping: Mapping, targets: Floats, digital: dict[str, npt.NDArray[Any]]) -> Program:
    layers = {}
    for layer in mapping.layers:
        pair = np.zeros((2, layer.rows, layer.columns), np.float32)
        for block in layer.blocks:
            rows, columns = block.row_stop - block.row_start, 2 * (block.column_stop - block.column_start)
            place = targets[block.array, block.array_row : block.array_row + rows]
            part = place[:, block.array_column : block.array_column + columns].reshape(rows, -1, 2)
            pair[:, block.row_start : block.row_stop, block.column_start : block.column_stop] = part.transpose(2, 0, 1)
        scales = {scale: np.float32(digital[f"{scale}/{layer.name}"]) for scale in SCALES}
        layers[layer.name] = LayerProgram(targets=pair, bias=digital.get(f"bias/{layer.name}"), **scales)
    constants = {key.removeprefix("digital/"): array for key, array in digital.items() if key.startswith("digital/")}
    return Program(layers, constants)


def _addresses(mapping: Mapping, chip: Chip) -> dict[str, npt.NDArray[Any]]:
    """For every cell [arrays, rows, columns]: layer index, copy, weight row and column, and +1 (G+) or -1 (G-)."""
    shape = (mapping.arrays, chip.array.rows, chip.array.columns)
    layer_of, sign = np.full(shape, -1, np.int32), np.zeros(shape, np.int8)
    row_of, column_of, copy_of = (np.full(shape, -1, np.int32) for _ in range(3))
    for index, layer in enumerate(mapping.layers):
        for block in layer.blocks:
            rows = np.arange(block.row_start, block.row_stop)
            columns = np.repeat(np.arange(block.column_start, block.column_stop), 2)
            cells = np.s_[
                block.array,
                block.array_row : block.array_row + len(rows),
                block.array_column : block.array_column + len(columns),
            ]
            layer_of[cells] = index
            copy_of[cells] = block.copy
            row_of[cells] = rows[:, None]
            column_of[cells] = columns
            sign[cells] = np.tile(np.array([1, -1], np.int8), len(columns) // 2)
    names = np.array([layer.name for layer in mapping.layers])
    weight = {"weight_row": row_of, "weight_column": column_of}
    return {"layers": names, "layer": layer_of, "copy": copy_of, **weight, "sign": sign}


def _blocks(mapping: Mapping) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = "chip,array_on_chip,array,array_row,array_column,layer,copy,row_start,row_stop,column_start,column_stop"
    writer.writerow(header.split(","))
    for layer in mapping.layers:
        for block in layer.blocks:
            chip, array = divmod(block.array, mapping.arrays_per_chip)
            place = [chip, array, block.array, block.array_row, block.array_column]
            writer.writerow([*place, layer.name, block.copy, *block[:4]])
    return text.getvalue()


def _csv(array: Floats) -> str:
    """One line a row in uS with four decimals; cells that are not used stay empty."""
    return "".join(",".join("" if math.isnan(g) else f"{g:.4f}" for g in row) + "\n" for row in array.tolist())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(folder: Path, name: str, digest: str) -> bytes:
    data = (folder / name).read_bytes()
    if _sha256(data) != digest:
        raise CimcError(f"package {folder} is damaged: {name} does not match its SHA-256; export it again")
    return data
