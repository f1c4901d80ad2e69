"""What an update policy is: a record of functions over explicit state, with a frozen dataclass of options.

A step of training asks it three things (`runtime.training.update` calls them, the write scheduler in between):

    wish           = policy.update(options, chip, layer, change, weight_range, key)   which weights are due
    aim            = policy.aim(options, chip, layer, wish, weight_range, key)        goals or pulses of those granted
    layer          = policy.settle(options, chip, layer, wish, aim, weight_range, key)    after the write

State is split by owner: `conductance` is what the chip holds, `memory` what the policy remembers, `weight` the digital
copy; `tiles` are further devices of each weight, of policies that need more than a pair. Everything is elementwise in
the weights: the functions see whole layers, several layers in one vector, or a few strips of them
(`runtime.training.vectors`), and must not care.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax import Array

from cimc.chip import Chip


class Tile(NamedTuple):
    """A further pair of devices of every weight.

    conductance: [2, ..] in uS. trials: pulses that each device took [2, ..]. traits: of the devices, each [2, ..].
    seen: as of `LayerState`.
    """

    conductance: Array
    trials: Array
    traits: dict[str, Array]
    seen: Array | None = None


class LayerState(NamedTuple):
    """A layer's part of the state (`runtime.system.state`), or several layers' in one (`runtime.training.vectors`).

    weight: digital copy [..]. memory: what the policy remembers, by name, each [..]. conductance: [2, ..] in uS.
    updates: times a device of a weight was written [..]. writes, trials: of each device [2, ..]. seen: of devices whose
    blind writes are noisy, what `conductance` has beside what the device holds [2, ..] in uS; None: of others. tiles:
    further devices of the policy, by name; what the network reads then is `UpdatePolicy.combine`.
    """

    weight: Array
    memory: dict[str, Array]
    conductance: Array
    updates: Array
    writes: Array
    trials: Array
    seen: Array | None = None
    tiles: dict[str, Tile] = {}  # noqa: RUF012 - never changed, and a pytree as JAX knows it


class Place(NamedTuple):
    """Where weights [..] lie.

    row: of the layer. rows: of that layer, scalar or [..]. word_line: through all layers (`Lines.line`).
    """

    row: Array
    rows: Array
    word_line: Array


class Change(NamedTuple):
    """What a training step asks of the weights [..], in their unit.

    step: of the optimiser, learning rate and weight decay in it. gradient: of the loss. largest_step, largest_gradient:
    the largest magnitude in the layer of each weight, scalar or [..]. rate: the learning rate now. number: of the step.
    place: of the weights.
    """

    step: Array
    gradient: Array
    largest_step: Array | float = 1.0
    largest_gradient: Array | float = 1.0
    rate: Array | float = 1.0
    number: Array | int = 0
    place: Place | None = None


class Wish(NamedTuple):
    """What should be written.

    due: [..]. base: what the weights are taken to hold [..]. held: what the devices were read to hold [2, ..] in uS;
    None: not read. memory: with this step in it. tiles: as the step leaves them; the policy pulses them itself.
    """

    due: Array
    base: Array
    held: Array | None
    memory: dict[str, Array]
    tiles: dict[str, Tile] = {}  # noqa: RUF012 - as of `LayerState`


class Aim(NamedTuple):
    """How the granted weights are written.

    goal: conductances [2, ..] in uS of a closed-loop write; None: blind pulses. pulses: how many, negative RESET
    [2, ..]; None: closed loop. reset: pairs whose devices are both reset to G_min before their pulses [..]; None: none.
    selected: devices that are written [2, ..]. wanted: the weights asked for [..]; aimed:
    those that the write aims at [..].
    """

    goal: Array | None
    pulses: Array | None
    selected: Array
    wanted: Array
    aimed: Array
    reset: Array | None = None


def no_tiles(options: Any) -> tuple[str, ...]:
    """The further devices of a policy that needs one pair a weight."""
    return ()


@dataclass(frozen=True)
class UpdatePolicy:
    """An update policy.

    name: as the user gives it. options: the frozen dataclass of its options; each has a default. memory: names of what
    it remembers a weight. begin: what of that is not zero at first, of a layer of that shape and weight range. check:
    raises CimcError for options that do not fit the chip. threshold: at which a weight is due, as a fraction of the
    weight range. waits: a due weight that is not written stays due, with what is missing in `accumulator`. tiles: names
    of the further devices of each weight that the options need. combine: the weights [..] that a layer's devices stand
    for, as fractions of the weight range, for policies without a digital copy of their own; None: the policy keeps one.
    reads: reads of single devices a weight and step that such a policy makes.
    """

    name: str
    options: type[Any]
    memory: tuple[str, ...]
    check: Callable[[Any, Chip], None]
    threshold: Callable[[Any, Chip], float]
    update: Callable[[Any, Chip, LayerState, Change, Array, Array], Wish]
    aim: Callable[[Any, Chip, LayerState, Wish, Array, Array], Aim]
    settle: Callable[[Any, Chip, LayerState, Wish, Aim, Array, Array], LayerState]
    waits: bool = False
    tiles: Callable[[Any], tuple[str, ...]] = no_tiles
    combine: Callable[[Any, Chip, LayerState], Array] | None = None
    reads: Callable[[Any], float] | None = None
    begin: Callable[[Any, Chip, tuple[int, ...], Array, Array], dict[str, Array]] | None = None


@dataclass(frozen=True)
class UpdateRule:
    """A policy with its options: what a compiled training step is made for."""

    policy: UpdatePolicy
    options: Any

    def threshold(self, chip: Chip) -> float:
        """At which accumulated change a weight is due, as a fraction of the weight range."""
        return self.policy.threshold(self.options, chip)

    @property
    def tiles(self) -> tuple[str, ...]:
        """Names of the further devices of each weight."""
        return self.policy.tiles(self.options)
