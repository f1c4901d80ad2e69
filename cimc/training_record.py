"""What a `.cim` file tells of its training: figures, options, epochs, ranges by layer; as JSON and as texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cimc.artifact import Artifact
from cimc.dotted import dotted
from cimc.errors import CimcError
from cimc.options import OFF_ARRAYS
from cimc.programming_counts import DeviceWork, programming_counts

# What identifies data and source of a run beside its options.
_IDENTITY = ("data", "images", "data_sha256", "source_sha256")
# Figures with a name of their own; others, of other versions, are shown under their key.
_NAMES = {
    "accuracy": "test accuracy",
    "loss": "training loss of the last epoch",
    "epochs": "epochs",
    "best_epoch": "epoch whose state is kept",
    "steps": "steps",
    "weights": "weights",
    "updates": "updates",
    "updates_per_weight_mean": "updates per weight, mean",
    "updates_per_weight_max": "updates per weight, largest",
    "update_reduction": "fewer than programming every step",
    "threshold": "threshold, of the weight range",
    "devices_per_weight": "devices a weight needs",
    "device_writes": "devices written",
    "programming_trials": "programming trials or pulses",
    "first_writes": "devices written before the first step",
    "first_trials": "programming trials before the first step",
    "device_reads": "reads of single devices",
    "programming_energy_mj": "programming energy",
    "programming_time_ms": "programming time, one device after the other",
    "forward_energy_mj": "energy of the arrays, forward",
    "backward_energy_mj": "energy of the arrays, transposed reads",
    "calibration_energy_mj": "energy of the arrays, input ranges",
    "forward_conversions": "output conversions, forward",
    "backward_conversions": "output conversions, transposed reads",
    "gradient": "gradients",
    "tangents": "tangents a step",
    "optimizer": "optimiser",
    "array_time_ms": "time of the arrays, images pipelined",
    "digital_energy_mj": "energy of digital operators, forward",
    "row_writes": "row writes",
    "row_writes_per_step": "row writes a step",
    "write_row_reads": "reads of word lines in writes",
    "write_time_ms": "time of row writes, ports in parallel",
    "write_energy_mj": "energy of row writes with their reads",
    "first_write_time_ms": "time of the first programming",
    "first_write_energy_mj": "energy of the first programming",
    "write_port_utilization": "write ports in use, of the time of writes",
    "wait_steps_mean": "steps that a due weight waited, mean",
    "wait_steps_max": "steps that a due weight waited, most",
    "weights_waiting": "due weights that wait at the end",
    "pulses_per_device_mean": "pulses or trials of a device, mean",
    "pulses_per_device_max": "pulses or trials of a device, most",
    "endurance_used": "endurance used by the device written most",
    "lifetime_trainings": "trainings until that device is worn out",
    "calibrations": "times that input ranges were set",
    "images_per_s": "speed after start-up",
    "start_up_s": "start-up",
}
_EMPTY = {
    "programming_energy_mj": "not stated for this chip",
    "programming_time_ms": "not stated for this chip",
    "images_per_s": "too few steps to say",
    "digital_energy_mj": "not stated for this chip",
    "endurance_used": "not stated for this chip",
    "lifetime_trainings": "not stated for this chip",
}
# Of a layer, in a record of an epoch: the key and what it is called. The first two are shares from 0 to 1.
CLIPPING = {"clipped_inputs": "clipped inputs", "clipped_codes": "clipped ADC codes"}
UPDATES = "updates"  # of a layer, since the start
RANGES = {"input_range": "input range", "weight_range": "weight range"}


@dataclass(frozen=True)
class Training:
    """The training run in a `.cim` file."""

    # Steps done, and of the whole run.
    step: int
    steps: int
    # Policy and optimiser, by name; those of the policy are named `policy.<name>`.
    options: dict[str, Any]
    # Name of the data set, whether it is synthetic, and its number of training images.
    data: str
    synthetic: bool
    images: int
    # The version that wrote the run; None: written before this was noted.
    tool: str | None
    # One record an epoch: epoch, loss, accuracy (None where `measures` has none), lr, updates, writes, trials and, of
    # some versions, layers.
    epochs: list[dict[str, Any]]
    # The closing figures of `train`; of an unfinished run, or a file without them, what its state tells.
    figures: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose ranges are recorded, in their order."""
        return list(dict.fromkeys(name for record in self.epochs for name in record.get("layers") or {}))

    @property
    def last_layers(self) -> dict[str, dict[str, float]]:
        """Ranges and clipping shares by layer, each as last recorded."""
        return {
            layer: {key: course[-1][1] for key in (*RANGES, *CLIPPING) if (course := self.course(layer, key))}
            for layer in self.layers
        }

    def course(self, layer: str, key: str) -> list[tuple[float, float]]:
        """(epoch, value) of one of `CLIPPING` or `RANGES`, or `UPDATES`, where it is recorded."""
        records = ((record["epoch"], (record.get("layers") or {}).get(layer) or {}) for record in self.epochs)
        return [(float(epoch), float(values[key])) for epoch, values in records if values.get(key) is not None]


def read_training(artifact: Artifact) -> Training | None:
    """The training run in a `.cim` file; None where it was never trained.

    Raises:
        CimcError: the history is not one that this tool writes.
    """
    history = artifact.history
    if history.keys() <= {"layout"}:
        return None
    try:
        settings = dict(history["options"])
        epochs = [dict(record) for record in history["epochs"]]
        training = Training(
            step=int(history["step"]),
            steps=int(history["steps"]),
            options=dotted({name: value for name, value in settings.items() if name not in _IDENTITY}),
            data=str(settings["data"]),
            synthetic=bool(history["synthetic"]),
            images=int(settings["images"]),
            tool=history.get("tool"),
            epochs=epochs,
            figures=dict(history.get("figures") or _derived(artifact, epochs)),
        )
        for record in epochs:
            for key in ("epoch", "loss", "lr", "updates"):
                float(record[key])
            main_measure(record)
        for layer in training.layers:
            for key in (*CLIPPING, *RANGES, UPDATES):
                training.course(layer, key)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CimcError(f"the training history of {artifact.model} is damaged ({error!r}); train it again") from None
    return training


