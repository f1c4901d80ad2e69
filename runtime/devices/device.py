"""The door to the devices: training, export and deployment write, pulse and read through the record made here.

Traits that are drawn once a chip (a device's own step, bounds or drift exponent, a stuck value) and ageing (drift,
retention) have no figure in a chip file yet, so every device is its description's. They will be two more fields of the
record, in a file each: `traits(key, shape)` and `age(conductance, seconds)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

from jax import Array

from cimc.chip import Cell
from runtime.devices.pulse_plan import plan_pulses
from runtime.devices.pulse_train import write_by_pulses
from runtime.devices.pulses import NO_TRAITS, apply_pulses
from runtime.devices.reads import read_devices
from runtime.devices.write_verify import Written, write_verify


class Write(Protocol):
    """Closed loop; see `write_verify` and `write_by_pulses`."""

    def __call__(self, goal: Array, key: Array) -> Written:
        """Write all devices to their goals [..], uS."""


class Plan(Protocol):
    """Which pulses a change of weights takes; see `plan_pulses`."""

    def __call__(
        self, change: Array, base: Array, *, weight_range: Array, held: Array | None = None
    ) -> tuple[Array, Array]:
        """Whole pulses for G+ and G- [2, ..], and the weights [..] that they aim at."""


class Pulse(Protocol):
    """Open loop; see `apply_pulses`."""

    def __call__(self, conductance: Array, pulses: Array, key: Array, traits: Mapping[str, Array] = NO_TRAITS) -> Array:
        """Conductances [..], uS, after that many pulses (negative: RESET)."""


class Read(Protocol):
    """A read with its noise; see `read_devices`."""

    def __call__(self, conductance: Array, key: Array, reads: int = 1) -> Array:
        """The mean of that many reads of every device [..], uS."""


@dataclass(frozen=True, eq=False)
class Device:
    """What a kind of device does: functions of arrays of conductances in uS, to be called within `jax.jit` or outside.

    Equal only to itself, so it is hashable and may be a static argument of `jit`.
    """

    write: Write
    plan: Plan
    pulse: Pulse
    read: Read


@cache
def device_of(cell: Cell) -> Device:
    """The device of a description; the same object for equal descriptions."""
    return Device(
        write=partial(write_by_pulses if cell.programming.train else write_verify, cell=cell),
        plan=partial(plan_pulses, cell=cell),
        pulse=lambda conductance, pulses, key, traits=NO_TRAITS: apply_pulses(
            conductance, pulses, key, cell=cell, traits=traits
        ),
        read=partial(read_devices, cell=cell),
    )
