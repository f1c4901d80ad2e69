"""The figures of a run's row writes: how many, how long, at what energy, what waited, what it took of the devices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cimc.artifact import Artifact
from cimc.write_timeline import StepTimes, step_times
from runtime.training.layer_groups import trial_groups
from runtime.training.options import TrainingOptions
from runtime.training.row_writes import FIGURES, ports_of, total
from runtime.training.run import Run
from runtime.training.writes import scheduler_of

BINS = 12  # of the histogram of pulses a device, each twice as wide as the one before


def write_figures(
    artifact: Artifact, run: Run, options: TrainingOptions, counts: dict[str, Any], backward: float
) -> dict[str, Any]:
    """What `train --json` has of row writes.

    Args:
        artifact: the file that was trained.
        run: at its end.
        options: of the run.
        counts: of `programming_counts`.
        backward: time of an image backward over that forward; 0: digital.
    """
    mapping, chip, schedule = artifact.mapping, artifact.chip, run.state["schedule"]
    scheduler = scheduler_of(options.policy.rule, chip, mapping, None, 1)
    cost = scheduler.cost
    layers, first = total(schedule["layers"]), np.asarray(schedule["first"], np.float64)
    steps, time_us = max(run.step, 1), float(total(schedule["steps"])[0])
    rows, phases, pulses, _ = layers.sum(axis=0).tolist()
    first_rows, first_phases, first_pulses, _ = first.sum(axis=0).tolist()
    trials, first_trials = counts["programming_trials"], counts["first_trials"]
    ports = total(schedule["ports"])
    names = [layer.name for layer in mapping.layers]
    mean_us = {name: float(us) / steps for name, us in zip(names, layers[:, 3], strict=True)}
    times = step_times(
        mapping,
        mean_us,
        writes_us=time_us / steps,
        batch=options.batch_size,
        backward=backward,
        shared_ports=_share_ports(artifact),
    )
    return {
        "row_writes": round(rows),
        "row_writes_per_step": rows / steps,
        "write_row_reads": round(cost.reads(rows, phases, pulses)),
        "write_time_ms": time_us * 1e-3,
        "write_energy_mj": cost.energy_nj(rows, phases, pulses, trials) * 1e-6,
        "first_write_time_ms": float(schedule["first_us"][0]) * 1e-3,
        "first_write_energy_mj": scheduler.first.energy_nj(first_rows, first_phases, first_pulses, first_trials) * 1e-6,
        "write_port_utilization": float(ports.mean()) / time_us if time_us else None,
        **_waits(run),
        **_wear(artifact, run, trial_groups(options.policy.rule), first_trials),
        "write_assumed": list(dict.fromkeys((*cost.assumed, *scheduler.first.assumed))),
        "write_layers": {
            name: {**dict(zip(FIGURES[:3], map(round, row[:3].tolist()), strict=True)), "us_per_step": mean_us[name]}
            for name, row in zip(names, layers, strict=True)
        },
        "step": _step(times, cost.energy_nj(0, phases, 0, 0) + trials * cost.pulse_nj, steps)
        | {"row_reads_nj": cost.reads(rows, phases, pulses) * cost.read_nj / steps},
    }


def _share_ports(artifact: Artifact) -> bool:
    """Whether two layers have arrays at one write port."""
    port_of, owner = ports_of(artifact.mapping, artifact.chip), dict[int, str]()
    return any(
        owner.setdefault(port_of[block.array], layer.name) != layer.name
        for layer in artifact.mapping.layers
        for block in layer.blocks
    )


def _waits(run: Run) -> dict[str, Any]:
    """Steps that due weights waited, and how many wait at the end; nothing where none has to."""
    schedule = run.state["schedule"]
    if "waits" not in schedule:
        return {}
    waited, written = total(schedule["waits"]).tolist()
    waiting = [np.asarray(array) for name, array in schedule.items() if name.startswith("waiting_")]
    return {
        "wait_steps_mean": waited / written if written else None,
        "wait_steps_max": int(schedule["longest_wait"]),
        "weights_waiting": sum(int(np.count_nonzero(array)) for array in waiting),
    }


def _wear(artifact: Artifact, run: Run, counted: Sequence[str], first_trials: int) -> dict[str, Any]:
    """Pulses (or trials) of single devices, those of the first programming spread evenly, against their endurance.

    counted: the groups of the state that have them, those of a policy's further devices too.
    """
    groups = [run.state[name] for name in counted]
    taken = np.concatenate([np.asarray(array).ravel() for group in groups for array in group.values()])
    copies = {layer.name: layer.copies for layer in artifact.mapping.layers}
    devices = sum(array.size * copies[name] for group in groups for name, array in group.items())
    first, most, endurance = first_trials / devices, int(taken.max()), artifact.chip.cell.endurance
    limit = None if endurance is None else endurance.writes
    edges = [0, *(2**power for power in range(BINS - 1))]
    counts = np.histogram(taken, [*edges, max(most + 1, 2**BINS)])[0]
    return {
        "pulses_per_device_mean": float(taken.mean()),
        "pulses_per_device_max": most,
        "endurance_used": None if limit is None else (most + first) / limit,
        "lifetime_trainings": None if limit is None else limit / max(most + first, 1e-9),
        "pulses_per_device": [[edge, int(count)] for edge, count in zip(edges, counts, strict=True)],
    }


def _step(times: StepTimes, pulses_nj: float, steps: int) -> dict[str, Any]:
    """A step: its times, and the energy of pulses with their word lines."""
    return {
        "forward_us": times.forward_us,
        "backward_us": times.backward_us,
        "write_us": times.stall_us["apart"],
        "write_hidden_us": times.hidden_us,
        "stall_us": dict(times.stall_us),
        "pulses_nj": pulses_nj / steps,
        "layers": [
            {
                "name": layer.name,
                "forward_us": [layer.forward_start_us, layer.forward_stop_us],
                "write_us": [layer.write_start_us, layer.write_stop_us],
            }
            for layer in times.layers
        ],
    }
