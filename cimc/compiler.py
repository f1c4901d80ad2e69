"""Compile: from an ONNX file to a verified mapping on a chip. Needs no JAX, so that it starts at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from cimc.artifact import Artifact, write_artifact
from cimc.chip import chip_text, parse_chip
from cimc.files import require_different
from passes.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from passes.verify_mapping import mapping_differences


@dataclass(frozen=True)
class Compiled:
    """Result of `compile_model`. verify_*: largest absolute difference of the outputs from onnxruntime's on the
    original network, with ideal converters and with the chip's; None when not verified.
    """

    artifact: Artifact
    verify_ideal: float | None
    verify_chip: float | None


def compile_model(
    model: Path,
    chip: str,
    output: Path | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    max_chips: int | None = None,
    row_split: Literal["channel", "flat"] | None = None,
    verify: bool = True,
) -> Compiled:
    """Lower an ONNX network, map it on a chip, compare it with onnxruntime, and write a `.cim` file.

    Args:
        model: the ONNX file.
        chip: name of a built-in chip or path of a TOML file.
        output: the `.cim` file; None: nothing is written.
        input_range: least and greatest value of the network's input; a negative one makes the first layer signed.
        max_chips: refuse a network that needs more chips.
        row_split: in place of the chip's own.
        verify: run the comparison.

    Raises:
        CimcError: one line for everything that can be wrong with the files and the network.
    """
    if output is not None:
        require_different(model, output)
    text = chip_text(chip)
    description = parse_chip(text, chip)
    network = read_network(Path(model))
    lowered = lower(network)
    mapping = map_network(lowered, description, input_range, max_chips, row_split)
    differences = mapping_differences(network, lowered, mapping, description) if verify else (None, None)
    artifact = Artifact(Path(model).stem, ir.to_proto(lowered).SerializeToString(), description, text, mapping)
    if output is not None:
        write_artifact(output, artifact)
    return Compiled(artifact, *differences)
