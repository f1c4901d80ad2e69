"""The `.cim` file: a compiled or trained network with its chip, mapping, state and history, in one zip.

Members are stored uncompressed, so that the file cannot swell on reading and arrays can be mapped. The manifest holds
the SHA-256 of every member and the zip comment that of the whole file before it: one flipped byte anywhere is found.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

from cimc import __version__
from cimc.chip import Chip, parse_chip
from cimc.errors import CimcError
from cimc.files import replacing
from cimc.mapping import Mapping, parse_mapping

FORMAT = 1
MEMBERS = ("network.onnx", "chip.toml", "mapping.json", "state.safetensors", "history.json")
SEAL = b"cimc sha256 "
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Artifact:
    """Contents of a `.cim` file.

    network: lowered ONNX model, serialised. chip_text: the chip's TOML. state: named arrays (`runtime.state`), empty
    before training. history: training history and options (JSON values).
    """

    model: str
    network: bytes
    chip: Chip
    chip_text: str
    mapping: Mapping
    state: dict[str, np.ndarray] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)


def write_artifact(path: Path, artifact: Artifact) -> None:
    """Write a `.cim` file in one piece; the same contents give the same bytes. Raises CimcError if it cannot be."""
    contents = {
        "network.onnx": artifact.network,
        "chip.toml": artifact.chip_text.encode(),
        "mapping.json": artifact.mapping.model_dump_json().encode(),
        "state.safetensors": safetensors.numpy.save(artifact.state),
        "history.json": json.dumps(artifact.history).encode(),
    }
    manifest = {
        "format": FORMAT,
        "tool": f"cimc {__version__}",
        "model": artifact.model,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    with replacing(Path(path)) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo("manifest.json", _TIME), json.dumps(manifest, indent=1))
            for name in MEMBERS:
                archive.writestr(zipfile.ZipInfo(name, _TIME), contents[name])
            archive.comment = SEAL + b"0" * 64
        with temporary.open("r+b") as file:
            seal = _digest_before_seal(file)
            file.seek(-64, 2)
            file.write(seal.encode())


def read_artifact(path: Path) -> Artifact:
    """Read a `.cim` file after checking its digests. Raises CimcError: missing, not a `.cim` file, or damaged."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise CimcError(f"{path} is not a .cim file; make one with: cimc compile model.onnx -o {path.stem}.cim")
            digest = _digest_before_seal(file)
            file.seek(max(0, file.seek(0, 2) - 64 - len(SEAL)))
            if file.read() != SEAL + digest.encode():
                raise CimcError(f"{path} is damaged: its SHA-256 does not match; compile or train it again")
            with zipfile.ZipFile(file) as archive:
                return _unpack(archive, path)
    except FileNotFoundError:
        raise CimcError(f"{path} does not exist; make one with: cimc compile model.onnx -o {path.name}") from None
    except OSError as error:
        raise CimcError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, NotImplementedError, safetensors.SafetensorError):
        raise CimcError(f"{path} is damaged or made by another version; compile or train it again") from None


def _unpack(archive: zipfile.ZipFile, path: Path) -> Artifact:
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("compressed member")
    manifest = json.loads(archive.read("manifest.json"))
    if manifest["format"] != FORMAT:
        raise CimcError(f"{path} has format {manifest['format']}, this version reads {FORMAT}; compile the model again")
    contents = {name: archive.read(name) for name in MEMBERS}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != manifest["sha256"][name]:
            raise ValueError(name)
    chip_text = contents["chip.toml"].decode()
    return Artifact(
        model=str(manifest["model"]),
        network=contents["network.onnx"],
        chip=parse_chip(chip_text, f"in {path}"),
        chip_text=chip_text,
        mapping=parse_mapping(contents["mapping.json"], str(path)),
        state=safetensors.numpy.load(contents["state.safetensors"]),
        history=json.loads(contents["history.json"]),
    )


def _digest_before_seal(file: BinaryIO) -> str:
    """SHA-256 of all bytes before the zip comment."""
    remaining = file.seek(0, 2) - 64 - len(SEAL)
    file.seek(0)
    digest = hashlib.sha256()
    while remaining > 0:
        chunk = file.read(min(remaining, 1 << 20))
        digest.update(chunk)
        remaining -= len(chunk)
    return digest.hexdigest()
