"""What a run writes for the dashboards of others, one point an epoch: TensorBoard events, or MLflow."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cimc.errors import CimcError
from cimc.files import require_writable
from runtime.training.run import Run

Tracker = Callable[[Run], None]
AddPoint = Callable[[str, float, int], None]  # name, value, epoch

MLFLOW = "mlflow:"  # before a tracking URI
EXPERIMENT, RUN_TAG = "cimc", "cimc.run"


@contextmanager
def tracking(place: str | Path | None, resumed: int, run_name: str) -> Iterator[Tracker]:
    """Yields what is to be called with the run every few steps; nothing is written where `place` is None.

    Args:
        place: a folder for TensorBoard events, made if it is not there; or `mlflow:` and a tracking URI, such as
            `mlflow:http://host:5000` or `mlflow:sqlite:///runs.db`.
        resumed: epochs that an earlier process has written.
        run_name: of MLflow's run; a resumed run goes on in the last one of its name.

    Raises:
        CimcError: what it needs is not installed, or the place cannot be written.
    """
    if place is None:
        yield lambda run: None
        return
    written = resumed
    is_uri = isinstance(place, str) and place.startswith(MLFLOW)
    points = _mlflow(str(place)[len(MLFLOW) :], resumed, run_name) if is_uri else _tensorboard(Path(place))
    with points as add:

        def track(run: Run) -> None:
            nonlocal written
            for record in run.history[written:]:
                for name, value in _scalars(record):
                    add(name, value, int(record["epoch"]))
            written = max(written, len(run.history))

        yield track


@contextmanager
def _tensorboard(folder: Path) -> Iterator[AddPoint]:
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise CimcError("--track writes TensorBoard events, which needs an extra: pip install 'cimc[track]'") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CimcError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from None
    require_writable(folder / "events")
    with SummaryWriter(str(folder)) as writer:
        yield writer.add_scalar


@contextmanager
def _mlflow(uri: str, resumed: int, run_name: str) -> Iterator[AddPoint]:
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError:
        raise CimcError(f"--track {MLFLOW}{uri} needs mlflow: pip install mlflow") from None
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = client.create_experiment(EXPERIMENT) if known is None else known.experiment_id
        before = [] if not resumed else client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run_name}'")
        run = before[0] if before else client.create_run(experiment, run_name=run_name, tags={RUN_TAG: run_name})
    except (MlflowException, ModuleNotFoundError, OSError, ValueError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CimcError(f"mlflow cannot write {uri}: {line[:160]}; correct the URI, or leave --track out") from None
    identity, ended = run.info.run_id, "FAILED"
    try:
        yield lambda name, value, epoch: client.log_metric(identity, name, value, step=epoch)
        ended = "FINISHED"
    finally:
        client.set_terminated(identity, ended)


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of an epoch by name; those of a table under its name, as `layers/conv1/input_range`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            yield f"{prefix}{name}", float(value)
