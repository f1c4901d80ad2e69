"""The package of what a network's state would write into a chip."""

from typing import Any

import numpy as np
import onnx_ir as ir

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
    # Where the gain is the chip's own, the network's weights hold the network's.
    constants = {
        node.inputs[1]: state["weight"][node.name]
        * (state["digital"][gain_name(node.name)] if node.name in state["gain"] else np.float32(1))
        for node in system.network.layers()
    }
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
