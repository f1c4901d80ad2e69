"""Reprogramming: the devices of a programmed chip whose errors cost most are written again, closed-loop.

With e the error of a weight, of which device k brings c_k d_k, writing that device without error leaves (e - c_k d_k)^2
of e^2: where the devices of a weight make up for each other, neither is worth a write. Both are weighed by what a
squared error of the weight costs the layer's output, of its signal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jax import Array
from numpy.typing import NDArray

from runtime.deployment.programming import read_chips, write_again
from runtime.system.state import State, System

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reprogram:
    """What is written again.

    shares: of all devices, round after round. importance: by layer, what the squared error of each weight costs, in
    weights of a range of 1 [rows, columns]. counts: what 1 uS of each device of a weight counts in it [devices].
    """

    shares: Sequence[float]
    importance: Mapping[str, Doubles]
    counts: Doubles


def gains(held: NDArray[np.float32], targets: NDArray[np.float32], importance: Doubles, counts: Doubles) -> Doubles:
    """What writing each device of a layer without error would save [devices, rows, columns], the others as they are.

    Args:
        held: what devices were read to hold [devices, rows, columns], uS.
        targets: what they should.
        importance, counts: of `Reprogram`, of this layer.
    """
    brought = (held.astype(np.float64) - targets) * counts[:, None, None]
    error = brought.sum(axis=0)
    saved: Doubles = importance * (np.square(error) - np.square(error - brought))
    return saved


def choose_devices(gained: Mapping[str, Doubles], share: float) -> dict[str, NDArray[np.bool_]]:
    """That share of all devices, by layer [devices, rows, columns]: those with most to gain, none without a gain."""
    every = np.concatenate([of_layer.reshape(-1) for of_layer in gained.values()])
    count = int(np.ceil(share * every.size))
    least = np.partition(every, -count)[-count]
    return {name: (of_layer >= least) & (of_layer > 0) for name, of_layer in gained.items()}


def reprogram_chips(
    system: System,
    state: State,
    written: Mapping[str, Array],
    keys: Array,
    stuck: Mapping[str, NDArray[np.float32]],
    reprogram: Reprogram,
) -> dict[str, Array]:
    """Conductances [chips, devices, rows, columns] of chips after all rounds: in each all devices are read, those with
    most to gain are chosen, chip by chip, and written again.

    Args:
        system, state, keys, stuck: as of `runtime.deployment.programming.program_chips`.
        written: what it gave.
        reprogram: what is written again.
    """
    now = dict(written)
    targets = {name: np.asarray(array) for name, array in state["conductance"].items()}
    for number, share in enumerate(reprogram.shares):
        read = read_chips(system, now, keys, number)
        chosen = []
        for chip in range(len(keys)):
            gained = {}
            for name, weights in reprogram.importance.items():
                gained[name] = gains(np.asarray(read[name][chip]), targets[name], weights, reprogram.counts)
                if name in stuck:
                    gained[name][~np.isnan(stuck[name][chip])] = 0
            chosen.append(choose_devices(gained, share))
        of_chips = {name: np.stack([one[name] for one in chosen]) for name in targets}
        now = write_again(system, state, now, of_chips, keys, number, stuck)
    return now
