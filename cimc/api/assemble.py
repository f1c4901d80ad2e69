"""The package of what a network's state would write into a chip."""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from cimc.fault_map import Die
from cimc.package import Package
from cimc.wiring import Wiring
from passes.chip_network import chip_network
from passes.set_constants import set_constants
from runtime.system.products import state_as_read
from runtime.system.program import program_of
from runtime.system.state import State, System, gain_name


def assemble(
    lowered: ir.Model,
    system: System,
    state: State,
    *,
    model: str,
    chip_text: str,
    notes: dict[str, Any],
    die: Die | None = None,
    wiring: Wiring | None = None,
) -> Package:
    """The package with a state's conductances as targets.

    Args:
        lowered: the network, lowered.
        system, state: on the chip.
        model, chip_text, notes, die, wiring: as of `Package`.
    """
    program = program_of(system, state)
    constants = {node.inputs[1]: _weight(state, node.name) for node in system.network.layers()}
    seen = program_of(system, state_as_read(system, state))
    return Package(
        model=model,
        chip=system.chip,
        chip_text=chip_text,
        mapping=system.mapping,
        program=program,
        network=ir.to_proto(set_constants(lowered, {**constants, **program.digital})).SerializeToString(),
        chip_network=ir.to_proto(chip_network(lowered, system.mapping, system.chip, seen)).SerializeToString(),
        notes=notes,
        die=die,
        wiring=wiring,
    )


def _weight(state: State, layer: str) -> NDArray[np.float32]:
    """The weight of a layer in the network; where the gain on the chip is the chip's own, with the network's gain."""
    weight, gain = np.asarray(state["weight"][layer]), np.asarray(state["digital"][gain_name(layer)])
    # No copy where it would be the same: a network of many weights would be in memory once more.
    return weight * gain if layer in state["gain"] and np.any(gain != 1) else weight
