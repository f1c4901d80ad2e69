"""The closing figures of a training run: accuracy, updates, what was written and read, and its energy and time."""

from dataclasses import fields
from typing import Any

import numpy as np

from cimc.api.write_figures import write_figures
from cimc.artifact import Artifact
from cimc.layer_settings import chip_of_layer
from cimc.mapping import Mapping
from cimc.options import Gradient, Keep
from cimc.programming_counts import programming_counts
from passes.mapper.reads import phases_of
from runtime.system.calibration import CALIBRATION_IMAGES
from runtime.system.input_ranges import RANGE_FACTORS, tried_images
from runtime.system.state import flatten_state
from runtime.system.watch import WATCHED_IMAGES
from runtime.training.frozen import all_frozen
from runtime.training.learning_rate import watched_loss
from runtime.training.objective import Objective
from runtime.training.options import TrainingOptions
from runtime.training.run import Run
from runtime.training.writes import device_work

# A weight that is written in more than this share of all steps gains nothing by the accumulator.
OFTEN = 0.5
# A loss above this share of one that does not look at the inputs has learnt next to nothing.
BLIND = 0.98


def training_figures(artifact: Artifact, run: Run, options: TrainingOptions, objective: Objective) -> dict[str, Any]:
    """What `train --json` prints.

    updates: times a weight was due. Writes, trials and reads: `programming_counts`. forward, backward,
    calibration_energy_mj: of the arrays with their converters, without the evaluation after each epoch; digital: of the
    operators between them, forward. Row writes: `write_figures`. images_per_s:
    of the steps after start-up, None where there were none. layers: ranges and clipping shares. warnings: what a user
    should know.

    Args:
        artifact: the file that was trained.
        run: at its end.
        options: of the run.
        objective: of the run.
    """
    weights, last, policy = artifact.mapping.cost.weights, run.history[-1], options.policy
    kept = min(run.history, key=watched_loss) if options.keep is Keep.best else last
    counted = flatten_state(run.state) | {f"first_trials/{name}": np.asarray(n) for name, n in run.first_trials.items()}
    on_arrays, updates = policy.compute.on_arrays, int(last["updates"])
    work = device_work(policy.rule, artifact.chip) if on_arrays else None
    figures = {
        "accuracy": kept["accuracy"],
        **({"measures": kept["measures"]} if "measures" in kept else {}),
        **({"validation": kept["validation"]} if "validation" in kept else {}),
        "loss": kept["loss"],
        "epochs": len(run.history),
        **({"best_epoch": kept["epoch"]} if options.keep is Keep.best else {}),
        "images_per_s": run.clock.images / run.clock.seconds if run.clock.images else None,
        "start_up_s": run.clock.start_up_s,
        "updates": updates,
        "updates_per_weight_mean": updates / weights,
        "updates_per_weight_max": max(int(np.max(counts)) for counts in run.state["updates"].values()),
        "update_reduction": run.step * weights / updates if updates else None,
        "weights": weights,
        "steps": run.step,
        "threshold": policy.rule.threshold(artifact.chip) if on_arrays else None,
        "gradient": str(options.gradient),
        "tangents": 0 if options.gradient is Gradient.backward else options.tangents,
        "optimizer": str(options.optimizer),
        "layers": last["layers"],
        "warnings": _learnt(last["loss"], objective.blind),
        **programming_counts(artifact, counted, work, run.step),
    }
    if on_arrays:
        figures |= _array_work(artifact, run, options)
        forward_ms = artifact.mapping.cost.pipelined_latency_ms  # 0 on an ideal chip
        ratio = _transposed_reads(artifact.mapping)[1] / forward_ms if forward_ms else 0.0
        figures |= write_figures(artifact, run, options, figures, ratio if policy.backward == "analog" else 0.0)
        figures["devices_per_weight"] = artifact.chip.devices_per_weight * (1 + len(policy.rule.tiles))
        if not all_frozen(run.state["updates"], options.freeze):
            figures["warnings"] += _warnings(updates / (run.step * weights), figures["threshold"], options)
    return figures


