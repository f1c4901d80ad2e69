"""Writes, trials and reads of devices in a training run, over all copies of each layer, and what the trials cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cimc.artifact import Artifact
from cimc.row_cost import stated_pulse

TILE_TRIALS = "_trials"  # after the name of a tile


@dataclass(frozen=True)
class DeviceWork:
    """What the updates of a run ask of single devices.

    blind: pulses without a read after each. update_reads: of each device of a due weight, before its write and after
    it. step_reads: of a weight in every step, of policies that keep no digital copy.
    """

    blind: bool
    update_reads: int = 0
    step_reads: float = 0.0


def tile_groups(state: Mapping[str, np.ndarray]) -> list[str]:
    """The groups of a flat state that count the trials of a policy's further devices, a group for each of its tiles."""
    groups = {name.partition("/")[0] for name in state}
    return sorted(group for group in groups if group.endswith(TILE_TRIALS) and group != "first_trials")


def programming_counts(
    artifact: Artifact, state: Mapping[str, np.ndarray], work: DeviceWork | None, steps: int
) -> dict[str, Any]:
    """The figures of programming, as `train --json` has them.

    device_writes, programming_trials: since step 0; first_writes, first_trials: before it, when all devices were
    programmed. device_reads: of single devices: all once after the first programming, and as `work` says.
    programming_energy_mj, programming_time_ms: of all trials or pulses, those of the first programming closed loop, the
    time as if of one device after the other; None where the chip file does not state them. Further devices of a policy
    are in the trials and the first writes, cells of reference columns in the first ones.

    Args:
        artifact: the trained file's chip and mapping.
        state: flat, as in the file: `writes/<layer>` and so on, counts of one copy.
        work: what updates ask of devices; None: nothing, weights are trained off the arrays.
        steps: so far.
    """
    copies = {layer.name: layer.copies for layer in artifact.mapping.layers}

    def count(group: str) -> int:
        found = ((name, state[f"{group}/{name}"]) for name in copies if f"{group}/{name}" in state)
        return sum(int(np.sum(array, dtype=np.int64)) * copies[name] for name, array in found)

    tiles = tile_groups(state)
    trials, first_trials = count("trials") + sum(map(count, tiles)), count("first_trials")
    first_writes = 0
    if first_trials:
        written = sum(state[f"writes/{name}"].size * n for name, n in copies.items())
        columns = ((state.get(f"reference_column/{name}"), n) for name, n in copies.items())
        references = sum(held.size * n for held, n in columns if held is not None)
        first_writes = written * (1 + len(tiles)) + references
    energy_nj = time_us = None
    reads = first_writes
    if work is not None:
        (first_us, first_nj), (us, nj) = (stated_pulse(artifact.chip, blind=blind) for blind in (False, work.blind))
        time_us, energy_nj = _sum(first_trials, first_us, trials, us), _sum(first_trials, first_nj, trials, nj)
        reads += 2 * work.update_reads * count("updates")
        reads += round(work.step_reads * steps * artifact.mapping.cost.weights)
    return {
        "device_writes": count("writes"),
        "programming_trials": trials,
        "first_writes": first_writes,
        "first_trials": first_trials,
        "device_reads": reads,
        "programming_energy_mj": None if energy_nj is None else energy_nj * 1e-6,
        "programming_time_ms": None if time_us is None else time_us * 1e-3,
    }


def _sum(first: int, of_first: float | None, others: int, of_other: float | None) -> float | None:
    """What so many trials take that the first programming needed, and so many others; None: not stated of one."""
    if of_first is None or of_other is None:
        return None
    return (first + others) * of_other + first * (of_first - of_other)  # exact where both take the same
