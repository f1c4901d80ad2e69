"""What a worker does for a sweep: train a file, measure a point. Everything random follows from the point's seed."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

from cimc.api.begin_from import begin_from
from cimc.api.compile import compile as compile_network
from cimc.api.deploy import deploy
from cimc.api.evaluate import evaluate
from cimc.api.export import EXPORT_READS, export
from cimc.api.progress import unsaid
from cimc.api.remap import remap
from cimc.api.sweep_training import training_options
from cimc.api.system_of import state_of, system_of
from cimc.api.train import train
from cimc.artifact import Artifact, read_artifact, write_artifact
from cimc.chip import Chip, parse_chip
from cimc.dataset import Dataset
from cimc.durations import time_text
from cimc.errors import CimcError
from cimc.mapping import Mapping as Layout
from cimc.package import Package
from cimc.sweep_result import AFTER
from cimc.sweep_results import LARGEST
from cimc.sweep_spec import Do
from cimc.sweep_values import canonical
from runtime.crossbar.keys import new_key
from runtime.deployment.result import summary
from runtime.system.state import flatten_state, read_back

# A file by its name: where it lies, or what it holds for workers that see no folder of ours.
Content = Path | bytes
FLOAT = {"options": {"policy": {"method": "float"}}}  # the history of a file whose devices are still to be written


@dataclass(frozen=True)
class Work:
    """What all points share. data: of training and measuring. files: by name. package: the source, where it is one."""

    data: Dataset
    files: Mapping[str, Content]
    package: Package | None = None


@dataclass(frozen=True)
class Compilation:
    """An ONNX file to compile, for all points that the mapper sees no difference between."""

    model: Path
    chip: str
    options: Mapping[str, Any]
    seed: int
    place: Path


@dataclass(frozen=True)
class Training:
    """A file to train, for all points that begin so. place: where it is to be written; None: its bytes are returned."""

    file: str
    chip: str | None
    options: Mapping[str, Any]
    seed: int
    place: Path | None


@dataclass(frozen=True)
class Point:
    """One measurement.

    file: the compiled or trained file that it begins with; None: the package. chip: TOML of another chip than the
    file's; None: the file's own. written: the weights of a trained file are written on the chip anew. options: of
    evaluation, or of export and deployment, by `eval`, `export`, `deploy`.
    """

    do: Do
    file: str | None
    chip: str | None
    written: bool
    seed: int
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a task: figures by name, or why there are none.

    content: of a trained file, where asked for. passing: the error is of the machine or of this program, not of the
    point: it may have figures another time.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    content: bytes | None = None
    passing: bool = False


def compile_file(work: Work, task: Compilation) -> Outcome:
    """Compile an ONNX file; without a stated input range, for that of the data."""

    def act() -> Outcome:
        options = dict(task.options)
        if "input_range" not in options:
            options["calibrate"] = work.data
        chip = _chip(task.chip)
        compile_network(task.model, chip, output=task.place, seed=task.seed, **options)
        return Outcome()

    return _told(act)


def train_file(work: Work, task: Training) -> Outcome:
    """Train a file; what is there already of an interrupted run at its place goes on to the same bits."""

    def act() -> Outcome:
        artifact = on_chip(_artifact(work.files[task.file]), task.chip)
        options = training_options(task.options, task.seed)
        if task.place is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "trained.cim"
                write_artifact(path, train(artifact, work.data, options=options).artifact)
                return Outcome(content=path.read_bytes())
        part = task.place.with_suffix(".part.cim")
        train(artifact, work.data, options=options, output=part, resume=True)
        part.replace(task.place)
        return Outcome()

    return _told(act)


def measure_point(work: Work, point: Point) -> Outcome:
    """The figures of a point, or why it has none."""

    def act() -> Outcome:
        figures = _deployed(work, point) if point.do is Do.deploy else _evaluated(work, point)
        for name, value in figures.items():
            if not abs(value) <= LARGEST:  # neither JSON nor means over seeds take it
                raise CimcError(f"{name} is {value}, no finite number up to {LARGEST:g}")
        return Outcome(figures)

    return _told(act)


def on_chip(artifact: Artifact, chip_text: str | None) -> Artifact:
    """The network of a file on another chip: compiled there, or its mapping where that is the same.

    None: the file as it is.
    """
    if chip_text is None or chip_text == artifact.chip_text:
        return artifact
    chip = _chip(chip_text)
    mapping = artifact.mapping if same_layout(chip, artifact.chip) else remap(artifact, artifact.network, chip=chip)
    return replace(artifact, chip=chip, chip_text=chip_text, mapping=mapping, state={}, history={})


def same_layout(one: Chip, other: Chip) -> bool:
    """Whether the mapper sees no difference between two chips: it reads no devices, ADC, wires or energy by data."""
    return layout_text(one) == layout_text(other)


@lru_cache(maxsize=256)
def layout_text(chip: Chip) -> str:
    """What the mapper reads of a chip, as one text."""
    return chip.model_dump_json(exclude={"description", "cell", "adc", "wires", "energy"})


def _evaluated(work: Work, point: Point) -> dict[str, float]:
    assert point.file is not None
    content = work.files[point.file]
    source = _artifact(content)
    if point.written and source.state:
        bare = replace(source, state={}, history={})
        artifact = begin_from(on_chip(bare, point.chip), _as_read(content, point.seed), unsaid)
    elif source.state and point.chip is not None:
        artifact = replace(source, chip=_chip(point.chip), chip_text=point.chip)  # read otherwise, held as trained
    else:
        artifact = on_chip(source, point.chip)
    figures = evaluate(artifact, work.data, seed=point.seed, **point.options.get("eval", {}))
    training = source.history.get("figures") if point.do is Do.train else None
    return {**_measures(figures), **costs(artifact.mapping), **_numbers(training or {}, TRAINING)}


def _deployed(work: Work, point: Point) -> dict[str, float]:
    options = point.options
    if point.file is None:
        package = work.package
        assert package is not None
        if point.chip is not None:
            package = _repackaged(package, point.chip)
    else:
        settings = canonical(options.get("export", {}))
        package = _exported(work.files[point.file], point.chip, settings, point.seed, work.data)
    found = deploy(package, work.data, seed=point.seed, **options.get("deploy", {}))
    figures = summary(found)
    name, spread = found.measure, figures["accuracy"]
    return {
        name: spread["median"],
        f"{name}_mean": spread["mean"],
        f"{name}_worst": spread["worst"],
        f"{name}_baseline": figures["baseline_accuracy"],
        "yield": figures["yield"],
        **{f"{name}{AFTER}{time_text(at['seconds'])}": at["accuracy"]["median"] for at in figures.get("aged", ())},
        **costs(package.mapping),
    }


def costs(mapping: Layout) -> dict[str, float]:
    """What the mapper states of a network on its chip, for one input."""
    areas = [component.area_mm2 for component in mapping.cost.components if component.area_mm2 is not None]
    spent = mapping.cost.spent_mj
    return {
        # A chip that states no energy is not the one that takes least.
        **({"energy_mj": float(spent)} if spent else {}),
        "latency_ms": float(mapping.latency_ms),
        "arrays": mapping.arrays * mapping.physical_per_array,
        "chips": mapping.chips,
        **({"area_mm2": float(sum(areas))} if areas else {}),
    }


TRAINING = ("loss", "epochs", "updates_per_weight_mean", "updates_per_weight_max")


def _measures(figures: Mapping[str, Any]) -> dict[str, float]:
    """The measures of `evaluate`, without times of this machine, and the agreement with float32."""
    numbers = {
        name: float(value)
        for name, value in figures.items()
        if name != "images_per_s" and isinstance(value, int | float)
    }
    agreement = figures.get("agreement", {})
    for output, found in agreement.items():
        before = f"{output}." if len(agreement) > 1 else ""
        if "argmax_agreement" in found:
            numbers[f"{before}agreement"] = float(found["argmax_agreement"])
        numbers[f"{before}snr_db"] = float(found["snr_db"])
    return numbers


def _numbers(figures: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    return {name: figures[name] for name in names if isinstance(figures.get(name), int | float)}


@lru_cache(maxsize=4)
def _artifact(content: Content) -> Artifact:
    if isinstance(content, Path):
        return read_artifact(content)
    with tempfile.NamedTemporaryFile(suffix=".cim") as file:  # its weights stay mapped when its name is gone
        file.write(content)
        file.flush()
        return read_artifact(file.name)


@lru_cache(maxsize=256)
def _chip(text: str) -> Chip:
    return parse_chip(text, "of a point")


@lru_cache(maxsize=2)
def _as_read(content: Content, seed: int) -> Artifact:
    """A trained file with its devices' weights, read as export reads them, as its digital copy: still to be written."""
    artifact = _artifact(content)
    system = system_of(artifact)
    state, programmed = state_of(artifact, system, artifact.model, weight_range=None)
    if not programmed:
        return artifact
    state = read_back(system, state, jax.random.fold_in(new_key(seed), 1), EXPORT_READS)
    return replace(artifact, state=flatten_state(state), history={**artifact.history, **FLOAT})