def _array_work(artifact: Artifact, run: Run, options: TrainingOptions) -> dict[str, Any]:
    """Energy of the arrays over the run by what they did, and the time of the steps with images pipelined.

    conversions: of the output converters in the steps, forward and by transposed reads.
    """
    cost, analog = artifact.mapping.cost, options.policy.backward == "analog"
    backward_mj, backward_ms = _transposed_reads(artifact.mapping) if analog else (0.0, 0.0)
    forward, transposed = _conversions(artifact)
    images, chosen = run.step * options.batch_size, int(run.watch.calibrations)
    looked, calibration = int(run.watch.looks) + chosen, 0.0
    digital = [layer.digital_mj for layer in cost.layers]
    for layer, mapped in zip(cost.layers, artifact.mapping.layers, strict=True):
        tried = tried_images(mapped.positions) if mapped.operator == "CrossbarConv" else CALIBRATION_IMAGES
        converts = chip_of_layer(artifact.chip, mapped.settings).input.bits is not None
        ranges = len(RANGE_FACTORS) if converts else 0  # ideal converters have none to try
        once = min(tried, CALIBRATION_IMAGES) * ranges + CALIBRATION_IMAGES
        calibration += (chosen * once + looked * WATCHED_IMAGES) * layer.energy_mj
    return {
        "forward_energy_mj": images * cost.energy_mj,
        "backward_energy_mj": images * backward_mj,
        "calibration_energy_mj": calibration,
        "digital_energy_mj": None if None in digital else images * sum(mj for mj in digital if mj is not None),
        "forward_conversions": images * forward,
        "backward_conversions": images * transposed if analog else 0,
        "array_time_ms": images * (cost.pipelined_latency_ms + backward_ms),
        "calibrations": chosen,
    }


def _conversions(artifact: Artifact) -> tuple[int, int]:
    """Conversions of one image, in forward and in transposed reads: of every line in use, read and phase."""
    chip, forward, transposed = artifact.chip, 0, 0
    for layer in artifact.mapping.layers:
        of_line = layer.positions * chip.physical_per_array
        inputs = chip_of_layer(chip, layer.settings).input
        cycles = inputs.signed_conversions if layer.signed_input else inputs.conversions
        forward += (
            of_line * phases_of(layer, chip) * cycles * len(layer.read_bounds) * layer.columns * chip.columns_per_weight
        )
        transposed += of_line * 2 * layer.rows * chip.rows_per_weight * len(layer.column_bounds)
    return forward, transposed


def _transposed_reads(mapping: Mapping) -> tuple[float, float]:
    """Energy in mJ and interval in ms of the transposed reads of one image.

    They drive columns and convert rows, all rows at once, however many the forward reads drive.
    """
    energy, slowest, forward = 0.0, 0.0, 0.0
    for cost, layer in zip(mapping.cost.layers, mapping.layers, strict=True):
        start, stop = layer.row_bounds[0]
        energy += cost.energy_mj * len(layer.row_bounds) / len(layer.read_bounds)
        slowest = max(slowest, cost.latency_ms / -(-(stop - start) // layer.read_rows))
        forward = max(forward, cost.latency_ms)
    return energy, mapping.cost.pipelined_latency_ms * (slowest / forward if forward else 1.0)


def _learnt(loss: float, blind: float | None) -> list[str]:
    """loss: of the last epoch. blind: without a look at the inputs."""
    if blind is None or loss < BLIND * blind:
        return []
    return [
        f"the loss, {loss:.3g}, is that of an answer that does not look at its inputs ({blind:.3g}): nothing is learnt "
        "yet; train longer (--epochs) or raise --lr, and see by --update float whether the network can learn it"
    ]


def _warnings(share: float, threshold: float, options: TrainingOptions) -> list[str]:
    """share: updates a weight and step."""
    now = f"now {threshold:.3g} of the weight range"
    accumulates = "threshold" in {option.name for option in fields(options.policy.rule.options)}
    if not share:
        what = f"no update passed the threshold; lower --threshold ({now})" if accumulates else "raise --lr"
        return [f"no weight was ever written: {what} or train longer"]
    if share > OFTEN and accumulates:
        return [
            f"a weight is written in {share:.0%} of all steps, so that the accumulator saves little; raise --threshold "
            f"({now}) or lower --lr"
        ]
    return []
