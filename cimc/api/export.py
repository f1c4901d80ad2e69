"""From a `.cim` file to the package for an inference chip."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from cimc.api.agreement import compare_export
from cimc.api.assemble import assemble
from cimc.api.checkpoint import calibration_samples
from cimc.api.lay_out import note_without_groups
from cimc.api.progress import Note, unsaid
from cimc.api.remap import dropped_settings, remap
from cimc.api.sources import Source, artifact_of, chip_of, require_data
from cimc.api.system_of import state_of, system_of
from cimc.artifact import Artifact
from cimc.by_layer import check_by_layer
from cimc.chip import Chip
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from cimc.fault_map import note_without_faults, read_die
from cimc.layer_options import layer_options
from cimc.options import Correct, DiePlacement, Weights, check_choice, check_seed
from cimc.package import Package, require_package_place, write_package
from passes.crossbar_functions import crossbar_layers
from passes.dies.place import place_on_die, require_placeable
from passes.leave_digital import leave_digital, matching_layers
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit, use_compilation_cache
from runtime.network.load import load_network
from runtime.system.calibration import CALIBRATION_IMAGES, calibration_index
from runtime.system.carry import Carry, check_carry
from runtime.system.choose_scales import choose_scales
from runtime.system.correction import CORRECTION_SAMPLES, correct_layers, figures_of
from runtime.system.inference import exact_parameters
from runtime.system.input_power import input_powers
from runtime.system.inputs import check_range, input_shapes, match_data, match_inputs
from runtime.system.program import program_of, retarget, without_targets
from runtime.system.state import System, build_system, leave_layers_digital, read_back

# Reads of every device at export: their mean leaves a quarter of the read noise.
EXPORT_READS = 16


def export(
    source: Source,
    chip: str | Path | Chip | None = None,
    *,
    output: str | Path | None = None,
    data: Dataset | None = None,
    weights: Weights | str = Weights.devices,
    noise: bool = True,
    layers: bool = False,
    digital: Sequence[str] = (),
    correct: Correct | str = Correct.none,
    carry: Carry = MappingProxyType({}),
    rows_per_read: int | Mapping[str, int] | None = None,
    groups_per_read: int | Mapping[str, int] | None = None,
    die: str | Path | None = None,
    placement: DiePlacement | str = DiePlacement.full,
    options: str | Path | Mapping[str, Any] | None = None,
    seed: int = 0,
    note: Note = unsaid,
) -> Package:
    """Remap a `.cim` file's weights to an inference chip: the package to program it.

    Args:
        source: a `.cim` file, its contents, or what `train` or `compile` gave; trained, or compiled (then `data` is
            needed to set the input ranges).
        chip: name, path, or a chip in memory; None: the chip it was compiled for.
        output: the package folder to write; None: nothing is written.
        data: set the input ranges on its training samples rather than on those kept in the `.cim`; no labels needed.
        weights: of a network trained on arrays: those of its devices, read 16 times, or the digital copy. The network
            has learnt around the errors of its devices, which the digital copy does not hold.
        noise: fit scales and input ranges for the chip with its noise; False: for reads without it, as of a chip that
            repeats them.
        layers: find what each layer loses on the samples that set the input ranges, and its causes.
        digital: layers left to the digital side with these weights, as of `compile`; the others are mapped anew.
        correct: what is fitted to the samples that set the input ranges, or to more of the data, so that the layers
            give on the chip what they give in float32 (`runtime.system.correction`); kept is what errs less on samples
            held out. The package's notes say what it brought.
        carry: as of `evaluate`; then `data` is needed, whose first steps set the input ranges.
        rows_per_read, groups_per_read: as of `compile`, in place of what the `.cim` says; None: that.
        die: a fault map (`cimc.fault_map`): the package is for this die alone.
        placement: what is done about its stuck cells: none, pairs (the good devices of a weight take up what the stuck
            ones lack) or full (before that arrays, rows and columns are chosen; `passes.dies.place`).
        options: of single layers, as of `compile`, in place of what the `.cim` says; rows cannot be filled any more.
        seed: of the noise of reads and calibration.
        note: called with a line for what the user should know of the data, and where the agreement is low.

    Returns:
        The package; of its notes, `agreement` is that of the chip network with the same weights in float32 on the
        samples that set the input ranges (`noise_off`; `noise_on`: of one virtual chip), `layers` what each loses,
        `die` what its placement brought.

    Raises:
        CimcError: the file or the chip do not fit, or no data sets the input ranges.
    """
    chosen, seed = check_choice(Weights, "weights", weights), check_seed(seed)
    rows = check_by_layer("rows_per_read", rows_per_read, 1)
    groups = check_by_layer("groups_per_read", groups_per_read, 1)
    correction = check_choice(Correct, "correct", correct)
    chosen_placement = check_choice(DiePlacement, "placement", placement)
    if die is None and chosen_placement is not DiePlacement.full:
        raise CimcError(f"placement {chosen_placement} is of the stuck cells of a die; give its fault map with --die")
    if data is not None:
        require_data(data)
    use_compilation_cache()
    if output is not None:
        require_package_place(output)
    artifact, name = artifact_of(source)
    target, text = (artifact.chip, artifact.chip_text) if chip is None else chip_of(chip)
    reasons = dict.fromkeys(matching_layers(artifact.network, digital), "--digital")
    of_layers = layer_options(options, crossbar_layers(artifact.network), chip=target, digital=reasons)
    if of_layers.numbers["fill_rows"]:
        raise CimcError("fill_rows is decided when the network is compiled; leave it out of the options of export")
    lowered = leave_digital(artifact.network, reasons | dict.fromkeys(of_layers.digital, "--options"))
    rows, groups = {**of_layers.numbers["rows_per_read"], **rows}, {**of_layers.numbers["groups_per_read"], **groups}
    onto = None if chip is None else target
    mapping = remap(
        artifact, lowered, chip=onto, rows_per_read=rows, groups_per_read=groups, settings=of_layers.settings
    )
    if dropped := dropped_settings(artifact.mapping, mapping):
        note(dropped)
    on_die = None
    if die is not None:
        require_placeable(mapping, target)
        on_die = read_die(die, mapping, chip=target)
        note_without_faults(on_die, note)
    for line in note_without_groups(mapping, groups):
        note(line)
    system = build_system(load_network(lowered), mapping, target)
    trained_on = system_of(artifact)
    state, programmed = state_of(artifact, trained_on, name, weight_range=None)
    if programmed and chosen is Weights.devices:
        read = jit(partial(read_back, trained_on, reads=EXPORT_READS))
        state = read(state, jax.random.fold_in(new_key(seed), 1))
    state = leave_layers_digital(trained_on.network, state, system.network)
    state = without_targets(state)
    exact = exact_parameters(system, state)
    notes: dict[str, Any] = {
        "trained_on": artifact.chip.name if programmed else None,
        "training": artifact.history.get("options", {}),
        "preprocess": artifact.history.get("preprocess", {}),
    }
    check_carry(system.network, carry)
    if data is not None:
        data = match_data(system.network, data, free_batch=False, carried=carry.values())
        check_range(data, system.network, artifact.mapping.input_range, note)
    known = _calibration(artifact, system, data, carry, seed)
    ideal = all(crossbar.chip.input.bits is None for crossbar in system.crossbars.values())
    if ideal:  # nothing is clipped
        state = {**retarget(system, state), "input_range": {layer: jnp.float32(1) for layer in system.crossbars}}
    elif known is not None:
        state = choose_scales(system, state, *known, new_key(seed) if noise else None, carry=carry)
    else:
        raise CimcError(
            "--carry needs the steps of a stream to set input ranges on; add --data"
            if carry
            else f"{name} was never trained, so its input ranges are not known; add --data with samples of the "
            "network's inputs (labels are not needed)"
        )
    more = _calibration(artifact, system, data, carry, seed, most=CORRECTION_SAMPLES)
    if not ideal and more is not None:
        state, found = correct_layers(system, state, *more, new_key(seed), correction, carry=carry)
        if found:
            notes["correction"] = figures_of(found, correction)
    placed = None
    if on_die is not None:
        powers = {} if known is None else input_powers(system, state, *known, carry=carry)
        program = program_of(system, state)
        placed = place_on_die(program, mapping, target, on_die, placement=chosen_placement, powers=powers)
        notes["die"], on_lines = placed.figures, placed.program.layers
        state = {**state, "conductance": {name: jnp.asarray(of.targets) for name, of in on_lines.items()}}
    if known is not None:
        notes |= compare_export(
            system,
            state,
            *known,
            jax.random.fold_in(new_key(seed), 2),
            exact=exact,
            carry=carry,
            input_range=mapping.input_range,
            layers=layers,
            stuck={} if placed is None else placed.stuck,
            note=note,
        )
    package = assemble(
        lowered,
        system,
        state,
        model=artifact.model,
        chip_text=text,
        notes=notes,
        die=None if placed is None else placed.die,
        wiring=None if placed is None else placed.wiring,
    )
    if output is not None:
        write_package(output, package)
    return package


def _calibration(
    artifact: Artifact,
    system: System,
    data: Dataset | None,
    carry: Carry,
    seed: int,
    *,
    most: int = CALIBRATION_IMAGES,
) -> tuple[Samples, Preprocess] | None:
    """So many samples of the data (of `match_data`), or those kept in training; None: there are none."""
    if data is not None:
        chosen = calibration_index(seed, len(data.train), stream=bool(carry), most=most)
        return data.train.take(chosen), data.preprocess
    kept = None if carry else calibration_samples(artifact)
    return kept and (match_inputs(kept[0], input_shapes(system.network), kept[1]), kept[1])