def main_measure(record: Mapping[str, Any]) -> tuple[str, float] | None:
    """Name and value of what the test set is measured by after an epoch: its accuracy, else the first measure.

    None where the test set has no labels.
    """
    if record["accuracy"] is not None:
        return "accuracy", float(record["accuracy"])
    first = next(iter(record["measures"].items()), None)
    return None if first is None else (str(first[0]), float(first[1]))


def measure_text(record: Mapping[str, Any]) -> str:
    """The main measure of an epoch without its name; a dash where there is none."""
    main = main_measure(record)
    if main is None:
        return "-"
    shares = main[0].endswith(("accuracy", "agreement"))
    return f"{main[1]:.2%}" if shares else f"{main[1]:.4g}"


def measure_name(epochs: Sequence[Mapping[str, Any]]) -> str:
    """The name of the main measure of a run's epochs."""
    main = main_measure(epochs[0]) if epochs else None
    return "accuracy" if main is None else main[0].replace("_", " ")


def _derived(artifact: Artifact, epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The closing figures as far as the counters in the state tell them."""
    counts = [array for name, array in artifact.state.items() if name.startswith("updates/")]
    updates = sum(int(array.sum(dtype="int64")) for array in counts)
    weights, step = artifact.mapping.cost.weights, int(artifact.history["step"])
    policy, stored = artifact.history["options"]["policy"], artifact.history.get("device_work")
    work = DeviceWork(**stored) if stored else DeviceWork(blind=policy.get("write") == "pulse")
    on_arrays = policy["method"] not in OFF_ARRAYS
    programming = programming_counts(artifact, artifact.state, work if on_arrays else None, step)
    # Earlier versions did not count the first programming, nor say what updates read.
    counted = any(name.startswith("first_trials/") for name in artifact.state)
    unknown = {*(() if counted else ("first_writes", "first_trials")), *(() if stored else ("device_reads",))}
    return {
        "accuracy": epochs[-1]["accuracy"] if epochs else None,
        "loss": epochs[-1]["loss"] if epochs else None,
        "epochs": len(epochs),
        "updates": updates,
        "updates_per_weight_mean": updates / weights,
        "updates_per_weight_max": max((int(array.max()) for array in counts), default=0),
        "update_reduction": step * weights / updates if updates else None,
        **{name: value for name, value in programming.items() if name not in unknown},
        "weights": weights,
        "steps": step,
    }


def figures(artifact: Artifact) -> dict[str, Any] | None:
    """JSON of `inspect` under `training`; None for a file that was never trained."""
    training = read_training(artifact)
    if training is None:
        return None
    return {
        "complete": training.complete,
        "step": training.step,
        "steps": training.steps,
        "data": training.data,
        "synthetic": training.synthetic,
        "images": training.images,
        "tool": training.tool,
        "figures": training.figures,
        "options": artifact.history["options"],
        "epochs": training.epochs,
    }


def progress_line(training: Training) -> str:
    """What was trained on what, how far, and by which version."""
    done = f"{training.step:,} of {training.steps:,} steps"
    on = f"on {training.images:,} images of {data_label(training)} by {training.tool or 'an unnamed version of cimc'}"
    if training.complete:
        return f"trained {on}: {done}"
    return f"checkpoint of an unfinished run {on}: {done}; cimc train with --resume and the same options goes on"


def data_label(training: Training) -> str:
    """The data set's name; a synthetic one says so."""
    return f"{training.data} (synthetic)" if training.synthetic else training.data


def figure_texts(closing: Mapping[str, Any]) -> dict[str, str]:
    """Closing figures by name, as texts: known ones in a fixed order, then those of other versions."""
    tables = {key for key, value in closing.items() if isinstance(value, Mapping | list)}
    order = [*(key for key in _NAMES if key in closing), *(key for key in closing if key not in {*_NAMES, *tables})]
    return {_NAMES.get(key, key.replace("_", " ")): _figure_text(key, closing[key]) for key in order}


def _figure_text(key: str, value: Any) -> str:
    if value is None:
        return _EMPTY.get(key, "-")
    if key in ("write_port_utilization", "endurance_used"):
        return f"{value:.2%}"
    if key == "accuracy":
        return f"{value:.2%}"
    if key == "update_reduction":
        return f"{value:.0f}x"
    if key.endswith("_mj"):
        return f"{value:.3g} mJ"
    if key.endswith("_ms"):
        return f"{value:.4g} ms"
    if key.endswith("_s"):
        return f"{value:.0f} samples/s" if key == "images_per_s" else f"{value:.1f} s"
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def option_texts(training: Training) -> dict[str, str]:
    """Options by name, as texts; what was left to the tool or the chip is `default`."""
    return {
        name: "default" if value is None else str(value) if isinstance(value, int) else _text(value)
        for name, value in training.options.items()
    }


def layer_rows(layers: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of the ranges and clipping shares of every layer, as in the record of an epoch."""
    rows = []
    for layer, values in layers.items():
        ranges = [f"{values[key]:.4g}" if key in values else "-" for key in RANGES]
        shares = [f"{values[key]:.3%}" if key in values else "-" for key in CLIPPING]
        rows.append([layer, *ranges, *shares])
    return ["layer", *RANGES.values(), *CLIPPING.values()], rows
