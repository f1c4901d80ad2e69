"""What a run writes for the dashboards of others: TensorBoard events, one point an epoch (the extra `track`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cimc.errors import CimcError
from cimc.files import require_writable
from runtime.training.train import Run

Tracker = Callable[[Run], None]


@contextmanager
def tracking(folder: str | Path | None, resumed: int) -> Iterator[Tracker]:
    """Yields what is to be called with the run every few steps; nothing is written where `folder` is None.

    Args:
        folder: of the events; made if it is not there.
        resumed: epochs that an earlier process has written.

    Raises:
        CimcError: the extra is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield lambda run: None
        return
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise CimcError("--track writes TensorBoard events, which needs an extra: pip install 'cimc[track]'") from None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CimcError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from None
    require_writable(Path(folder) / "events")
    written = resumed
    with SummaryWriter(str(folder)) as writer:

        def track(run: Run) -> None:
            nonlocal written
            for record in run.history[written:]:
                for name, value in _scalars(record):
                    writer.add_scalar(name, value, int(record["epoch"]))
            written = max(written, len(run.history))

        yield track


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of an epoch by name; those of a table under its name, as `layers/conv1/input_range`."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            yield f"{prefix}{name}", float(value)
