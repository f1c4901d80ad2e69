"""The export package: a folder with what a chip team programs, and the network that the programmed chip computes.

README.md                  for who programs and reads the arrays: files, addresses, how a code becomes a value
manifest.json              what, for which chip, SHA-256 of every file
manifest.sha256            its own SHA-256, as `sha256sum -c` reads it
chip.toml, mapping.json    the chip and where every block sits
program/targets.npy        target conductances [arrays, rows, columns] in uS; NaN: cell not used, or (of arrays that are
                           smaller than others) not there
program/array_0000.csv     the same for a tester, one file an array, with what it needs to know in its first lines
program/addresses.npz      for every cell: layer (index into `layers`, -1: not used), copy, weight_row, weight_column,
                           sign, counts, reference
program/blocks.csv         the same, block by block
program/stuck.npz          of a package for one die: what its stuck cells hold, `stuck_uS` [arrays, rows, columns]
program/wiring.npz         of a die on which lines were moved: `array`, `word_line`, `bit_line` (`cimc.wiring`)
digital.safetensors        scales and input ranges by layer, digital constants
model.onnx                 the chip-exact network (noise-free), runs in plain onnxruntime
network.onnx               the lowered network with the trained weights
"""

import hashlib
import io
import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from cimc.addresses import size_of_array, take_from_arrays
from cimc.chip import Chip, parse_chip
from cimc.errors import CimcError
from cimc.fault_map import Die
from cimc.files import prepare_folder, replacing_folder
from cimc.html_table import html_figures
from cimc.mapping import Mapping
from cimc.mapping_file import parse_mapping, require_settings
from cimc.migrate import with_granularity
from cimc.package_readme import package_readme
from cimc.program import Floats, LayerProgram, Program
from cimc.program_files import (
    array_table,
    array_targets,
    block_table,
    blocks_by_array,
    decimals_for,
    write_address_map,
)
from cimc.version import __version__
from cimc.wiring import Wiring

FORMAT = 5
# In format 2 the tables of arrays have no first lines, there is no README.md, and the chip's levels were the update
# step alone (`cimc.migrate`).
# In format 3 weight ranges and gains were one number a layer, and inputs had no factors.
# In format 4 lines lay on the arrays where the mapping has them.
READABLE = (2, 3, 4, 5)
WITHOUT_GRANULARITY = 2
SEAL = "manifest.sha256"
SCALES = ("weight_range", "input_range", "gain")
PARTS = ("bias", "input_factor")  # where the layer has them


@dataclass(frozen=True)
class Package:
    """Contents of a package. network, chip_network: serialised ONNX. notes: origin and training settings (JSON).

    die: the one it was made for; None: any. wiring: where the lines of the mapping are on it; None: as the mapping
    says.
    """

    model: str
    chip: Chip
    chip_text: str
    mapping: Mapping
    program: Program
    network: bytes
    chip_network: bytes
    notes: dict[str, Any]
    die: Die | None = None
    wiring: Wiring | None = None

    @property
    def arrays(self) -> int:
        """Physical arrays of a die that its files list, those in use among them."""
        return self.mapping.arrays * self.mapping.physical_per_array if self.wiring is None else self.wiring.arrays

    @property
    def programmed(self) -> frozenset[str]:
        """Layers that are programmed on the die already: their targets are what its devices hold."""
        return frozenset(self.notes.get("programmed", ()))

    def _repr_html_(self) -> str:
        figures: dict[str, object] = {
            "arrays": self.mapping.arrays,
            "layers": len(self.mapping.layers),
            "devices": self.mapping.cost.devices,
            "trained on": self.notes.get("trained_on"),
            "for the die": None if self.die is None else self.die.name,
        }
        for condition, outputs in self.notes.get("agreement", {}).items():
            for output, found in outputs.items() if isinstance(outputs, dict) else ():
                figures |= {f"{key} of {output}, {condition}": value for key, value in found.items()}
        named = {name.replace("_", " "): value for name, value in figures.items()}
        return html_figures(f"package of {self.model} for {self.chip.name}", named)


def require_package_place(folder: str | Path) -> None:
    """Find out before a long run whether a package can be written there. Raises CimcError as `write_package` does."""
    prepare_folder(folder, _is_package)


