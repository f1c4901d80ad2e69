"""Writes, trials and reads of devices in a training run, over all copies of each layer, and what the trials cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cimc.artifact import Artifact
from cimc.options import OFF_ARRAYS, Sync, Write, sync_of

TILE_TRIALS = "_trials"  # after the name of a tile


def tile_groups(state: Mapping[str, np.ndarray]) -> list[str]:
    """The groups of a flat state that count the trials of a policy's further devices, a group for each of its tiles."""
    groups = {name.partition("/")[0] for name in state}
    return sorted(group for group in groups if group.endswith(TILE_TRIALS) and group != "first_trials")


def programming_counts(
    artifact: Artifact, state: Mapping[str, np.ndarray], policy: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of programming, as `train --json` has them.

    device_writes, programming_trials: since step 0; first_writes, first_trials: before it, when all devices were
    programmed. device_reads: of single devices, as far as due weights need them: all once after the first programming,
    and both of a weight before its write (but with `sync` target) and after it (with readback). programming_energy_mj,
    programming_time_ms: of all trials or pulses, the time as if of one device after the other; None where the chip file
    does not state them. Further devices of a policy are in the trials and the first writes, cells of reference columns
    in the first ones.

    Args:
        artifact: the trained file's chip and mapping.
        state: flat, as in the file: `writes/<layer>` and so on, counts of one copy.
        policy: options of the update by name.
    """
    copies = {layer.name: layer.copies for layer in artifact.mapping.layers}
    stated = artifact.chip.cell.programming

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
    sync = sync_of(Sync(policy["sync"]), Write(policy.get("write", Write.verify)), artifact.chip.cell)
    reads_a_weight = 2 * ((sync != "target") + (sync == "readback"))
    total = None if policy["method"] in OFF_ARRAYS else trials + first_trials
    return {
        "device_writes": count("writes"),
        "programming_trials": trials,
        "first_writes": first_writes,
        "first_trials": first_trials,
        "device_reads": first_writes + reads_a_weight * count("updates"),
        "programming_energy_mj": None if total is None or stated.pulse_nj is None else total * stated.pulse_nj * 1e-6,
        "programming_time_ms": None if total is None or stated.pulse_us is None else total * stated.pulse_us * 1e-3,
    }
