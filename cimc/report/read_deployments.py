"""What `cimc deploy --json` printed, read again and checked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid

Deployed = Mapping[str, Any]  # what `cimc deploy --json` prints
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class _Spread(BaseModel):
    """A figure over chips."""

    mean: FiniteFloat
    std: FiniteFloat
    min: FiniteFloat
    median: FiniteFloat
    worst: FiniteFloat | None = None


class _Figures(BaseModel):
    """The figures at one time."""

    accuracies: list[FiniteFloat] = Field(min_length=1)
    accuracy: _Spread
    of_yield: Share = Field(alias="yield")
    a_star: _Spread | None = None


class _Aged(_Figures):
    """The figures so long after programming."""

    seconds: FiniteFloat = Field(gt=0)


class _Worst(BaseModel):
    """The worst chip."""

    chip: int
    value: FiniteFloat
    stuck_share: Share
    layers: dict[str, dict[str, Any]] = {}


class _Deployment(_Figures):
    """What a report shows of a deployment."""

    measure: str = Field(strict=True)
    model: str | None = None
    chip: str | None = None
    compensation: dict[str, int] = {}
    temperature_C: FiniteFloat | None = None
    worst: _Worst | None = None
    aged: list[_Aged] = []


def read_deployments(paths: Sequence[Path], of: tuple[str, str] | None) -> dict[str, Deployed]:
    """Deployments by name: compensation and temperature, where two have the same the file's name, else its path.

    Args:
        paths: files that hold what `cimc deploy --json` printed.
        of: model and chip that they must be of, where they say; None: any.

    Raises:
        CimcError: a file is none, is of another package or was given twice, or two measure different things.
    """
    found: dict[str, Deployed] = {}
    for path in paths:
        given = _read(path)
        told = given.get("model"), given.get("chip")
        if of is not None and None not in told and told != of:
            raise CimcError(
                f"{path} was measured of {told[0]} on {told[1]}, and the package is of {of[0]} on {of[1]}; give a "
                "deployment of this package"
            )
        name = "+".join(given.get("compensation", {})) or "no compensation"
        if given.get("temperature_C") is not None:
            name += f", {given['temperature_C']:g} C"
        free = [one for one in (name, f"{name} ({path.stem})", f"{name} ({path})") if one not in found]
        if not free:
            raise CimcError(f"{path} was given twice; give each deployment once")
        found[free[0]] = given
    measures = sorted({one["measure"] for one in found.values()})
    if len(measures) > 1:
        raise CimcError(f"the deployments measure {' and '.join(measures)}; report one of them at a time")
    return found


def _read(path: Path) -> Deployed:
    """The values of a file. Raises CimcError where they are no deployment."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CimcError(f"cannot read {path} ({error}); give what `cimc deploy --json` printed") from None
    if not isinstance(given, dict):
        raise CimcError(f"{path} is no deployment; give what `cimc deploy --json` printed")
    try:
        _Deployment.model_validate(given)
    except ValidationError as error:
        why = explain_invalid(error, _Deployment).rpartition(";")[0]
        raise CimcError(f"{path} is no deployment ({why}); give what `cimc deploy --json` printed") from None
    return given
