"""The closing figures of a training run: accuracy, updates, what was written and read, and its energy and time."""

from typing import Any

import numpy as np

from cimc.artifact import Artifact
from runtime.calibration import CALIBRATION_IMAGES, RANGE_FACTORS, WATCHED_IMAGES, tried_images
from runtime.options import TrainingOptions
from runtime.train import Run

# A weight that is written in more than this share of all steps gains nothing by the accumulator.
OFTEN = 0.5


def training_figures(artifact: Artifact, run: Run, options: TrainingOptions) -> dict[str, Any]:
    """What `train --json` prints.

    Counts of devices are over all copies of a layer. updates: times a weight was due. device_writes,
    programming_trials: since step 0; first_writes, first_trials: before it, when all devices were programmed.
    device_reads: of single devices, once after the first programming, and of both devices of a due weight before and
    after its write. programming_energy_mj, programming_time_ms: of all trials or pulses, the time as if of one device
    after the other; None where the chip file does not state them. forward, backward, calibration_energy_mj: of the
    arrays with their converters, without the evaluation after each epoch. images_per_s: of the steps after start-up,
    None where there were none. layers: ranges and clipping shares. warnings: what a user should know.

    Args:
        artifact: the file that was trained.
        run: at its end.
        options: of the run.
    """
    weights, last, policy = artifact.mapping.cost.weights, run.history[-1], options.policy
    on_arrays, updates = policy.method != "float", int(last["updates"])
    figures = {
        "accuracy": last["accuracy"],
        "loss": last["loss"],
        "epochs": len(run.history),
        "images_per_s": run.clock.images / run.clock.seconds if run.clock.images else None,
        "start_up_s": run.clock.start_up_s,
        "updates": updates,
        "updates_per_weight_mean": updates / weights,
        "updates_per_weight_max": max(int(np.max(counts)) for counts in run.state["updates"].values()),
        "update_reduction": run.step * weights / updates if updates else None,
        "weights": weights,
        "steps": run.step,
        "threshold": policy.threshold_for(artifact.chip) if on_arrays else None,
        "layers": last["layers"],
        "warnings": [],
        **_programming(artifact, run, options),
    }
    if on_arrays:
        figures |= _array_work(artifact, run, options)
    if on_arrays and policy.method != "naive" and updates > OFTEN * run.step * weights:
        share = updates / (run.step * weights)
        figures["warnings"] = [
            f"a weight is written in {share:.0%} of all steps, so that the accumulator saves little; raise --threshold "
            f"(now {figures['threshold']:.3g} of the weight range) or lower --lr"
        ]
    return figures


def _programming(artifact: Artifact, run: Run, options: TrainingOptions) -> dict[str, Any]:
    """Writes, trials and reads of devices, and the energy and time of all trials."""
    copies = {layer.name: layer.copies for layer in artifact.mapping.layers}
    policy, stated = options.policy, artifact.chip.cell.programming

    def count(group: str) -> int:
        return sum(int(np.sum(np.asarray(a), dtype=np.int64)) * copies[n] for n, a in run.state[group].items())

    first_trials = sum(int(trials) * copies[name] for name, trials in run.first_trials.items())
    first_writes = sum(a.size * copies[n] for n, a in run.state["conductance"].items()) if first_trials else 0
    trials = count("trials")
    reads_a_write = 2 * ((policy.sync != "target") + (policy.sync == "readback"))
    total = trials + first_trials if policy.method != "float" else None
    return {
        "device_writes": count("writes"),
        "programming_trials": trials,
        "first_writes": first_writes,
        "first_trials": first_trials,
        "device_reads": first_writes + reads_a_write * count("updates"),
        "programming_energy_mj": None if total is None or stated.pulse_nj is None else total * stated.pulse_nj * 1e-6,
        "programming_time_ms": None if total is None or stated.pulse_us is None else total * stated.pulse_us * 1e-3,
    }


def _array_work(artifact: Artifact, run: Run, options: TrainingOptions) -> dict[str, Any]:
    """Energy of the arrays over the run by what they did, and the time of the steps with images pipelined."""
    cost, analog = artifact.mapping.cost, options.policy.backward == "analog"
    images, chosen = run.step * options.batch_size, int(run.watch.calibrations)
    looked, calibration = int(run.watch.looks) + chosen, 0.0
    for layer, mapped in zip(cost.layers, artifact.mapping.layers, strict=True):
        tried = tried_images(mapped.positions) if mapped.operator == "CrossbarConv" else CALIBRATION_IMAGES
        once = min(tried, CALIBRATION_IMAGES) * len(RANGE_FACTORS) + CALIBRATION_IMAGES
        calibration += (chosen * once + looked * WATCHED_IMAGES) * layer.energy_mj
    return {
        "forward_energy_mj": images * cost.energy_mj,
        "backward_energy_mj": images * cost.energy_mj if analog else 0.0,
        "calibration_energy_mj": calibration,
        "array_time_ms": (1 + analog) * images * cost.pipelined_latency_ms,
        "calibrations": chosen,
    }
