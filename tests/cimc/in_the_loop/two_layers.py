"""A network of two layers on a chip whose writes err, and what its first die holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cimc.package import Package
from cimc.program_files import array_targets
from runtime.deployment.population import chip_keys
from runtime.deployment.programming import program_chip
from runtime.network.load import load_network
from runtime.system.program import programmed_state
from runtime.system.state import System, build_system
from tests.networks import weights

INPUTS, HIDDEN, CLASSES, SEED = 30, 12, 4, 3
# Writes err by a tenth of the window, and reads not at all.
CHIP = {
    "array": {"rows": 32, "columns": 32, "columns_per_adc": 1},
    "cell": {"read_noise_uS": 0.0, "programming": {"error_sd_uS": 6.0}},
    "adc": {"noise_lsb": 0.0},
}


def parameters() -> tuple[np.ndarray, np.ndarray]:
    """Without a mean, so that the classes are of like size."""
    found = [weights(INPUTS, HIDDEN), weights(HIDDEN, CLASSES, seed=1)]
    return found[0] - found[0].mean(axis=0), found[1] - found[1].mean(axis=1, keepdims=True)


def system_of(package: Package) -> System:
    return build_system(load_network(package.network), package.mapping, package.chip)


def held_by_die(package: Package) -> dict[str, np.ndarray]:
    """What the die holds that `deploy` programs first with the seed."""
    system = system_of(package)
    chip = program_chip(system, programmed_state(system, package.program), chip_keys(SEED, 1)[0][0])
    return {name: np.asarray(conductance) for name, conductance in chip.items()}


def measurement(package: Package, layers: list[str], file: Path) -> dict[str, np.ndarray]:
    """A file with what the die holds of these layers, no other cell measured; and that by layer."""
    held = held_by_die(package)
    layers_of = {
        name: replace(layer, targets=held[name] if name in layers else np.full_like(layer.targets, np.nan))
        for name, layer in package.program.layers.items()
    }
    program = replace(package.program, layers=layers_of)
    np.savez(file, conductance_uS=array_targets(package.mapping, package.chip, program))
    return held
