"""What a `.cim` file makes of data: measures against labels, agreement with the exact network."""

import time
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import jax

from cimc.api.agreement import note_low_agreement
from cimc.api.progress import Note, Progress, silent, unsaid
from cimc.api.sources import Source, artifact_of, require_data
from cimc.api.system_of import state_of, system_of
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.html_table import html_figures
from cimc.options import check_seed, check_whole
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.programming import programmed_chip
from runtime.system.calibration import calibration_index
from runtime.system.carry import Carry, carried, check_carry
from runtime.system.choose_scales import choose_scales
from runtime.system.inference import batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.inputs import check_range, match_data
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.quality import new_quality
from runtime.system.read_energy import ReadEnergy


class Evaluation(dict[str, Any]):
    """The figures of `evaluate`, by name."""

    def _repr_html_(self) -> str:
        plain = {name: value for name, value in self.items() if isinstance(value, int | float)}
        for output, found in self.get("agreement", {}).items():
            plain |= {f"{name} of {output} with float32": value for name, value in found.items()}
        return html_figures("on the test set", {name.replace("_", " "): value for name, value in plain.items()})


def evaluate(
    source: Source,
    data: Dataset,
    *,
    exact: bool = False,
    noise: bool = True,
    metric: str | None = None,
    layers: bool = False,
    memory: int | None = None,
    carry: Carry = MappingProxyType({}),
    energy: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    note: Note = unsaid,
) -> Evaluation:
    """Measure a `.cim` file on the test set: on its arrays, without noise, or exactly (float32, no arrays).

    Weights that were never on the arrays are programmed first, and input ranges set on training samples, whose labels
    are not needed.

    Args:
        source: a compiled or trained `.cim` file, its contents, or what `compile` or `train` gave.
        data: the test set is used, and the training set of a network whose input ranges are not known yet.
        exact: float32 products, no arrays.
        noise: that of reads and converters.
        metric: a measure of `runtime.system.measures` or `module:function`; None: the usual one for the labels.
        layers: what each layer loses and why, on some of the test samples (`runtime.system.layer_errors`).
        memory: bytes for the values between layers; None: a share of what is free. It changes no result.
        carry: input by output that it takes in the next step: the samples in their order are the steps of a stream,
            which begins with the input's first sample, or with zeros where the data has none.
        energy: what the reads of each sample take by their data (`runtime.system.read_energy`).
        seed: of programming, calibration and noise.
        progress: called with the samples done, of how many.
        note: called with a line for what the user should know of the data, and where the agreement is low.

    Returns:
        The figures of the labelled outputs by their names (of several with `OUTPUT.` before them), such as accuracy;
        images_per_s; and unless `exact`, under `agreement`, by output how it agrees with the same weights in float32;
        and with `layers`, under `layers`, by layer its figures; with `energy`, under `energy_mj`, its figures.

    Raises:
        CimcError: the file or the data do not fit, or the chip is not simulated.
    """
    require_data(data)
    seed = check_seed(seed)
    memory = None if memory is None else check_whole("memory", memory, 1)
    if exact and (layers or energy):
        asked = "--layers compares the arrays with float32" if layers else "--energy is that of the arrays"
        raise CimcError(f"{asked}, and --exact leaves them out; give one of them")
    use_compilation_cache()
    artifact, name = artifact_of(source)
    system = system_of(artifact)
    network = system.network
    state, programmed = state_of(artifact, system, name, weight_range=None)
    check_carry(network, carry)
    data = match_data(network, data, free_batch=False, carried=carry.values())
    check_range(data, network, artifact.mapping.input_range, note)
    quality = new_quality(network, data.test, metric, name=data.name)
    program_key, calibration_key, read_key = jax.random.split(new_key(seed), 3)
    if not programmed and not exact:
        samples = data.train.take(calibration_index(seed, len(data.train), stream=bool(carry)))
        state = choose_scales(system, state, samples, data.preprocess, calibration_key if noise else None, carry=carry)
        state = programmed_chip(system, state, program_key)
    reference = partial(outputs_exactly, network, exact_parameters(system, state))
    exactly = carried(network, carry, reference, artifact.mapping.input_range)
    meter = ReadEnergy(system, state) if energy else None
    reads = partial(
        outputs_on_arrays, system, state, key=read_key if noise else None, seen=None if meter is None else meter.see
    )
    on_arrays = carried(network, carry, reads)
    seconds, timed = 0.0, 0
    for batch in batches(network, data.test, data.preprocess, memory, steps=bool(carry)):
        began = time.perf_counter()
        if exact:
            quality.add(exactly(batch), batch.samples)
            seconds += time.perf_counter() - began
        else:
            outputs = on_arrays(batch)
            seconds += time.perf_counter() - began
            quality.add(outputs, batch.samples, exactly(batch))
        if batch.first == 0 and len(batch.samples) < len(data.test):
            seconds = 0.0  # the first batch compiles what is not in the cache
        else:
            timed += len(batch.samples)
        progress(batch.first + len(batch.samples), len(data.test))
    figures = quality.figures()
    several = len(figures) > 1
    named = {f"{output}.{key}" if several else key: v for output, found in figures.items() for key, v in found.items()}
    agreement = {} if exact else {"agreement": quality.agreement()}

    @cache
    def errors() -> list[LayerError]:
        return layer_errors(system, state, data.test, data.preprocess, read_key if noise else None, carry=carry)

    note_low_agreement(quality.agreement(), errors, note)
    by_layer = {"layers": {error.name: error.figures for error in errors()}} if layers else {}
    spent = {"energy_mj": meter.figures()} if meter else {}
    return Evaluation({**named, "images_per_s": timed / seconds, **agreement, **by_layer, **spent})
