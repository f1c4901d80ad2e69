"""A training run in a `.cim` file: saved between two steps, and taken up again."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cimc.artifact import Artifact, network_digest
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from cimc.version import __version__
from runtime.system.calibration import calibration_index
from runtime.system.state import State, flatten_state
from runtime.training.options import TrainingOptions
from runtime.training.run import Run
from runtime.training.writes import device_work

# Options that runs have always had; others are stored where they are not as they are left out.
_FIRST_OPTIONS = ("policy", "epochs", "steps_per_epoch", "batch_size", "lr", "schedule", "weight_decay", "seed")
_DEFAULTS = TrainingOptions()
_REFERENCES = "reference_column/"
_BEST = "best/"  # names of the state of the best epoch so far
_KEPT = "calibration/"  # names of the kept samples: `images` for the only input, else the input's
# Closing figures that a clock gave: they are of the machine, and a run that repeats must write the same bytes.
CLOCKED = frozenset({"images_per_s", "start_up_s"})


def checkpoint(
    source: Artifact,
    run: Run,
    *,
    total: int,
    options: TrainingOptions,
    data: Dataset,
    figures: Mapping[str, Any] | None = None,
    begun: Mapping[str, Any] | None = None,
) -> Artifact:
    """The `.cim` file of a run, with all that it needs to go on, and the images that calibrate its input ranges.

    figures: the closing ones of a complete run (JSON values), kept but for those in `CLOCKED`; None: not complete, and
        what they are counted by is kept.
    begun: the conductances that it began with, counted (JSON values).
    """
    kept = data.train.take(calibration_index(options.seed, len(data.train))).inputs
    leaves = jax.tree.leaves(run.optimizer)
    flat = flatten_state(run.state) | {f"optimizer/{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    flat |= {f"watch/{index}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(run.watch))}
    flat |= {f"first_trials/{name}": np.asarray(trials) for name, trials in run.first_trials.items()}
    flat |= {_KEPT + ("images" if len(kept) == 1 else name): np.asarray(array) for name, array in kept.items()}
    flat |= {_BEST + name: array for name, array in flatten_state(run.best or {}).items()}
    flat["run/loss_sum"] = np.asarray(run.loss_sum)
    history = {
        "options": _settings(source, options, data),
        "step": run.step,
        "steps": total,
        "epochs": list(run.history),
        "preprocess": asdict(data.preprocess),
        "synthetic": data.synthetic,
        "tool": f"cimc {__version__}",
    }
    if begun:
        history["begun"] = dict(begun)
    if "layout" in source.history:
        history["layout"] = source.history["layout"]
    if figures is not None:
        history["figures"] = {name: value for name, value in figures.items() if name not in CLOCKED}
    elif options.policy.compute.on_arrays:
        history["device_work"] = asdict(device_work(options.policy.rule, source.chip))
    return replace(source, state=flat, history=history)


def load_run(
    artifact: Artifact, fresh: Run, *, source: Artifact, options: TrainingOptions, data: Dataset, path: Path
) -> Run:
    """The run saved in `artifact`, in the structure of a `fresh` one.

    Raises:
        CimcError: it was started with other options or other data, or holds no run of this network.
    """
    wanted, saved = _settings(source, options, data), artifact.history.get("options")
    if saved is None:
        raise CimcError(f"{path} holds no training run to resume; leave out --resume or choose another output")
    both = [{key for key in found.get("policy", {}) if key != "settings"} for found in (saved, wanted)]
    if both[0] != both[1] or "watch/0" not in artifact.state:
        raise CimcError(f"{path} holds a run of another version of cimc; leave out --resume to start anew")
    changed = [key for key in dict.fromkeys([*wanted, *saved]) if saved.get(key) != wanted.get(key)]
    if "policy" in changed:
        before, after = saved["policy"], wanted["policy"]
        names = dict.fromkeys([*before, *after])
        changed[changed.index("policy")] = ", ".join(key for key in names if before.get(key) != after.get(key))
    if changed:
        raise CimcError(
            f"{path} was started with other settings ({', '.join(changed)}); use the same ones or leave out --resume"
        )
    leaves, structure = jax.tree.flatten(fresh.optimizer)
    try:
        like = fresh.state
        if not any(name.startswith(_REFERENCES) for name in artifact.state):
            like = {**like, "reference_column": {}}  # of an earlier version: as they are to be
        state = _stored(artifact, like)
        stored = [jax.device_put(artifact.state[f"optimizer/{index}"]) for index in range(len(leaves))]
        if [leaf.shape for leaf in stored] != [leaf.shape for leaf in leaves]:
            raise CimcError(f"{path} holds a run of another version of cimc; leave out --resume to start anew")
        watched, watch = jax.tree.flatten(fresh.watch)
        kept = any(name.startswith(_BEST) for name in artifact.state)
        return Run(
            state=state,
            optimizer=jax.tree.unflatten(structure, stored),
            step=int(artifact.history["step"]),
            loss_sum=jax.device_put(artifact.state["run/loss_sum"]),
            history=tuple(artifact.history["epochs"]),
            watch=jax.tree.unflatten(
                watch, [jax.device_put(artifact.state[f"watch/{index}"]) for index in range(len(watched))]
            ),
            first_trials={name: jax.device_put(artifact.state[f"first_trials/{name}"]) for name in fresh.first_trials},
            best=_stored(artifact, like, _BEST) if kept else None,
        )
    except KeyError as error:
        raise CimcError(f"{path} holds another network's run ({error} is missing); leave out --resume") from None


def _stored(artifact: Artifact, like: State, prefix: str = "") -> State:
    """The stored state of the groups and names that `like` has. Raises KeyError for one that is missing."""
    return {
        group: {name: jax.device_put(artifact.state[f"{prefix}{group}/{name}"]) for name in arrays}
        for group, arrays in like.items()
    }


def calibration_samples(artifact: Artifact) -> tuple[Samples, Preprocess] | None:
    """The training samples that set the input ranges, as a trained `.cim` file keeps them; None where it keeps none."""
    kept = {name.removeprefix(_KEPT): array for name, array in artifact.state.items() if name.startswith(_KEPT)}
    if not kept:
        return None
    # Before it was there: a scale.
    stated = artifact.history.get("preprocess", {"scale": artifact.history.get("scale", 1.0)})
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stated.items()}
    if list(kept) == ["images"]:
        kept = {"": kept["images"]}  # of the only input
    return Samples(kept), Preprocess(**fields)


def _settings(source: Artifact, options: TrainingOptions, data: Dataset) -> dict[str, Any]:
    """What a resumed run must share with its start: the options, the data, and the file it trains."""
    origin = hashlib.sha256(
        network_digest(source.network) + source.chip_text.encode() + source.mapping.model_dump_json().encode()
    )
    for name, array in sorted(source.state.items()):
        origin.update(name.encode() + np.ascontiguousarray(array).tobytes())
    samples = hashlib.sha256(b"".join(_digested(data.train)))
    described = asdict(options)
    for option in fields(options):
        # Runs of before it was an option.
        if option.name not in _FIRST_OPTIONS and getattr(options, option.name) == getattr(_DEFAULTS, option.name):
            del described[option.name]
    described = {name: list(value) if isinstance(value, tuple) else value for name, value in described.items()}
    settings = described["policy"].pop("settings")
    if settings:
        described["policy"]["settings"] = {name: str(value) for name, value in settings}
    return {
        **described,
        "data": data.name,
        "images": len(data.train),
        "data_sha256": samples.hexdigest(),
        "source_sha256": origin.hexdigest(),
    }


def _digested(samples: Samples) -> Iterator[bytes]:
    """What tells samples from others: their labels, and the first of the inputs; names where there are several."""
    several = isinstance(samples.labels, Mapping)
    labels = samples.labels if isinstance(samples.labels, Mapping) else {"": samples.labels}
    for name, array in labels.items():
        if array is not None:
            yield (name.encode() if several else b"") + np.ascontiguousarray(array).tobytes()
    for name, array in samples.inputs.items():
        yield (name.encode() if len(samples.inputs) > 1 else b"") + array[:256].tobytes()
