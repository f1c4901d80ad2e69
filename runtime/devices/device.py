"""The door to the devices: training, export and deployment write, pulse and read through the record made here."""

from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Protocol

from jax import Array

from cimc.chip import Cell
from runtime.devices.age import age_devices
from runtime.devices.pulse_plan import find_full_pairs, plan_pulses
from runtime.devices.pulse_train import write_by_pulses
from runtime.devices.pulses import apply_pulses, seen_after
from runtime.devices.reads import read_devices
from runtime.devices.traits import Traits, draw_traits, trait_names
from runtime.devices.wear import keep_stuck, leak, wear
from runtime.devices.write_verify import Written, write_verify

NONE: Traits = MappingProxyType({})


class DrawTraits(Protocol):
    """What is a device's own; see `draw_traits`."""

    def __call__(self, key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        """By name, arrays of that shape; {} where nothing varies."""


class Write(Protocol):
    """Closed loop; see `write_verify` and `write_by_pulses`."""

    def __call__(self, goal: Array, key: Array, traits: Traits = NONE, held: Array | None = None) -> Written:
        """Write all devices to their goals [..], uS; held: what they hold before, None: G_min."""


class Plan(Protocol):
    """Which pulses a change of weights takes; see `plan_pulses`."""

    def __call__(
        self,
        change: Array,
        base: Array,
        *,
        weight_range: Array,
        held: Array | None = None,
        chance: Array | None = None,
    ) -> tuple[Array, Array]:
        """Whole pulses for G+ and G- [2, ..], and the weights [..] that they aim at."""


class FullPairs(Protocol):
    """Which one-sided pairs have no room left; see `find_full_pairs`."""

    def __call__(self, held: Array) -> Array:
        """Pairs [..] to reset and write anew, of devices that were read to hold so much [2, ..], uS."""


class Pulse(Protocol):
    """Open loop; see `apply_pulses`."""

    def __call__(self, conductance: Array, pulses: Array, key: Array, traits: Traits = NONE) -> Array:
        """Conductances [..], uS, after that many pulses (negative: RESET)."""


class Seen(Protocol):
    """What is seen of devices beside what they hold, after pulses; see `seen_after`."""

    def __call__(self, seen: Array, pulses: Array, key: Array) -> Array:
        """As the pulses with that key leave it [..], uS."""


class Read(Protocol):
    """A read with its noise; see `read_devices`."""

    def __call__(self, conductance: Array, key: Array, reads: int = 1) -> Array:
        """The mean of that many reads of every device [..], uS."""


class Age(Protocol):
    """What time leaves of a write; see `age_devices`."""

    def __call__(self, conductance: Array, seconds: Array | float, key: Array, traits: Traits = NONE) -> Array:
        """Conductances [..], uS, so long after the write; the same key is the same device at every time."""


class Wear(Protocol):
    """What wear leaves of an act; see `wear`."""

    def __call__(self, before: Array, after: Array, acts: Array, new_acts: Array, traits: Traits) -> Array:
        """Conductances [..], uS, worn devices kept."""


class Leak(Protocol):
    """A training step of a volatile cell; see `leak`."""

    def __call__(self, conductance: Array, traits: Traits) -> Array:
        """Conductances [..], uS, a step later."""


@dataclass(frozen=True, eq=False)
class Device:
    """What a kind of device does: functions of arrays of conductances in uS, to be called within `jax.jit` or outside.

    Equal only to itself, so it is hashable and may be a static argument of `jit`. trait_names: what `traits` draws.
    """

    trait_names: tuple[str, ...]
    traits: DrawTraits
    write: Write
    plan: Plan
    full_pairs: FullPairs
    pulse: Pulse
    seen: Seen
    read: Read
    age: Age
    wear: Wear
    leak: Leak


@cache
def device_of(cell: Cell) -> Device:
    """The device of a description; the same object for equal descriptions."""

    def write(goal: Array, key: Array, traits: Traits = NONE, held: Array | None = None) -> Written:
        if cell.programming.train is None:
            return write_verify(goal, key, cell=cell, traits=traits)
        return write_by_pulses(goal, key, cell=cell, traits=traits, held=held)

    def pulse(conductance: Array, pulses: Array, key: Array, traits: Traits = NONE) -> Array:
        return keep_stuck(apply_pulses(conductance, pulses, key, cell=cell, traits=traits), traits)

    def age(conductance: Array, seconds: Array | float, key: Array, traits: Traits = NONE) -> Array:
        return keep_stuck(age_devices(conductance, seconds, key, cell=cell), traits)

    return Device(
        trait_names=trait_names(cell),
        traits=partial(draw_traits, cell=cell),
        write=write,
        plan=partial(plan_pulses, cell=cell),
        full_pairs=partial(find_full_pairs, cell=cell),
        pulse=pulse,
        seen=partial(seen_after, cell=cell),
        read=partial(read_devices, cell=cell),
        age=age,
        wear=partial(wear, cell=cell),
        leak=partial(leak, cell=cell),
    )
