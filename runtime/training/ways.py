"""Ways to compute that touch no device, by name: `--update NAME` takes them beside the update policies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cimc.options import OFF_ARRAYS
from runtime.training.compute import FLOAT, Compute
from runtime.training.hardware_aware import HardwareAware, QuantisationAware, hardware_aware, quantisation_aware
from runtime.training.policies.settings import make_options


@dataclass(frozen=True)
class NoOptions:
    """Of float, which has none."""


class Way(NamedTuple):
    """options: the dataclass of its options. compute: the way to compute with them."""

    options: type[Any]
    compute: Callable[[Any], Compute]


WAYS: dict[str, Way] = dict(
    zip(
        OFF_ARRAYS,
        (
            Way(NoOptions, lambda options: FLOAT),
            Way(QuantisationAware, quantisation_aware),
            Way(HardwareAware, hardware_aware),
        ),
        strict=True,
    )
)


def compute_by(name: str, settings: Mapping[str, Any]) -> Compute:
    """The way to compute of that name with its options. Raises CimcError for options that it does not have."""
    way = WAYS[name]
    return way.compute(make_options(way.options, f"--update {name}", settings))
