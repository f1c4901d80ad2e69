"""Verify a file as it lies there: digests, versions, and that a package's model.onnx is what its targets compute."""

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from cimc.artifact import read_artifact
from cimc.errors import CimcError
from cimc.package import Package, read_package
from cimc.program import Program
from passes.chip_network import chip_network
from passes.verify import differences, random_inputs, run

IMAGES = 2


def verify(path: str | Path) -> dict[str, Any]:
    """Check a `.cim` file or a package against its own digests; nothing of it is trusted before.

    Returns:
        JSON values: kind, model, chip, layers, arrays; of a package `model_onnx`, the largest difference between the
        outputs of its model.onnx and of the network that its targets stand for, on random inputs.

    Raises:
        CimcError: missing, damaged, of a version that cannot be read, or model.onnx does not agree with the targets.
    """
    path = Path(path)
    contents = read_package(path) if path.is_dir() else read_artifact(path)
    figures: dict[str, Any] = {
        "kind": "package" if path.is_dir() else "artifact",
        "model": contents.model,
        "chip": contents.chip.name,
        "layers": len(contents.mapping.layers),
        "arrays": contents.mapping.arrays,
    }
    if isinstance(contents, Package):
        figures["model_onnx"] = _require_agreement(contents, path)
    return figures


def _require_agreement(package: Package, path: Path) -> float:
    """The largest difference of all outputs; 0 where the network is the same byte for byte."""
    # It holds the digital constants of the program already.
    network = ir.from_proto(onnx.ModelProto.FromString(package.network))
    wanted = chip_network(network, package.mapping, package.chip, Program(package.program.layers, {}))
    if ir.to_proto(wanted).SerializeToString() == package.chip_network:
        return 0.0
    # Written by another version, which may have spelled the same network otherwise.
    given = ir.from_proto(onnx.ModelProto.FromString(package.chip_network))
    feeds = random_inputs(network, IMAGES, 0, package.mapping.input_range)
    found = max(differences(run(wanted, feeds), run(given, feeds)), default=0.0)
    if found != 0:
        raise CimcError(
            f"package {path}: model.onnx differs by {found:.2g} from what its targets compute; export it again"
        )
    return found
