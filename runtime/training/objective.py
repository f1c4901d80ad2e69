"""What a run makes small and how its test set is measured, from the data's labels or from the original network."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.options import Loss
from runtime.system.measures import MEASURES, NOT_COUNTED, agreement, choose_measure, measure
from runtime.system.products import exact_product
from runtime.system.state import System, initial_state
from runtime.training.logits import logits, outputs_of
from runtime.training.losses import OutputLoss, Targets, activate, choose_losses, labels_by_output


@dataclass(frozen=True, eq=False)
class Objective:
    """The losses, and by output their targets [N, ...] of training, test and validation samples (empty: none there)."""

    losses: tuple[OutputLoss, ...]
    train: Targets
    test: Targets
    validation: Targets = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The losses in one line."""
        return "; ".join(loss.text for loss in self.losses)

    @property
    def distills(self) -> bool:
        """Whether the original network's outputs are the targets."""
        return self.losses[0].kind is Loss.distill

    @property
    def blind(self) -> float | None:
        """The least loss without a look at the inputs: the entropy of the training labels, in nats, of all outputs.

        None where one of the losses is no cross-entropy of classes.
        """
        if any(loss.kind is not Loss.cross_entropy for loss in self.losses):
            return None
        return sum(_entropy(self.train[loss.output], loss) for loss in self.losses)


def _entropy(labels: NDArray[Any], loss: OutputLoss) -> float:
    """Of labels as the loss smooths them: over all classes of the output, those too that no label has."""
    counts = np.unique(labels[labels != NOT_COUNTED], return_counts=True)[1]
    shares = (1 - loss.smoothing) * counts / max(counts.sum(), 1)
    if loss.smoothing:
        shares = np.append(shares, np.zeros(loss.classes - len(counts))) + loss.smoothing / loss.classes
    return float(-np.sum(shares * np.log(shares)))


def objective_of(system: System, data: Dataset, wanted: Loss, smoothing: float = 0.0) -> Objective:
    """The objective for data that name the network's inputs (`runtime.system.inputs.match_data`).

    For distillation the original network runs once, exactly, on all samples.

    Args:
        system: network and chip.
        data: training and test samples, and validation samples where there are some.
        wanted: the loss of all outputs.
        smoothing: of the labels of classes.

    Raises:
        CimcError: labels, outputs and the wanted loss do not go together.
    """
    try:
        losses = choose_losses(system.network, _sizes(system, data), data.train, wanted)
    except CimcError as error:
        raise CimcError(f"{data.name}: {error}") from None
    losses = _smoothed(losses, smoothing)
    parts = (data.train, data.test, *([] if data.validation is None else [data.validation]))
    if losses[0].kind is Loss.distill:
        return Objective(losses, *(_reference(system, samples, data) for samples in parts))
    train, test, *others = (labels_by_output(system.network, samples) for samples in parts)
    return Objective(losses, train, {name: labels for name, labels in test.items() if name in train}, *others)


def _smoothed(losses: tuple[OutputLoss, ...], smoothing: float) -> tuple[OutputLoss, ...]:
    if not smoothing:
        return losses
    if not any(loss.kind is Loss.cross_entropy for loss in losses):
        raise CimcError("--label-smoothing is of cross-entropy, and no output is trained by it; leave it out")
    return tuple(replace(loss, smoothing=smoothing) if loss.kind is Loss.cross_entropy else loss for loss in losses)


def _sizes(system: System, data: Dataset) -> dict[str, tuple[int, ...]]:
    """The sizes of the logits of one sample, by output."""
    stored = {name: jnp.asarray(array[:1]) for name, array in data.train.inputs.items()}
    state = initial_state(system, weight_range=None)
    shapes = jax.eval_shape(lambda s: outputs_of(system, s, stored, data.preprocess, None, exact_product), state)
    return {name: tuple(shape.shape) for name, shape in shapes.items()}


def _reference(system: System, samples: Samples, data: Dataset) -> Targets:
    """The original network's logits."""
    return logits(
        system, initial_state(system, weight_range=None), samples.inputs, data.preprocess, None, exact_product
    )


def measure_test(objective: Objective, computed: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Figures of the test set, from its logits by output; of several outputs with the output's name before them.

    With labels by their usual measure, by distillation the agreement with the original network.
    """
    figures: dict[str, float] = {}
    for loss in objective.losses:
        if loss.output not in objective.test:
            continue
        outputs, targets = computed[loss.output], objective.test[loss.output]
        found = agreement(outputs, targets) if loss.kind is Loss.distill else _measured(loss, outputs, targets)
        prefix = f"{loss.output}." if len(objective.losses) > 1 else ""
        figures |= {prefix + name: value for name, value in found.items()}
    return figures


def _measured(loss: OutputLoss, outputs: NDArray[np.float32], labels: NDArray[Any]) -> dict[str, float]:
    if loss.kind is Loss.binary:
        labels = labels.astype(np.int32)  # truth values, also where they are stored as floats
    name = "mse" if loss.kind is Loss.mse else choose_measure(outputs.shape, labels)
    if not MEASURES[name].classes:
        outputs = np.asarray(activate(loss, outputs))
    return measure(name, outputs, labels)


def accuracy_of(figures: Mapping[str, float]) -> float | None:
    """The first of the figures that is an accuracy."""
    return next((value for name, value in figures.items() if name.endswith("accuracy")), None)
