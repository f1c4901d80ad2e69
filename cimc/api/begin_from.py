"""Fine-tuning: a compiled file that begins with the weights of another network of the same layers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jax import Array

from cimc.api.compile import compile_model
from cimc.api.progress import Note
from cimc.api.sources import Source, artifact_of
from cimc.api.system_of import state_of, system_of
from cimc.artifact import Artifact
from cimc.errors import CimcError
from runtime.system.state import State, System, flatten_state, gain_name, largest_weight


def begin_from(artifact: Artifact, source: Source, note: Note) -> Artifact:
    """The compiled file with the weights, biases and normalisation of another as a float-trained one would have them.

    Layers are found by their names, and so are digital parameters; what is not there or has another shape begins as
    compiled, which `note` is told.

    Args:
        artifact: a compiled file.
        source: a `.cim` file, its contents, or an ONNX file.
        note: called with a line for what does not fit.

    Raises:
        CimcError: the file is trained already, or nothing of the source fits.
    """
    if artifact.state:
        raise CimcError(
            "--init-from begins with other weights, but the file to train is trained already; give a compiled one, or "
            "leave out --init-from"
        )
    if isinstance(source, str | Path) and Path(source).suffix == ".onnx":
        theirs, name = compile_model(source, artifact.chip, verify=False).artifact, str(source)
    else:
        theirs, name = artifact_of(source)
    system, their_system = system_of(artifact), system_of(theirs)
    state = state_of(artifact, system, artifact.model, weight_range=largest_weight)[0]
    given = state_of(theirs, their_system, name, weight_range=largest_weight)[0]
    ours, found = _parameters(system, state), _parameters(their_system, given)
    unfit = [_unfit(part, array, found) for part, array in ours.items() if not _fits(array, found.get(part))]
    if not any(part[0] == "weight" and _fits(array, found.get(part)) for part, array in ours.items()):
        raise CimcError(f"{name} has no layer of the network, by name and shape: {'; '.join(unfit)}")
    if unfit:
        note(f"not in {name}, so they begin as compiled: {'; '.join(unfit)}")
    new = {group: dict(arrays) for group, arrays in state.items()}
    for part, array in ours.items():
        if _fits(array, found.get(part)):
            group, place = _place(system, *part)
            new[group][place] = found[part]
    history = {**artifact.history, "options": {"policy": {"method": "float"}}}
    return replace(artifact, state=flatten_state(new), history=history)


# (what it is, of which layer or its own name)
Part = tuple[str, str]


def _parameters(system: System, state: State) -> dict[Part, Array]:
    """Weights, gains and biases by layer; the other digital parameters and statistics by name."""
    parts: dict[Part, Array] = {("weight", layer): weight for layer, weight in state["weight"].items()}
    for layer in state["weight"]:
        parts["gain", layer] = state["digital"][gain_name(layer)]
        if layer in system.bias_names:
            parts["bias", layer] = state["digital"][system.bias_names[layer]]
    taken = {_place(system, *part)[1] for part in parts if part[0] != "weight"}
    for group in ("digital", "statistics"):
        parts |= {(group, name): array for name, array in state[group].items() if name not in taken}
    return parts


def _place(system: System, what: str, name: str) -> tuple[str, str]:
    """The group of the state and the name in it."""
    if what == "gain":
        return "digital", gain_name(name)
    return ("digital", system.bias_names[name]) if what == "bias" else (what, name)


def _fits(array: Array, found: Array | None) -> bool:
    return found is not None and found.shape == array.shape


def _unfit(part: Part, array: Array, found: Mapping[Part, Any]) -> str:
    what, name = part
    there = f"there {_sizes(found[part])}" if part in found else "not there"
    return f"{name if what in ('weight', 'digital', 'statistics') else f'{what} of {name}'} ({_sizes(array)}, {there})"


def _sizes(array: Any) -> str:
    return "x".join(map(str, array.shape)) or "1"
