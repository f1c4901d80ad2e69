"""Virtual chips programmed with a package."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from pydantic import ValidationError

from cimc.api.agreement import LOW_AGREEMENT, note_low_agreement
from cimc.api.measure_population import measure_population
from cimc.api.progress import Note, Progress, silent, unsaid
from cimc.api.reprogram import reprogram_of
from cimc.api.sources import require_data
from cimc.chip import Chip
from cimc.dataset import Dataset
from cimc.device_time import COLDEST_C, HOTTEST_C
from cimc.durations import parse_times
from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid
from cimc.fault_map import Die, note_copies, note_without_faults, read_die, read_dies
from cimc.options import BY_SAMPLES, check_number, check_seed, check_whole, parse_compensate
from cimc.package import Package, read_package
from cimc.reprogram import parse_shares
from cimc.wiring import layers_on_die, references_on_die
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.deploy import deployment_of, errors_of_first_chip
from runtime.deployment.population import Request, population_of
from runtime.deployment.result import Deployment
from runtime.network.load import load_network
from runtime.system.carry import Carry, check_carry
from runtime.system.inputs import check_range, match_data
from runtime.system.state import build_system

MOST_CHIPS = 10**6


def deploy(
    package: str | Path | Package,
    data: Dataset,
    *,
    chips: int | None = None,
    seed: int = 0,
    required: float = 0.99,
    baseline: float | None = None,
    metric: str | None = None,
    memory: int | None = None,
    carry: Carry = MappingProxyType({}),
    at: Sequence[str | float] = (),
    temperature: float | None = None,
    compensate: str | Sequence[str] = "none",
    calibrate: Dataset | None = None,
    faults: str | Path | None = None,
    dies: str | Path | None = None,
    reprogram: str | Sequence[str | float] = (),
    energy: bool = False,
    layers: bool = False,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
) -> Deployment:
    """Program virtual chips with a package and measure their accuracy on the test set, or what stands for it.

    Args:
        package: a package folder, or its contents.
        data: the test set is used.
        chips: how many; with `dies` how often each is programmed. None: 20, with `dies` 1.
        seed: of all draws.
        required: normalised accuracy that a good chip reaches, for the yield; at most 1.
        baseline: accuracy or error to normalise by, above 0; None: that of the package's weights in float32.
        metric, memory, carry: as of `evaluate`. Without labels the agreement with the package's weights in float32
            counts.
        at: times after programming at which every chip is measured too: seconds, or a text such as `"1h"`
            (s, min, h, d, w, y); one text may list several, `"1h,1d"`.
        temperature: degrees Celsius at which chips are kept from programming on, by which their time runs faster
            (`cell.thermal` of the chip). None: as the chip says.
        compensate: what the digital side makes up for at these times; several with `+` between or one by one. By reads
            of the devices global (a scale a layer) or column (one a column); by samples ranges (input ranges), bn (mean
            and sd of every channel) and affine (scale and shift of every column): `runtime.deployment.compensation`.
        calibrate: the samples for that, its training split; no labels needed. None: the training split of `data`.
        faults: a fault map (`cimc.fault_map`): every chip has these stuck devices. None: those of the die that the
            package was made for, else as the description says.
        dies: a folder of fault maps, each of a real die.
        reprogram: shares of the devices, such as `"5%"`, that are written again, round after round, before a chip is
            measured: those whose errors cost most (`runtime.deployment.reprogram`). Result has the figures before and
            between the rounds too.
        energy: what the reads of each sample take on the first chip by their data (`runtime.system.read_energy`).
        layers: find what each layer of the worst chip loses, and what it costs the outputs.
        workers: local processes that share the chips; each takes `memory`, and its part of the cores.
        cluster: address of a dask scheduler whose workers share the chips, such as tcp://host:8786. No result depends
            on either (`docs/cluster.md`).
        progress: called with the samples done on all chips and at all times, of how many.
        note: called with a line for what the user should know of the data, and where the agreement is low.

    Raises:
        CimcError: the package or the data do not fit, or an option is out of range.
    """
    chips = check_whole("chips", (20 if dies is None else 1) if chips is None else chips, 1, MOST_CHIPS)
    seed = check_seed(seed)
    required = check_number("required", required, least=0, most=1)
    if baseline is not None:
        baseline = check_number("baseline", baseline, least=1e-12)
    chosen = parse_compensate(compensate)
    shares = parse_shares(reprogram)
    seconds = parse_times(at)
    if chosen and not seconds:
        raise CimcError(
            f"compensate {'+'.join(chosen)} acts at times after programming; say which with at, such as --at 1s,1y"
        )
    if temperature is not None and not seconds:
        raise CimcError("temperature is that of the times after programming; say which with at, such as --at 1h,1y")
    by_samples = any(kind in BY_SAMPLES for kind in chosen)
    require_data(data)
    if calibrate is not None:
        require_data(calibrate, "calibrate")
        if not by_samples:
            raise CimcError(
                f"calibrate gives samples to compensate by, and compensate {'+'.join(chosen) or 'none'} takes none; "
                f"leave it out, or compensate by {', '.join(BY_SAMPLES)} too"
            )
    if not isinstance(package, str | Path | Package):
        raise CimcError(f"a {type(package).__name__} was given for the package; give its folder, or what export gave")
    use_compilation_cache()
    contents = package if isinstance(package, Package) else read_package(package)
    if temperature is not None:
        contents = replace(contents, chip=_kept_at(contents.chip, temperature))
    system = build_system(load_network(contents.network), contents.mapping, contents.chip)
    check_carry(system.network, carry)
    data = match_data(system.network, data, free_batch=False, carried=carry.values())
    check_range(data, system.network, contents.mapping.input_range, note)
    if calibrate is not None:
        calibrate = match_data(system.network, calibrate, free_batch=False, carried=carry.values())
    samples = calibrate or data
    if by_samples and not len(samples.train):
        raise CimcError(f"{samples.name} has no training samples to compensate by; give some with --calibrate")
    names, stuck, stuck_references = [], [], []
    for die in _dies(contents, faults, dies):
        names.append(die.name)
        note_without_faults(die, note)
        stuck.append(layers_on_die(contents.mapping, contents.wiring, die.stuck))
        stuck_references.append(references_on_die(contents.mapping, contents.wiring, die.stuck, chip=contents.chip))
    if names:
        note_copies(contents.mapping, note)
    if dies is not None:
        chips *= len(names)
    request = Request(
        chips,
        seed,
        metric=metric,
        memory=None if memory is None else check_whole("memory", memory, 1),
        carry=dict(carry),
        input_range=contents.mapping.input_range,
        at=seconds,
        compensate=chosen,
        calibrate=(samples.train, samples.preprocess) if by_samples else None,
        stuck=stuck,
        stuck_references=stuck_references,
        programmed=contents.programmed if faults is None and dies is None else frozenset(),
    )
    if shares and len(request.programmed) == len(system.crossbars):
        raise CimcError(
            "--reprogram writes devices that are off their targets, and all layers of this package are programmed: "
            "their targets are what the devices hold; leave it out"
        )
    if len(request.programmed) == len(system.crossbars):
        by_time = " and in what time does" if seconds else " alone"
        note(f"all layers are programmed on the die of this package: its chips differ in the noise of reads{by_time}")
    workers = check_whole("workers", workers, 1)
    before = []
    if shares:
        again = reprogram_of(system, contents, data, seed, shares, carry=carry)
        important = {name: of * (name not in request.programmed) for name, of in again.importance.items()}
        again = replace(again, importance=important)
        request = replace(request, reprogram=again)
        for rounds in range(len(shares)):
            then = replace(request, reprogram=replace(again, shares=shares[:rounds]), at=(), compensate=())
            population = population_of(system, contents.program, data, then)
            parts = measure_population(population, contents, workers, cluster, silent)
            before.append(np.concatenate([part.values[None] for part in parts]))
    population = population_of(system, contents.program, data, request)
    parts = measure_population(population, contents, workers, cluster, progress)
    result = deployment_of(population, parts, required=required, baseline=baseline, energy=energy, layers=layers)
    result = replace(result, reprogrammed=tuple(zip(shares, before, strict=True)))
    thermal = contents.chip.cell.thermal
    if seconds and thermal is not None and thermal.kept_at_C is not None:
        result = replace(result, temperature_C=thermal.kept_at_C)
        speed = f"{thermal.acceleration:,.0f}" if thermal.acceleration >= 100 else f"{thermal.acceleration:.3g}"
        faster = f"{speed} times as fast as at {thermal.measured_at_C:g} C"
        note(f"chips are kept at {thermal.kept_at_C:g} C, where time runs {faster}")
    if seconds and not contents.chip.cell.ages:
        note(f"the devices of {contents.chip.name} state no drift, relaxation or retention: no time changes them")
    where = _where(result, names[0] if dies is not None else None)
    note_low_agreement(result.agreement, partial(errors_of_first_chip, population), note, where=where)
    return result if dies is None else replace(result, dies=tuple(names * (chips // len(names))))


def _kept_at(chip: Chip, temperature: float) -> Chip:
    """The chip kept at that temperature. Raises CimcError: its devices do not say what heat does."""
    kept = check_number("temperature", temperature, least=COLDEST_C, most=HOTTEST_C)
    thermal = chip.cell.thermal
    if thermal is None:
        raise CimcError(
            f"the devices of {chip.name} do not say what heat does; state it in the chip file that is exported to, as "
            f"cimc chips {chip.name} --set cell.thermal.activation_energy_eV=1.1 > warm.toml writes"
        )
    try:
        thermal = type(thermal).model_validate({**thermal.model_dump(), "kept_at_C": kept})
    except ValidationError as error:
        raise CimcError(f"temperature: {explain_invalid(error, type(thermal))}") from None
    return chip.model_copy(update={"cell": chip.cell.model_copy(update={"thermal": thermal})})


def _where(result: Deployment, die: str | None) -> str:
    """Of which chip a low agreement is told, and on how many it is as low."""
    chips, details = len(result.accuracies), result.details.get(None)
    if chips == 1:
        return "" if die is None else f" on die {die}"
    first = "the first chip" if die is None else f"the first die, {die}"
    low = None if details is None else int((details.agreement < LOW_AGREEMENT).sum())
    return f" on {first}" + ("" if low is None else f"; below {LOW_AGREEMENT:.0%} on {low} of {chips}")


def _dies(package: Package, faults: str | Path | None, folder: str | Path | None) -> Iterable[Die]:
    """The dies that the chips are in turn; none: virtual ones, as the chip's description says."""
    if faults is not None and folder is not None:
        raise CimcError("faults and dies were both given: the one is a map of every chip, the other a folder of maps")
    if folder is not None:
        return read_dies(folder, package.mapping, chip=package.chip, arrays=package.arrays)
    if faults is not None:
        return [read_die(faults, package.mapping, chip=package.chip, arrays=package.arrays)]
    return [] if package.die is None else [package.die]
