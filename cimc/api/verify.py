"""Verify a file as it lies there: digests, versions, and that a package's model.onnx is what its targets compute."""

from collections.abc import Mapping as Dictionary
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from cimc.artifact import read_artifact
from cimc.errors import CimcError
from cimc.layer_settings import chip_of_layer
from cimc.package import Package, read_package
from cimc.program import LayerProgram, Program
from passes.chip_network import chip_network
from passes.judge import size_of
from passes.messages import one_line
from passes.verify import differences, random_inputs, run

IMAGES = 2
WIRES_ROUNDING = 1e-3  # of the outputs


def _as_read(package: Package) -> Dictionary[str, LayerProgram]:
    """The layers with the conductances that reads see through the wires of their arrays, as in model.onnx."""
    layers = package.program.layers
    if not package.chip.wires.in_conductances:
        return layers
    import jax.numpy as jnp

    from runtime.crossbar.cell_wires import as_read, cell_wires_of

    def seen(name: str) -> LayerProgram:
        chip = chip_of_layer(package.chip, package.mapping.layer(name).settings)
        wires, targets = cell_wires_of(package.mapping, name, chip), jnp.asarray(layers[name].targets)
        return replace(layers[name], targets=np.asarray(as_read(wires, targets)))

    return {name: seen(name) for name in layers}


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
    try:
        network = ir.from_proto(onnx.ModelProto.FromString(package.network))
        given = ir.from_proto(onnx.ModelProto.FromString(package.chip_network))
        # It holds the digital constants of the program already.
        wanted = chip_network(network, package.mapping, package.chip, Program(_as_read(package), {}))
        ir.to_proto(given)  # what can be read need not be a network that can be written
    # Whoever makes the digests anew can put nonsense into a network.
    except Exception as error:
        raise CimcError(
            f"package {path} holds a network that is damaged ({one_line(error)}); export it again"
        ) from None
    if ir.to_proto(wanted).SerializeToString() == package.chip_network:
        return 0.0
    # Written by another version, which may have spelled the same network otherwise.
    feeds = random_inputs(network, IMAGES, 0, package.mapping.input_range)
    found = max(differences(run(wanted, feeds), run(given, feeds)), default=0.0)
    # Wires are solved to the rounding of this machine.
    allowed = WIRES_ROUNDING * max(size_of(y) for y in run(given, feeds)) if package.chip.wires.in_conductances else 0
    if found > allowed:
        raise CimcError(
            f"package {path}: model.onnx differs by {found:.2g} from what its targets compute; export it again"
        )
    return found