def write_package(folder: str | Path, package: Package) -> None:
    """Write the folder in one piece; an earlier package of that name is replaced. Raises CimcError if it cannot be."""
    layers = package.program.layers
    digital = {f"digital/{name}": np.asarray(array) for name, array in package.program.digital.items()}
    for name, layer in layers.items():
        digital |= {f"{scale}/{name}": np.asarray(getattr(layer, scale)) for scale in SCALES}
        for part in PARTS:
            array: Floats | None = getattr(layer, part)
            if array is not None:
                digital[f"{part}/{name}"] = array
    wiring = package.wiring
    targets = array_targets(package.mapping, package.chip, package.program, wiring)
    decimals, held = decimals_for(targets, package.chip), blocks_by_array(package.mapping, wiring)
    stuck = np.zeros(len(targets), int) if package.die is None else _stuck_in_use(package.die, targets)
    with replacing_folder(Path(folder), _is_package) as temporary:
        program = temporary / "program"
        program.mkdir()
        np.save(program / "targets.npy", targets)
        for index, held_targets in enumerate(targets):
            rows, columns = size_of_array(package.mapping, package.chip, index)
            table = array_table(
                index,
                held_targets[:rows, :columns],
                mapping=package.mapping,
                chip=package.chip.of_kind(package.mapping.kind_of(index // package.mapping.physical_per_array)),
                blocks=held[index],
                decimals=decimals,
                moved=wiring is not None,
                stuck=int(stuck[index]),
                programmed=package.programmed,
            )
            (program / f"array_{index:04d}.csv").write_text(table, encoding="ascii")
        write_address_map(program / "addresses.npz", package.mapping, package.chip, wiring)
        if package.die is not None:
            np.savez_compressed(program / "stuck.npz", stuck_uS=package.die.stuck)
        if wiring is not None:
            lines = {"array": wiring.array, "word_line": wiring.word_lines, "bit_line": wiring.bit_lines}
            np.savez_compressed(program / "wiring.npz", **lines)  # type: ignore[arg-type]
        (program / "blocks.csv").write_text(block_table(package.mapping), encoding="utf-8")
        (temporary / "chip.toml").write_text(package.chip_text, encoding="utf-8")
        (temporary / "mapping.json").write_text(package.mapping.model_dump_json(), encoding="utf-8")
        (temporary / "digital.safetensors").write_bytes(safetensors.numpy.save(digital))
        (temporary / "network.onnx").write_bytes(package.network)
        (temporary / "model.onnx").write_bytes(package.chip_network)
        digests = _digests(temporary)
        readme = package_readme(
            package.model,
            chip=package.chip,
            mapping=package.mapping,
            program=package.program,
            notes=package.notes,
            digests=digests,
            die=package.die,
            wiring=wiring,
        )
        (temporary / "README.md").write_text(readme, encoding="utf-8")
        digests["README.md"] = _sha256(readme.encode())
        manifest = {
            "format": FORMAT,
            "tool": f"cimc {__version__}",
            "model": package.model,
            "chip": package.chip.name,
            "arrays": package.arrays,
            "layers": list(layers),
            "notes": package.notes,
            "sha256": digests,
        }
        written = json.dumps(manifest, indent=1).encode()
        (temporary / "manifest.json").write_bytes(written)
        (temporary / SEAL).write_bytes(_seal(written))


def read_package(folder: str | Path) -> Package:
    """Read a package after checking its digests; the targets come from `program/targets.npy`.

    Raises:
        CimcError: missing, not a package, or damaged.
    """
    folder = Path(folder)
    try:
        manifest = _sealed_manifest(folder)
        contents = {name: _checked(folder, name, manifest["sha256"][name]) for name in _READ}
        if manifest["format"] not in READABLE:
            readable = f"{READABLE[0]} to {READABLE[-1]}"
            raise CimcError(f"{folder} has format {manifest['format']}, this version reads {readable}; export it again")
        for name, digest in manifest["sha256"].items():
            if name not in contents:
                data = _checked(folder, name, digest)
                if name in _OF_DIES:
                    contents[name] = data
        chip_text = contents["chip.toml"].decode()
        if manifest["format"] <= WITHOUT_GRANULARITY:
            chip_text = with_granularity(chip_text, f"in {folder}")
        chip = parse_chip(chip_text, f"in {folder}")
        mapping = parse_mapping(contents["mapping.json"], str(folder))
        require_settings(mapping, chip, f"package {folder}")
        if (mapping.rows_per_weight, mapping.columns_per_weight) != (chip.rows_per_weight, chip.columns_per_weight):
            raise ValueError("the mapping is not one of this chip")
        digital = safetensors.numpy.load(contents["digital.safetensors"])
        targets = np.load(io.BytesIO(contents.pop("program/targets.npy")), allow_pickle=False)  # held once
        wiring = _wiring(contents, len(targets))
        return Package(
            model=str(manifest["model"]),
            chip=chip,
            chip_text=chip_text,
            mapping=mapping,
            program=_program(mapping, targets if wiring is None else wiring.from_die(targets), digital),
            network=contents["network.onnx"],
            chip_network=contents["model.onnx"],
            notes=dict(manifest["notes"]),
            die=_die(contents, manifest["notes"], targets),
            wiring=wiring,
        )
    except FileNotFoundError as error:
        missing = Path(error.filename or folder).name
        raise CimcError(f"{folder} is not a package ({missing} is missing); make one with: cimc export") from None
    except NotADirectoryError:
        raise CimcError(f"{folder} is a file and no package; make one of a .cim file with: cimc export") from None
    except OSError as error:
        raise CimcError(f"cannot read package {folder}: {error.strerror or error}; check the path") from None
    except CimcError:
        raise
    # Whoever makes the digests anew can put nonsense into any file.
    except Exception:
        raise CimcError(f"package {folder} is damaged or made by another version; remove it and export again") from None


_READ = (
    "chip.toml",
    "mapping.json",
    "digital.safetensors",
    "program/targets.npy",
    "network.onnx",
    "model.onnx",
)
_OF_DIES = ("program/stuck.npz", "program/wiring.npz")


def _sealed_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, as its seal says; packages of earlier versions have none."""
    text, seal = (folder / "manifest.json").read_bytes(), folder / SEAL
    if seal.exists() and seal.read_bytes() != _seal(text):
        raise CimcError(
            f"package {folder} is damaged: manifest.json does not match its SHA-256; remove it and export again"
        )
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def _seal(manifest: bytes) -> bytes:
    """What `sha256sum -c` reads."""
    return f"{_sha256(manifest)}  manifest.json\n".encode()


def _is_package(folder: Path) -> bool:
    """Whether this tool wrote the folder. Raises CimcError where it holds a file of others too, which would be lost."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if not str(manifest["tool"]).startswith("cimc "):
            return False
        own = {*manifest["sha256"], "manifest.json", SEAL}
        files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        foreign = next((name for name in files if name not in own), None)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if foreign is not None:
        raise CimcError(
            f"cannot write {folder}: it holds {foreign}, which is no file of the package; move that, or choose another "
            "name"
        )
    return True


def _program(mapping: Mapping, targets: Floats, digital: dict[str, npt.NDArray[Any]]) -> Program:
    layers = {}
    for layer in mapping.layers:
        pair = take_from_arrays(mapping, layer.name, targets)
        values: dict[str, Any] = {scale: digital[f"{scale}/{layer.name}"] for scale in SCALES}
        values |= {part: digital.get(f"{part}/{layer.name}") for part in PARTS}
        layers[layer.name] = LayerProgram(targets=pair, **values)
    constants = {key.removeprefix("digital/"): array for key, array in digital.items() if key.startswith("digital/")}
    return Program(layers, constants)


def _stuck_in_use(die: Die, targets: Floats) -> npt.NDArray[np.int64]:
    """How many cells of each array are stuck and have a target."""
    used = np.isfinite(targets) & ~np.isnan(die.stuck[: len(targets)])
    return np.count_nonzero(used, axis=(1, 2))


def _die(contents: dict[str, bytes], notes: dict[str, Any], targets: Floats) -> Die | None:
    """The die that the package was made for."""
    if "program/stuck.npz" not in contents:
        return None
    with np.load(io.BytesIO(contents["program/stuck.npz"]), allow_pickle=False) as file:
        stuck = file["stuck_uS"]
    if stuck.shape[1:] != targets.shape[1:] or len(stuck) < len(targets):
        raise ValueError("the stuck cells are not of these arrays")
    return Die(str(notes["die"]["name"]), stuck)


def _wiring(contents: dict[str, bytes], arrays: int) -> Wiring | None:
    """Where the lines of the mapping are on the die."""
    if "program/wiring.npz" not in contents:
        return None
    with np.load(io.BytesIO(contents["program/wiring.npz"]), allow_pickle=False) as file:
        return Wiring(file["array"], file["word_line"], file["bit_line"], arrays)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {}
    for path in files:
        with path.open("rb") as file:  # in parts: the largest is as large as all conductances
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not stat.S_ISREG(path.stat().st_mode):
        raise CimcError(
            f"package {folder} names {name!r:.80}, which is no file of its folder; remove it and export again"
        )
    data = path.read_bytes()
    if _sha256(data) != digest:
        raise CimcError(f"package {folder} is damaged: {name} does not match its SHA-256; remove it and export again")
    return data
