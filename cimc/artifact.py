"""The `.cim` file: a compiled or trained network with its chip, mapping, state and history, in one zip.

Members are stored uncompressed, so that the file cannot swell on reading and arrays can be mapped: network.onnx refers
to weights.data (ONNX external data), which is written tensor by tensor and memory-mapped on reading. The manifest holds
the SHA-256 of every member and the zip comment that of the whole file before it: one flipped byte anywhere is found.
"""

import hashlib
import json
import math
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
import safetensors.numpy

from cimc.chip import Chip, parse_chip
from cimc.errors import CimcError
from cimc.files import replacing
from cimc.mapping import Mapping
from cimc.mapping_file import parse_mapping, require_settings
from cimc.migrate import with_granularity
from cimc.version import __version__

FORMAT = 4
READABLE = (3, 4)  # in format 3 the chip's levels were the update step alone (`cimc.migrate`)
MEMBERS = ("network.onnx", "chip.toml", "mapping.json", "state.safetensors", "history.json")
WEIGHTS = "weights.data"
SMALL_BYTES = 1024  # tensors below stay in network.onnx
ALIGNMENT = 64
CHUNK = 2**20  # elements (or rows of a view that is not contiguous) written at a time
SEAL = b"cimc sha256 "
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Artifact:
    """Contents of a `.cim` file.

    network: lowered ONNX model; read from a file its weights are memory-mapped. chip_text: the chip's TOML.
    state: named arrays (`runtime.system.state`), empty before training. history: training history and options (JSON
    values).
    """

    model: str
    network: ir.Model
    chip: Chip
    chip_text: str
    mapping: Mapping
    state: dict[str, np.ndarray] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)


def write_artifact(path: str | Path, artifact: Artifact) -> None:
    """Write a `.cim` file in one piece; the same contents give the same bytes. Raises CimcError if it cannot be."""
    proto, weights = _external(artifact.network)
    contents = {
        "network.onnx": proto,
        "chip.toml": artifact.chip_text.encode(),
        "mapping.json": artifact.mapping.model_dump_json().encode(),
        "state.safetensors": safetensors.numpy.save(artifact.state),
        "history.json": json.dumps(artifact.history).encode(),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    with replacing(Path(path)) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            digests[WEIGHTS] = _write_weights(archive, weights)
            manifest = {"format": FORMAT, "tool": f"cimc {__version__}", "model": artifact.model, "sha256": digests}
            archive.writestr(zipfile.ZipInfo("manifest.json", _TIME), json.dumps(manifest, indent=1))
            for name in MEMBERS:
                archive.writestr(zipfile.ZipInfo(name, _TIME), contents[name])
            archive.comment = SEAL + b"0" * 64
        with temporary.open("r+b") as file:
            seal = _digest_before_seal(file)
            file.seek(-64, 2)
            file.write(seal.encode())


def network_digest(model: ir.Model) -> bytes:
    """SHA-256 of a network with all its weights."""
    proto, weights = _external(model)
    digest = hashlib.sha256(proto)
    for array in weights:
        digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.digest()


def _external(model: ir.Model) -> tuple[bytes, list[np.ndarray]]:
    """The network with its larger weights as references into weights.data, and these weights in order."""
    model = model.clone()
    weights: list[np.ndarray] = []
    offset = 0
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < SMALL_BYTES or tensor.dtype == ir.DataType.STRING:
            continue
        value.const_value = ir.ExternalTensor(
            WEIGHTS, offset, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name, base_dir=""
        )
        weights.append(tensor.numpy())
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return ir.to_proto(model).SerializeToString(deterministic=True), weights


def _write_weights(archive: zipfile.ZipFile, weights: list[np.ndarray]) -> str:
    """Stream the weights into the archive's first member; returns its SHA-256."""
    digest = hashlib.sha256()
    entry = zipfile.ZipInfo(WEIGHTS, _TIME)
    # Local header: 30 bytes, the name, 20 of zip64; the padding puts the data on an aligned place in the file.
    padding = -(30 + len(WEIGHTS) + 20 + 4) % ALIGNMENT
    entry.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)
    with archive.open(entry, "w", force_zip64=True) as file:
        for array in weights:
            for start in range(0, max(len(array.reshape(-1)) if array.flags.c_contiguous else len(array), 1), CHUNK):
                rows = array.reshape(-1) if array.flags.c_contiguous else array
                part = np.ascontiguousarray(rows[start : start + CHUNK]).data.cast("B")
                digest.update(part)
                file.write(part)
            gap = bytes(-array.nbytes % ALIGNMENT)
            digest.update(gap)
            file.write(gap)
    return digest.hexdigest()


def read_artifact(path: str | Path) -> Artifact:
    """Read a `.cim` file after checking its digests. Raises CimcError: missing, not a `.cim` file, or damaged."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise CimcError(f"cannot read {path}: it is a device or a pipe; give a .cim file")
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
    except IsADirectoryError:
        hint = "a package is for verify, report, deploy, measure and tune" if (path / "manifest.json").exists() else ""
        raise CimcError(f"{path} is a folder; {hint or 'give a .cim file'}") from None
    except OSError as error:
        raise CimcError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except CimcError:
        raise
    # Whoever knows the seal can put nonsense into any member.
    except Exception:
        raise CimcError(f"{path} is damaged or made by another version; compile or train it again") from None


def _unpack(archive: zipfile.ZipFile, path: Path) -> Artifact:
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("compressed member")
    manifest = json.loads(archive.read("manifest.json"))
    if manifest["format"] not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise CimcError(
            f"{path} has format {manifest['format']}, this version reads {readable}; compile the model again"
        )
    contents = {name: archive.read(name) for name in MEMBERS}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != manifest["sha256"][name]:
            raise ValueError(name)
    with archive.open(WEIGHTS) as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        if digest.hexdigest() != manifest["sha256"][WEIGHTS]:
            raise ValueError(WEIGHTS)
    chip_text = contents["chip.toml"].decode()
    if manifest["format"] < FORMAT:
        chip_text = with_granularity(chip_text, f"in {path}")
    chip, mapping = parse_chip(chip_text, f"in {path}"), parse_mapping(contents["mapping.json"], str(path))
    require_settings(mapping, chip, str(path))
    return Artifact(
        model=str(manifest["model"]),
        network=_mapped(contents["network.onnx"], archive, path),
        chip=chip,
        chip_text=chip_text,
        mapping=mapping,
        state=safetensors.numpy.load(contents["state.safetensors"]),
        history=json.loads(contents["history.json"]),
    )


def _mapped(network: bytes, archive: zipfile.ZipFile, path: Path) -> ir.Model:
    """The network with its weights as views on the file."""
    model = ir.from_proto(onnx.ModelProto.FromString(network))
    entry = archive.getinfo(WEIGHTS)
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    bodies = (model.graph, *(function.graph for function in model.functions.values()))
    attributes = (a for body in bodies for node in body.all_nodes() for a in node.attributes.values())
    if any(isinstance(attribute.value, ir.ExternalTensor) for attribute in attributes):
        raise ValueError("external data in an attribute")
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            kind, shape = tensor.dtype.numpy(), tuple(tensor.shape.numpy())
            if (tensor.offset or 0) + math.prod(shape) * kind.itemsize > entry.file_size:
                raise ValueError(name)
            array = np.memmap(path, kind, "r", start + (tensor.offset or 0), shape)
            value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=name)
    return model


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
