"""Chip in the loop: a die is programmed layer by layer, and the layers behind are fine-tuned to what it holds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir

from cimc.api.agreement import compare_export
from cimc.api.assemble import assemble
from cimc.api.measure import read_chip
from cimc.api.progress import Note, Progress, silent, unsaid
from cimc.api.sources import require_data
from cimc.chip import Chip
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from cimc.files import require_different
from cimc.options import OFF_ARRAYS, check_seed
from cimc.package import Package, read_package, require_package_place, write_package
from cimc.program import Floats
from cimc.program_files import array_targets
from cimc.units import weight_of
from cimc.wiring import layers_on_die
from passes.dies.place import hold_stuck
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.population import chip_keys
from runtime.deployment.programming import program_layer
from runtime.network.load import load_network
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.choose_scales import choose_scales
from runtime.system.fit_scales import rows_of_channels
from runtime.system.inference import exact_parameters
from runtime.system.inputs import check_range, match_data
from runtime.system.program import programmed_state, retarget
from runtime.system.state import State, System, build_system
from runtime.system.weight_range import STATES, write_errors
from runtime.training.frozen import frozen_names, nothing_to_train
from runtime.training.logits import logits
from runtime.training.objective import Objective, measure_test, objective_of
from runtime.training.options import Policy, TrainingOptions
from runtime.training.programmed import PartlyProgrammed
from runtime.training.start import start
from runtime.training.train import train as train_run
from runtime.training.validation import split_validation

LR = 0.001  # of fine-tuning
HARDWARE_AWARE, MOST_NOISE = "hardware-aware", 0.5  # beyond it nothing is learnt
OF_EXPORT = ("agreement", "correction", "layers")  # notes of what was exported, which tuning changes
OF_LAYERS = ("gain", "bias", "input_factor")  # groups of the state that a layer may have on the chip alone


def tune(
    package: str | Path | Package,
    data: Dataset,
    *,
    measured: str | Path | None = None,
    options: TrainingOptions | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
    note: Note = unsaid,
) -> Package:
    """Program a die layer by layer, each time fine-tuning the layers that are not programmed yet (chip in the loop).

    A layer that is programmed stays as it is, with what its devices really hold; the others learn on what it gives on
    the chip (`runtime.training.programmed`), and get new targets. After Wan et al., Nature 608:504 (2022).

    Args:
        package: what the die is programmed with: a folder, or its contents.
        data: training set, and test set that each step is measured on.
        measured: conductances that were read back from a die on which some layers are programmed
            (`cimc.fault_map.read_measured`): the others are fine-tuned once. None: a virtual die is programmed layer
            after layer to the end, the one that `deploy` programs first with that seed.
        options: of each fine-tuning; its policy is a way that writes no device. None: those of `tuning_options`, one
            epoch at a rate of 0.001, hardware-aware.
        output: the package folder to write; None: nothing is written.
        seed: of the virtual die, of calibration, and of training where there are no options.
        progress: called with the training steps done, of how many.
        note: called with a line for what the user should know.

    Returns:
        The package of this die. The targets of the layers in `programmed` are what its devices hold, and `deploy`
        leaves them so; of its notes, `in_the_loop` has a record a step.

    Raises:
        CimcError: the package, the data, the file or the options do not fit.
    """
    seed = check_seed(seed)
    require_data(data)
    use_compilation_cache()
    if output is not None:
        if not isinstance(package, Package):
            require_different(package, output)
        require_package_place(output)
    contents = package if isinstance(package, Package) else read_package(package)
    if all(layer.name in contents.programmed for layer in contents.mapping.layers):
        raise CimcError("all layers of this package are programmed on its die, and none is left to tune; deploy it")
    copied = next((layer for layer in contents.mapping.layers if layer.copies > 1), None)
    if copied is not None:
        raise CimcError(
            f"{copied.name} has {copied.copies} copies on the chip, and each holds other errors; export with --chip, "
            "which maps one copy of every layer"
        )
    if contents.chip.scheme.reference is not None:
        raise CimcError(
            f"the arrays of {contents.chip.name} have a reference column, and what it holds on a die is not kept in a "
            "package; describe a chip with weights.offset_columns = 0, whose digital side takes off the offset"
        )
    options = tuning_options(contents, seed=seed) if options is None else options
    if options.policy.compute.on_arrays:
        raise CimcError(f"--update {options.policy.method} writes devices; choose one of {', '.join(OFF_ARRAYS)}")
    system = build_system(load_network(contents.network), contents.mapping, contents.chip)
    frozen_names(system, options.freeze)  # a pattern of nothing is told before the first layer is programmed
    data = match_data(system.network, data)
    check_range(data, system.network, contents.mapping.input_range, note)
    data = split_validation(data, options)
    objective = objective_of(system, data, options.loss, options.label_smoothing)
    note(f"loss: {objective.text}")
    stuck = {} if contents.die is None else layers_on_die(contents.mapping, contents.wiring, contents.die.stuck)
    samples = data.train.take(calibration_index(seed, len(data.train))), data.preprocess
    loop = _Loop(system, contents, data, objective, options, samples, stuck, seed, progress)
    held = {} if measured is None else _measured_layers(contents, Path(measured), note)
    state = _with_free_scales(programmed_state(system, contents.program), {*contents.programmed, *held})
    if measured is None:
        state, steps = loop.program_all(state)
        programmed, die = frozenset(system.crossbars), f"virtual die of seed {seed}"
    else:
        programmed, die = frozenset({*contents.programmed, *held}), Path(measured).stem
        for name, conductance in held.items():
            state = _hold(system, state, name, conductance)
        state, step = loop.fine_tune(state, programmed, list(held), 1)
        state, steps = loop.with_targets(state, programmed), [step]
    notes = {
        **{name: value for name, value in contents.notes.items() if name not in OF_EXPORT},
        "programmed": [name for name in system.crossbars if name in programmed],
        "in_the_loop": {"die": die, "update": options.policy.method, "steps": steps},
    }
    kept = {name: np.asarray(state["conductance"][name]) for name in programmed}
    notes |= compare_export(
        system,
        state,
        *samples,
        jax.random.fold_in(new_key(seed), 2),
        exact=exact_parameters(system, state),
        carry={},
        input_range=contents.mapping.input_range,
        layers=False,
        stuck={**stuck, **kept},
        note=note,
    )
    result = assemble(
        ir.from_proto(onnx.ModelProto.FromString(contents.network)),
        system,
        state,
        model=contents.model,
        chip_text=contents.chip_text,
        notes=notes,
        die=contents.die,
        wiring=contents.wiring,
    )
    if output is not None:
        write_package(output, result)
    return result


def tuning_options(
    package: Package,
    *,
    method: str | None = None,
    settings: tuple[tuple[str, Any], ...] = (),
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    batch_size: int = 64,
    micro_batch: int | None = None,
    lr: float = LR,
    seed: int = 0,
) -> TrainingOptions:
    """Options of `tune`. Where no method is given, it is hardware-aware, with what the writes of this chip leave as
    noise of the weights; of a package that was trained with noise of its own, as that was.
    """
    trained = package.notes.get("training", {}).get("policy", {})
    if method is None and not settings and trained.get("method") == HARDWARE_AWARE:
        settings = tuple(trained.get("settings", {}).items())
    elif method in (None, HARDWARE_AWARE) and "noise" not in dict(settings):
        settings = (("noise", _write_noise(package.chip)), *settings)
    policy = Policy(method=method or HARDWARE_AWARE, settings=settings)
    return TrainingOptions(
        policy=policy,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        micro_batch=micro_batch,
        lr=lr,
        seed=seed,
    )


def _write_noise(chip: Chip) -> float:
    """The sd of weights by the errors of writes, of a range of 1, over all states of the devices alike."""
    cell = chip.cell
    _, sd = write_errors(np.linspace(cell.conductance_min_uS, cell.conductance_max_uS, STATES), cell)
    counts = np.array(chip.scheme.counts) / chip.scheme.full_uS
    return float(np.clip(np.sqrt(np.sum(np.square(counts)) * np.mean(np.square(sd))), 0, MOST_NOISE))


def _with_free_scales(state: State, programmed: Collection[str]) -> State:
    """The state without what layers that are not programmed yet have on the chip alone: it is chosen anew."""
    kept = {group: {name: a for name, a in state[group].items() if name in programmed} for group in OF_LAYERS}
    return {**state, **kept}


def _measured_layers(package: Package, file: Path, note: Note) -> dict[str, Floats]:
    """What the devices hold of every layer all of whose cells were measured [devices, rows, columns], uS."""
    targets = array_targets(package.mapping, package.chip, package.program, package.wiring)
    values = read_chip(file, package, targets, note, whole=False)
    found = {}
    for name, conductance in layers_on_die(package.mapping, package.wiring, values).items():
        count = np.count_nonzero(np.isfinite(conductance))
        if 0 < count < conductance.size:
            raise CimcError(
                f"measurement {file}: {count} of the {conductance.size} devices of {name} were measured; measure all "
                "of a layer that is programmed, and none of the others"
            )
        if count:
            found[name] = conductance
    if not found:
        raise CimcError(f"measurement {file}: no device of any layer was measured; program and measure the first layer")
    return found


def _hold(system: System, state: State, layer: str, conductance: Any) -> State:
    """The state with what devices hold [devices, rows, columns] as a layer's targets, and its weights as they make
    them: these are the network from now on.
    """
    chip, new = system.chip_of(layer), {group: dict(arrays) for group, arrays in state.items()}
    step = np.float32(chip.target_step_uS)
    held = np.round(np.asarray(conductance, np.float32) / step) * step
    weight_range, factor = np.asarray(state["weight_range"][layer]), state["input_factor"].get(layer)

    def made_by(devices: Floats) -> Floats:
        weight = weight_of(devices, weight_range, chip)
        rows = 1 if factor is None else rows_of_channels(np.asarray(factor), system.crossbars[layer], weight)
        return np.asarray(weight / rows, np.float32)

    weight = made_by(held)
    if layer in state["gain"]:  # on the chip alone; the network's own is in its weights
        targets, own = made_by(np.asarray(state["conductance"][layer])), np.asarray(state["weight"][layer])
        power = np.sum(np.square(targets), axis=0)
        weight *= np.divide(np.sum(targets * own, axis=0), power, out=np.ones_like(power), where=power > 0)
    new["conductance"][layer], new["weight"][layer] = jax.device_put((held, weight))
    return new


@dataclass(frozen=True, eq=False)
class _Loop:
    """What stays as it is from step to step.

    samples: those that set input ranges. stuck: by layer, what stuck devices of a certain die hold.
    """

    system: System
    package: Package
    data: Dataset
    objective: Objective
    options: TrainingOptions
    samples: tuple[Samples, Preprocess]
    stuck: Mapping[str, Floats]
    seed: int
    progress: Progress

    def program_all(self, state: State) -> tuple[State, list[dict[str, Any]]]:
        """A virtual die, layer after layer: its state, and a record a step."""
        programmed, steps = set(self.package.programmed), []
        waiting = [name for name in self.system.crossbars if name not in programmed]
        key = chip_keys(self.seed, 1)[0][0]
        for number, name in enumerate(waiting):
            state = self.with_targets(state, programmed)
            targets = np.asarray(state["conductance"][name])
            held = np.asarray(program_layer(self.system, state, name, key, self.stuck))
            state = _hold(self.system, state, name, held)
            programmed.add(name)
            state, step = self.fine_tune(state, frozenset(programmed), [name], len(waiting), number)
            steps.append(
                {**step, "off_target_uS": float(np.sqrt(np.mean(np.square(held - targets, dtype=np.float64))))}
            )
        return state, steps

    def with_targets(self, state: State, programmed: Collection[str]) -> State:
        """The state with scales and targets of the layers that are not programmed yet, chosen for what the others give
        them.
        """
        if all(crossbar.chip.input.bits is None for crossbar in self.system.crossbars.values()):  # nothing is clipped
            ranges = dict.fromkeys(self.system.crossbars, jnp.float32(1))
            new = {**retarget(self.system, state, fixed=programmed), "input_range": ranges}
        else:
            new = choose_scales(self.system, state, *self.samples, new_key(self.seed), fixed=programmed)
        placement = self.package.notes["die"]["placement"] if self.stuck else "none"
        for name in self.stuck.keys() - set(programmed):
            targets = np.asarray(new["conductance"][name])
            new["conductance"][name] = jax.device_put(
                hold_stuck(targets, self.stuck[name], self.system.chip_of(name), compensated=placement != "none")
            )
        return new

    def fine_tune(
        self, state: State, programmed: frozenset[str], new: Sequence[str], of: int, number: int = 0
    ) -> tuple[State, dict[str, Any]]:
        """The state with the layers that are not programmed yet fine-tuned, where there are any, and a record of the
        step: `layers`, those that are new on the die; the test set's `measure` `before` and `after`, the programmed
        layers on their arrays without noise and the others as the way computes them.
        """
        system, data, way = self.system, self.data, self.options.policy
        policy = PartlyProgrammed(way.method, settings=way.settings, programmed=programmed)
        frozen = (*self.options.freeze, *map(escape, programmed))
        options = replace(self.options, policy=policy, freeze=frozen)
        trial = retarget(system, state, fixed=programmed)
        if way.compute.converts and len(programmed) < len(system.crossbars):
            trial = calibrate(system, trial, *self.samples, new_key(self.seed), fixed=programmed)
        computed = logits(system, trial, data.test.inputs, data.preprocess, None, policy.compute.product)
        measure, before = next(iter(measure_test(self.objective, computed).items()))
        record = {"layers": list(new), "measure": measure, "before": before, "after": before}
        if len(programmed) == len(system.crossbars) or nothing_to_train(system, frozen):
            return state, record
        run = start(system, trial, options, programmed=True)
        run = train_run(
            system,
            run,
            options,
            data,
            progress=lambda run, total: self.progress(number * total + run.step, (of - 1 or 1) * total),
            objective=self.objective,
        )
        last = run.history[-1]
        record["after"] = last.get("measures", {"accuracy": last["accuracy"]})[measure]
        return {**state, **{group: run.state[group] for group in ("weight", "digital", "statistics")}}, record
