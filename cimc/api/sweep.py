"""Sweep: one network at many points of chip, training and deployment, each computed once and kept."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cimc.api.progress import Note, Progress, silent, unsaid
from cimc.api.run_tasks import check_workers, run_tasks
from cimc.api.sources import require_data
from cimc.api.sweep_plan import SOURCE, Planned, Planner, read_source
from cimc.api.sweep_point import Compilation, Outcome, Training, Work, compile_file, measure_point, train_file
from cimc.api.sweep_search import search as search_points
from cimc.artifact import Artifact, write_artifact
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.files import replacing
from cimc.package import Package, write_package
from cimc.sweep_result import SweepResult
from cimc.sweep_results import FILES, Results, Row, claimed, discard, mark_done, point_key
from cimc.sweep_spec import OBJECTIVES, Do, Fields, SweepSpec, make_spec
from cimc.version import __version__


def sweep(
    source: str | Path | Artifact | Package,
    data: Dataset,
    *,
    vary: Mapping[str, Any],
    folder: str | Path | None = None,
    do: str | None = None,
    seeds: int | None = None,
    random: int | None = None,
    search: int | None = None,
    objective: str | Sequence[str] | None = None,
    devices: str | None = None,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
) -> SweepResult:
    """Measure a network at many points, and keep a row for each.

    Points that begin with the same compilation or training share it. A sweep that was killed goes on where it was.
    Where the machine failed, such as for lack of memory, the result is not complete: the next run computes them.

    Args:
        source: an ONNX file, a `.cim` file or its contents, a package folder or its contents.
        data: for training and measuring.
        vary: by field its values: a list, a text such as `"6:9"` (`cimc.sweep_values.parse_values`), or one value.
            Fields are `chip`, `device`, keys of chip files such as `cell.read_noise_uS`, options as `train.lr`,
            `compile.`, `eval.`, `export.` and `deploy.` name them, and `seed`.
        folder: of the results; one that holds this sweep goes on. None: nothing is kept on disk.
        do: what a point does: `eval`, `train` (and evaluate) or `deploy`; None: what source and fields ask for.
        seeds: each point is computed with the seeds from 0 on; in place of a field `seed`. None: 1.
        random: draw so many points; None: all combinations.
        search: let Optuna look for the best in so many points.
        objective: `FIGURE:max` or `FIGURE:min`, one or several; None: `accuracy:max`, or of points with `deploy.at` the
            accuracy after the longest time of all.
        devices: what is evaluated of a trained file where fields of the chip vary: `keep` its devices and ranges,
            `write` its weights on the chip of each point; None: auto, keep where only the noise of reads varies.
        workers: local processes. cluster: address of a dask scheduler instead.
        progress: called with the points done, of how many.
        note: called with a line for what is being prepared.

    Raises:
        CimcError: fields, source or data do not fit, the folder holds another sweep, or no point could be computed.
    """
    require_data(data)
    settings = {"do": do, "seeds": seeds, "random": random, "search": search, "objective": objective}
    spec = make_spec(vary, **settings, devices=devices)
    check_workers(workers, cluster)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()) if folder is None else folder)
        held = source if isinstance(source, str | Path) else _held(source, stack)
        planner = Planner(read_source(held), spec, place / FILES, here=cluster is None)
        results = stack.enter_context(claimed(place, _stated(planner, data)))
        runner = _Runner(
            planner, data, results, files=place / FILES, workers=workers, cluster=cluster, progress=progress, note=note
        )
        try:
            runner.run()
        except CimcError:
            if not any(runner.serves(row) for row in results.rows()):
                discard(place)
            raise
        rows = sorted([*results.rows(), *runner.passing.values()], key=lambda row: row.number)
        if not runner.passing:
            mark_done(place)
        complete = not runner.passing
        return SweepResult(planner.source.name, tuple(spec.varied), tuple(rows), spec.objectives, complete)


class _Runner:
    """Computes the points that a sweep's folder does not have yet."""

    def __init__(
        self,
        planner: Planner,
        data: Dataset,
        results: Results,
        *,
        files: Path,
        workers: int,
        cluster: str | None,
        progress: Progress,
        note: Note,
    ) -> None:
        self._planner, self._spec, self._files = planner, planner.spec, files
        self._data, self._results = data, results
        self._workers, self._cluster, self._progress, self._note = workers, cluster, progress, note
        self._rows = {row.key: row for row in results.rows()}
        self.passing: dict[str, Row] = {}  # whose errors may pass: not kept
        self._unmade: dict[str, Outcome] = {}  # why a file could not be made
        self._done = 0
        self._checked = False  # whether the objectives were checked by figures

    def run(self) -> None:
        """Compute what is missing. Raises CimcError where no point at all has figures."""
        spec = self._spec
        if self._planner.source.kind == "trained" and self._planner.do is Do.eval:
            self._note(_WRITTEN if self._planner.written else _KEPT)
        if stays := costs_that_stay(spec):
            self._note(
                f"what a read takes stays as the chip file has it where {' and '.join(stays)} varies; vary fields of "
                "cost. with it, or layer.NAME.adc.bits and layer.NAME.input.bits, whose reads are priced by rule"
            )
        if self._rows:
            self._note(f"{_counted(len(self._rows), 'point')} there already")
        if spec.search is None:
            self._compute(list(spec.points()), first=0)
        else:
            search_points(spec, self._searched)
        rows = [*self._rows.values(), *self.passing.values()]
        if all(row.error is not None for row in rows):
            raise CimcError(f"no point could be computed: {rows[0].error if rows else 'the sweep has none'}")

    def _searched(self, first: int, points: Sequence[Fields]) -> list[list[float] | None]:
        """The means of the objectives of these points; None where a seed failed or lacks one."""
        self._compute(points, first=first)
        if self.passing:  # the next points follow from all before
            failed = next(iter(self.passing.values()))
            raise CimcError(f"point {failed.number} failed: {failed.error}; the same command goes on there")
        found: list[list[float] | None] = []
        for fields in points:
            rows = [self._rows.get(point_key(fields, seed)) for seed in self._spec.seeds]
            figures = [row.figures for row in rows if row is not None and not self._missing(row.figures)]
            means = [float(np.mean([one[aim.figure] for one in figures])) for aim in self._spec.objectives if figures]
            found.append(means if len(figures) == len(rows) else None)
        return found

    def serves(self, row: Row) -> bool:
        """Whether a row says something: it has figures, and those that a search goes by."""
        return row.error is None and (self._spec.search is None or not self._missing(row.figures))

    def _missing(self, figures: Mapping[str, float]) -> list[str]:
        """The objectives that are not among figures."""
        return [aim.figure for aim in self._spec.objectives if aim.figure not in figures]

    def _compute(self, points: Sequence[Fields], *, first: int) -> None:
        """Compute those of these points that are still missing; `first` is the number of the first."""
        seeds, planned = self._spec.seeds, {}
        self._done = first * len(seeds)
        for index, fields in enumerate(points, first):
            for place, seed in enumerate(seeds):
                key = point_key(fields, seed)
                if key not in planned and key not in self._rows:
                    planned[key] = self._planner.plan(index * len(seeds) + place, fields, seed)
                else:
                    self._done += 1
        total = (self._spec.search or len(points)) * len(seeds)
        self._progress(self._done, total)
        self._compile(dict(one.compilation for one in planned.values() if one.compilation))
        self._train(dict(one.training for one in planned.values() if one.training))
        ready = []
        for one in planned.values():
            needed = [task[0] for task in (one.compilation, one.training) if task is not None]
            unmade = next((self._unmade[name] for name in needed if name in self._unmade), None)
            if unmade is not None or one.point is None:
                self._add(one, unmade or Outcome(error=one.error), total)
            else:
                ready.append((one.order, one, one.point))
        ready.sort(key=lambda part: part[0])
        tasks = [point for _, _, point in ready]
        for index, outcome in self._run(measure_point, tasks, [point.file for point in tasks]):
            self._add(ready[index][1], outcome, total)
        self._check_objectives()

    def _compile(self, tasks: Mapping[str, Compilation]) -> None:
        """Compile what is not there yet; always on this machine, where the network's files are."""
        missing = {name: task for name, task in tasks.items() if not task.place.exists() and name not in self._unmade}
        if missing:
            self._note(f"compiling {_counted(len(missing), 'file')}")
        work = Work(self._data, {})
        done = run_tasks(compile_file, list(missing.values()), shared=work, workers=self._workers)
        self._note_unmade(list(missing), done)

    def _train(self, tasks: Mapping[str, Training]) -> None:
        """Train what is not there yet and whose compilation is."""
        missing = {
            name: task
            for name, task in tasks.items()
            if not {name, task.file} & self._unmade.keys() and not (self._files / name).exists()
        }
        if missing:
            self._note(f"training {_counted(len(missing), 'file')}")
        done = self._run(train_file, list(missing.values()), [task.file for task in missing.values()])
        self._note_unmade(list(missing), done)

    def _note_unmade(self, names: Sequence[str], done: Iterable[tuple[int, Outcome]]) -> None:
        for index, outcome in done:
            if outcome.error is not None:
                self._unmade[names[index]] = outcome
            elif outcome.content is not None:
                with replacing(self._files / names[index]) as temporary:
                    temporary.write_bytes(outcome.content)

    def _run(
        self, function: Callable[[Work, Any], Outcome], tasks: Sequence[Any], names: Sequence[str | None]
    ) -> Iterable[tuple[int, Outcome]]:
        """The outcomes of tasks that begin with the files of these names."""
        if not tasks:
            return ()
        source, files = self._planner.source, {}
        for name in {name for name in names if name is not None}:
            path = source.path if name == SOURCE else self._files / name
            files[name] = path.absolute() if self._cluster is None else path.read_bytes()
        package = source.contents if isinstance(source.contents, Package) else None
        work = Work(self._data, files, package)
        return run_tasks(function, tasks, shared=work, workers=self._workers, cluster=self._cluster)

    def _add(self, planned: Planned, outcome: Outcome, total: int) -> None:
        """Keep a row, but for errors that may pass."""
        row = Row(planned.number, planned.fields, planned.seed, outcome.figures, outcome.error, outcome.seconds)
        if outcome.passing:
            self.passing[row.key] = row
        else:
            self._results.add(row)
            self._rows[row.key] = row
        self._done += 1
        self._progress(self._done, total)

    def _check_objectives(self) -> None:
        """Tell of objectives that no point has, once: of the grid, or of a search's first ones, which ends here."""
        figures = {name: figure for row in self._rows.values() for name, figure in row.figures.items()}
        if self._checked or not figures:
            return
        self._checked = True
        missing = self._missing(figures)
        if missing and self._spec.search is not None:
            raise CimcError(f"points have no {missing[0]} to search by; they have {', '.join(figures)}")
        if missing and self._spec.objectives != OBJECTIVES:
            self._note(f"points have no {', '.join(missing)}, so it is not shown; they have {', '.join(figures)}")


