"""The options of training as fields of a sweep name them: those of `cimc train`, `set.NAME` for its policy's own."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cimc.errors import CimcError
from runtime.training.frank_wolfe import FrankWolfe
from runtime.training.options import Policy, TrainingOptions

OWN = tuple(one.name for one in fields(TrainingOptions) if one.name not in ("policy", "seed", "frank_wolfe"))
POLICY = tuple(one.name for one in fields(Policy) if one.name not in ("method", "settings"))
FRANK_WOLFE = tuple(one.name for one in fields(FrankWolfe))


def training_options(given: Mapping[str, Any], seed: int) -> TrainingOptions:
    """Options of a run from those that are given by name.

    Raises:
        CimcError: a name that training has not, or as `TrainingOptions`.
    """
    known = ("update", *OWN, *POLICY, *FRANK_WOLFE)
    unknown = [name for name in given if name not in known and not name.startswith("set.")]
    if unknown:
        raise CimcError(f"training has no option train.{unknown[0]}; it has set.NAME of its policy, {', '.join(known)}")
    policy: dict[str, Any] = {name: given[name] for name in POLICY if name in given}
    policy["settings"] = tuple((key.removeprefix("set."), given[key]) for key in given if key.startswith("set."))
    if "update" in given:
        policy["method"] = given["update"]
    return TrainingOptions(
        policy=Policy(**policy),
        frank_wolfe=FrankWolfe(**{name: given[name] for name in FRANK_WOLFE if name in given}),
        seed=seed,
        **{name: given[name] for name in OWN if name in given},
    )
