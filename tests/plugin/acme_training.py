"""An update policy and an objective of the mapper; both borrow what they do not do themselves."""

from dataclasses import dataclass, replace
from typing import Any

from passes.mapper.objective import find_objective
from runtime.training.policies import find_policy, mixed_precision
from runtime.training.policies.policy import UpdatePolicy, Wish


@dataclass(frozen=True)
class Patient:
    """Options. factor: of the device's granularity, at which a weight is due."""

    factor: float = 2.0


def _threshold(options: Patient, chip: Any) -> float:
    return options.factor * float(chip.cell.granularity)


def _mixed(options: Patient, chip: Any) -> mixed_precision.MixedPrecision:
    return mixed_precision.MixedPrecision(threshold=_threshold(options, chip))


def _update(options: Patient, chip: Any, *rest: Any) -> Wish:
    return mixed_precision.update(_mixed(options, chip), chip, *rest)


PATIENT: UpdatePolicy = replace(
    find_policy("mixed-precision"),
    name="acme-patient",
    options=Patient,
    check=lambda options, chip: mixed_precision.check(_mixed(options, chip), chip),
    threshold=_threshold,
    update=_update,
    aim=lambda options, chip, *rest: mixed_precision.aim(_mixed(options, chip), chip, *rest),
    settle=lambda options, chip, *rest: mixed_precision.settle(_mixed(options, chip), chip, *rest),
)
COLUMNS = replace(find_objective("arrays"), unit="arrays of acme")
