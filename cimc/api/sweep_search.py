"""Points of a sweep that Optuna looks for (the extra `sweep`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cimc.errors import CimcError
from cimc.sweep_spec import Fields, SweepSpec
from cimc.sweep_values import Interval

# So many points are asked for before the next results are told. Fixed, so that a sweep asks the same whatever computes
# it, and after it was killed asks again what it asked before.
TOGETHER = 4
# The means of the objectives of points, None where a point failed.
Found = Sequence[Sequence[float] | None]


def search(spec: SweepSpec, measure: Callable[[int, Sequence[Fields]], Found]) -> None:
    """Ask for the points of a search, and tell what they gave.

    Args:
        spec: the sweep.
        measure: called with the number of the first and the fields of some points.

    Raises:
        CimcError: the extra is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise CimcError("--search needs an extra: pip install 'cimc[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert spec.search is not None
    study = optuna.create_study(
        directions=["maximize" if one.largest else "minimize" for one in spec.objectives],
        sampler=optuna.samplers.TPESampler(seed=spec.seeds[0] % 2**32),
    )
    for first in range(0, spec.search, TOGETHER):
        trials = [study.ask() for _ in range(min(TOGETHER, spec.search - first))]
        points = [_fields(trial, spec.fields) for trial in trials]
        for trial, values in zip(trials, measure(first, points), strict=True):
            if values is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, list(values))


def _fields(trial: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna suggests for each field."""
    chosen: dict[str, Any] = {}
    for name, values in fields.items():
        if isinstance(values, Interval):
            if values.whole:
                chosen[name] = trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
            else:
                chosen[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
        elif len(values) == 1:
            chosen[name] = values[0]
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            ordered = sorted(values)  # near numbers give near results
            chosen[name] = ordered[trial.suggest_int(name, 0, len(values) - 1)]
        else:
            chosen[name] = values[trial.suggest_categorical(name, list(range(len(values))))]
    return chosen