def costs_that_stay(spec: SweepSpec) -> list[str]:
    """Varied fields of the chip that what is looked at should follow, and does not: a chip file's costs are fixed."""
    looked_at = {aim.figure for aim in spec.objectives} & {"energy_mj", "latency_ms", "area_mm2"}
    if not looked_at or any(field.startswith(("cost.", "area.")) for field in spec.varied):
        return []
    sizes = ("adc.bits", "input.bits", "input.bits_per_cycle", "array.rows", "array.columns")
    return [field for field in spec.varied if field in sizes]


_KEPT = "devices and input ranges stay as they were trained"
_WRITTEN = (
    "weights are read from the trained devices and written on the chip of each point, and input ranges fitted there, "
    "as export does"
)


def _stated(planner: Planner, data: Dataset) -> dict[str, Any]:
    """What makes a sweep the same one, as JSON values; `points` is how many rows it has in the end."""
    spec = planner.spec
    points = spec.search or len(list(spec.points()))
    return {
        "source": planner.source.name,
        "source_sha256": planner.source.digest,
        "data": data.name,
        "data_sha256": _digest(data),
        "chips_sha256": planner.chips_digest(),
        **spec.json(),
        "do": str(planner.do),
        "cimc_version": __version__,
        "points": points * len(spec.seeds),
    }


def _digest(data: Dataset) -> str:
    """SHA-256 of all samples and of how they are seen."""
    digest = hashlib.sha256(repr(data.preprocess).encode())
    for samples in (data.train, data.test):
        labels = samples.labels if isinstance(samples.labels, Mapping) else {"": samples.labels}
        for name, array in [*samples.inputs.items(), *labels.items()]:
            digest.update(f"{name} {None if array is None else (array.dtype, array.shape)}".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _held(source: Artifact | Package, stack: ExitStack) -> Path:
    """A place on the disk for what is in memory: workers read it there."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if isinstance(source, Package):
        write_package(folder / "package", source)
        return folder / "package"
    write_artifact(folder / "source.cim", source)
    return folder / "source.cim"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
