"""From a `.cim` file to the package for an inference chip."""

from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import onnx_ir as ir

from cimc.api.system_of import system_of
from cimc.artifact import read_artifact
from cimc.chip import chip_text, parse_chip
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.package import Package, write_package
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.set_constants import set_constants
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.network.load import load_network
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.evaluate import images_for
from runtime.system.program import program_of, with_program
from runtime.system.state import build_system, read_back

# Reads of every device at export: their mean leaves a quarter of the read noise.
EXPORT_READS = 16


def export(
    source: Path,
    chip: str | None,
    output: Path,
    data: Dataset | None = None,
    weights: Literal["devices", "digital"] = "devices",
    seed: int = 0,
) -> Package:
    """Remap a `.cim` file's weights to an inference chip and write the package to program it.

    Args:
        source: trained, or compiled (then `data` is needed to set the input ranges).
        chip: name or path; None: the chip it was compiled for.
        output: the package folder.
        data: set the input ranges on its training images rather than on those kept in the `.cim`.
        weights: of a network trained on arrays: those of its devices, read 16 times, or the digital copy. The network
            has learnt around the errors of its devices, which the digital copy does not hold.
        seed: of the noise of reads and calibration.
    """
    use_compilation_cache()
    artifact = read_artifact(source)
    text = artifact.chip_text if chip is None else chip_text(chip)
    target = parse_chip(text, chip or str(source))
    lowered = artifact.network
    mapping = (
        artifact.mapping
        if chip is None
        else map_network(lowered, target, options=MappingOptions(input_range=artifact.mapping.input_range))
    )
    system = build_system(load_network(artifact.network), mapping, target)
    trained_on, state, programmed = system_of(artifact, source)
    if programmed and weights == "devices":
        state = read_back(trained_on, state, jax.random.fold_in(new_key(seed), 1), EXPORT_READS)
    if data is not None:
        images = images_for(system, data.x_train[calibration_index(seed, len(data.x_train))], data)
        scale = data.scale
    elif "calibration/images" in artifact.state:
        images, scale = artifact.state["calibration/images"], float(artifact.history["scale"])
    else:
        raise CimcError(f"{source} was never trained, so its input ranges are not known; add --data to set them")
    state = with_program(state, program_of(system, state))
    state = calibrate(system, state, jnp.asarray(images), scale, new_key(seed))
    result = program_of(system, state)
    constants = {node.inputs[1]: state["weight"][node.name] for node in system.network.layers()}
    package = Package(
        model=artifact.model,
        chip=target,
        chip_text=text,
        mapping=mapping,
        program=result,
        network=ir.to_proto(set_constants(lowered, {**constants, **result.digital})).SerializeToString(),
        chip_network=ir.to_proto(chip_network(lowered, mapping, target, result)).SerializeToString(),
        notes={"trained_on": artifact.chip.name, "training": artifact.history.get("options", {})},
    )
    write_package(output, package)
    return package
