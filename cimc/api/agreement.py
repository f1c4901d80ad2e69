"""How a network on its arrays agrees with itself in float32, without labels, and a line where that is little."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax import Array

from cimc.api.progress import Note
from cimc.dataset import Preprocess, Samples
from runtime.deployment.programming import programmed_chip
from runtime.network.stepwise import Arrays
from runtime.system.carry import Carry, carried
from runtime.system.inference import batches, outputs_exactly, outputs_on_arrays
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.loss_causes import REMEDIES
from runtime.system.quality import Quality
from runtime.system.state import State, System

# By output its figures (`runtime.system.measures.agreement_of`).
Agreement = Mapping[str, Mapping[str, float]]

# Below it a network has lost its use: of twenty answers more than one is another one. A network that is worth a chip
# tells its classes apart by more than one error in twenty, and would lose as much again.
LOW_AGREEMENT = 0.95
# The same for outputs of one number, which have no largest entry: an error of 18 % of their root mean square.
LOW_SNR_DB = 15.0


def compare_export(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array,
    *,
    exact: Arrays,
    carry: Carry,
    input_range: tuple[float, float] | None,
    layers: bool,
    stuck: Mapping[str, np.ndarray] = MappingProxyType({}),
    note: Note,
) -> dict[str, Any]:
    """How a program agrees with the float network: the notes of a package, as JSON values.

    Args:
        system: network and chip.
        state: its conductances are the program's targets.
        samples: those to be compared; labels are not looked at.
        preprocess: from stored values to inputs.
        key: of one virtual chip and its noise.
        exact: parameters of the float network (`exact_parameters`).
        carry, input_range: as of `runtime.system.carry.carried`.
        layers: whether what each layer loses is among the notes, in any case.
        stuck: as of `runtime.deployment.programming.program_chip`.
        note: takes a line where the agreement is low.
    """
    program_key, read_key = jax.random.split(key)
    chip = programmed_chip(system, state, program_key, stuck)
    agreement = compare_outputs(
        system, state, chip, samples, preprocess, read_key, exact=exact, carry=carry, input_range=input_range
    )

    @cache
    def errors() -> list[LayerError]:
        return layer_errors(system, chip, samples, preprocess, read_key, carry=carry, targets=state["conductance"])

    note_low_agreement(agreement["noise_on"], errors, note, where=f" with noise{_without_noise(agreement)}")
    by_layer = {"layers": {error.name: error.figures for error in errors()}} if layers else {}
    return {"agreement": {"samples": len(samples), **agreement}, **by_layer}


def compare_outputs(
    system: System,
    state: State,
    chip: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array,
    *,
    exact: Arrays,
    carry: Carry = MappingProxyType({}),
    input_range: tuple[float, float] | None = None,
) -> dict[str, Agreement]:
    """How a network agrees with itself in float32, `noise_off` and `noise_on`.

    Args:
        system, state, samples, preprocess, exact, carry, input_range: as of `compare_export`.
        chip: the state of one virtual chip.
        key: of the noise of its reads.
    """
    network, exactly = system.network, partial(outputs_exactly, system.network, exact)
    runs = {
        "exact": carried(network, carry, exactly, input_range),
        "noise_off": carried(network, carry, partial(outputs_on_arrays, system, state, key=None)),
        "noise_on": carried(network, carry, partial(outputs_on_arrays, system, chip, key=key)),
    }
    found = {name: Quality(()) for name in ("noise_off", "noise_on")}
    for batch in batches(network, samples, preprocess, steps=bool(carry)):
        outputs = {name: run(batch) for name, run in runs.items()}
        for name, quality in found.items():
            quality.add(outputs[name], batch.samples, outputs["exact"])
    return {name: quality.agreement() for name, quality in found.items()}


def low_agreement(agreement: Agreement) -> str | None:
    """The output that agrees least, in words, where that is low; None where none is."""
    worst: tuple[float, str] | None = None
    for output, found in agreement.items():
        same, snr = found.get("argmax_agreement"), found["snr_db"]
        if same is not None and same < LOW_AGREEMENT:
            share = f"{same:.1%} of cases (low: below {LOW_AGREEMENT:.0%})"
            text = f"{output} has its largest entry where float32 has it in {share}"
            worst = min(worst or (same, text), (same, text))
        elif same is None and snr < LOW_SNR_DB:
            text = f"{output} has an SNR of {snr:.1f} dB against float32 (low: below {LOW_SNR_DB:g} dB)"
            worst = min(worst or (1.0, text), (1.0, text))
    return worst and worst[1]


def _without_noise(agreement: Mapping[str, Agreement]) -> str:
    """What the outputs agree without noise, in words: whether the noise is to blame."""
    found = [
        (output, figures.get("argmax_agreement"), figures["snr_db"])
        for output, figures in agreement["noise_off"].items()
    ]
    texts = [f"{output} {snr:.1f} dB" if same is None else f"{output} {same:.1%}" for output, same, snr in found]
    return f"; without noise {', '.join(texts)}" if texts else ""


def note_low_agreement(
    agreement: Agreement, layers: Callable[[], Sequence[LayerError]], note: Note, *, where: str = ""
) -> None:
    """Where the agreement is low, one line that says so, where most is lost, why, and what would help most.

    Args:
        agreement: by output.
        layers: finds the errors of all layers and their causes; called where the agreement is low.
        note: takes the line.
        where: of what the figures are, behind them.
    """
    text = low_agreement(agreement)
    if text is not None:
        note(f"LOW AGREEMENT: {text}{where}{worst_layer(layers())}")


def worst_layer(layers: Sequence[LayerError]) -> str:
    """The end of a line: the layer that loses most by itself, its main cause, and what would help most."""
    known = [(error.figures["own_snr_db"], error) for error in layers if error.figures["own_snr_db"] is not None]
    if not known:
        return ""
    snr, error = min(known, key=lambda entry: entry[0])
    main = error.losses and error.losses.main_cause
    if not error.losses or not main:
        return f"; worst layer {error.name}, {snr:.1f} dB by itself"
    share = min(error.losses.shares[main], 1.0)  # above 1 where causes cancel each other
    return (
        f"; worst layer {error.name}, {snr:.1f} dB by itself, mostly by {main.value} "
        f"({share:.0%} of its error); what would help most: {REMEDIES[main]}"
    )