@lru_cache(maxsize=1)
def _exported(content: Content, chip: str | None, settings: str, seed: int, data: Dataset) -> Package:
    """The package of a file; points that differ in deployment alone share it. settings: of `export`, as JSON."""
    target = None if chip is None else _chip(chip)
    samples = data if len(data.train) else None
    return export(_artifact(content), target, data=samples, seed=seed, **json.loads(settings))


def _repackaged(package: Package, chip_text: str) -> Package:
    """A package on another chip, with its targets as they are."""
    chip = _chip(chip_text)
    cell, own = chip.cell, package.chip.cell
    window = ("conductance_min_uS", "conductance_max_uS", "levels", "level_uS", "read_voltage_V")
    if not same_layout(chip, package.chip) or any(getattr(cell, key) != getattr(own, key) for key in window):
        raise CimcError(
            "the package is laid out for its own chip; vary what its devices and converters do, or sweep the .cim file "
            "with --do deploy"
        )
    return replace(package, chip=chip, chip_text=chip_text)


def _told(act: Callable[[], Outcome]) -> Outcome:
    """The outcome with its time, or the one-line reason why there is none."""
    began = time.perf_counter()
    try:
        outcome = act()
    except CimcError as error:
        outcome = Outcome(error=str(error), passing=isinstance(error.__context__, OSError))
    except Exception as error:
        if os.environ.get("CIMC_TRACEBACK"):
            raise
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            outcome = Outcome(error="not enough memory", passing=True)
        else:
            detail = str(error).strip().partition("\n")[0]
            told = CimcError(f"internal error ({type(error).__name__}: {detail:.200})")
            outcome = Outcome(error=str(told), passing=True)
    return replace(outcome, seconds=time.perf_counter() - began)
