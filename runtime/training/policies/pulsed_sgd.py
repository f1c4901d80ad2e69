"""Pulsed SGD: the in-memory outer product by stochastic pulses (Gokmen & Vlasov 2016; Rasch et al. 2024).

    n = -+ floor(|dw| / dw0 + u),  u ~ U(0, 1);   n pulses on the pair, w += n q(w)

dw is the optimiser's step, dw0 the step of a pair in the middle, q the device's law. Nothing digital is kept: the
devices are the weights, and where SET and RESET differ, noise drives them towards their symmetric point (arXiv
2502.06309). Not modelled: the trains of each sample. The pulses are drawn from the sum over a batch, so that samples
that contradict each other cancel before they are pulses, and fewer pulses are counted than a train for each sample
takes.
"""

from dataclasses import dataclass
from typing import Annotated

from jax import Array
from pydantic import Field

from cimc.chip import Chip
from runtime.training.policies.policy import Change, LayerState, UpdatePolicy, Wish
from runtime.training.policies.pulsed import (
    PENDING,
    aim_pending,
    check_pulsed,
    draw_pulses,
    held_weight,
    pair_step,
    settle_pending,
)


@dataclass(frozen=True)
class PulsedSgd:
    """Options. scale: what the optimiser's step is multiplied by."""

    scale: Annotated[float, Field(gt=0)] = 1.0


def update(options: PulsedSgd, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """Due is every weight that gets a pulse."""
    mean = options.scale * change.step / (pair_step(chip) * weight_range)
    pulses = draw_pulses(layer.memory[PENDING] + mean, key)
    return Wish(pulses != 0, layer.weight, None, {PENDING: pulses})


POLICY = UpdatePolicy(
    name="pulsed-sgd",
    options=PulsedSgd,
    memory=(PENDING,),
    check=lambda options, chip: check_pulsed("pulsed-sgd", chip),
    threshold=lambda options, chip: pair_step(chip),
    update=update,
    aim=aim_pending,
    settle=settle_pending,
    combine=lambda options, chip, layer: held_weight(layer.conductance, chip),
    reads=lambda options: 0.0,
)
