"""What training makes small: the sum of a loss for each trained output, taken at its logits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from cimc.dataset import Samples
from cimc.errors import CimcError
from cimc.options import Loss
from runtime.network.network import Network
from runtime.system.measures import NOT_COUNTED, class_axis, squeezed_shape

TEMPERATURE = 2.0  # softens what a classifier is to say as the reference does

Targets = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class OutputLoss:
    """The loss of one output.

    kind: any but auto; distill with the logits of the reference as targets. activation: the operator that ends the
    output, after the logits; empty where there is none. axis: of its classes, counted from behind; of cross-entropy
    that of the logits without axes of size 1. masked: whether labels are left out (`NOT_COUNTED`). smoothing: the part
    of a cross-entropy's target that all classes share. classes: how many the output of a cross-entropy has.
    """

    output: str
    kind: Loss
    activation: str = ""
    axis: int = -1
    masked: bool = False
    smoothing: float = 0.0
    classes: int = 0

    @property
    def text(self) -> str:
        """The loss in a few words."""
        kind = "distillation from the original network" if self.kind is Loss.distill else str(self.kind)
        at_logits = self.activation and self.kind is not Loss.mse
        return f"{kind} on {self.output}" + (f", at the logits before its {self.activation}" if at_logits else "")


def choose_losses(
    network: Network, sizes: Mapping[str, Sequence[int]], samples: Samples, wanted: Loss
) -> tuple[OutputLoss, ...]:
    """The losses of the outputs that have labels; without labels that of every output, from the original network.

    Args:
        network: to train.
        sizes: of the logits [N, ...] by output.
        samples: the training samples.
        wanted: the loss of all; auto: by the labels.

    Raises:
        CimcError: labels, outputs and the loss do not go together.
    """
    if not network.logits:
        raise CimcError("the network has no output of floats, so there is nothing to train")
    if samples.labels is None or wanted is Loss.distill:
        if wanted not in (Loss.auto, Loss.distill):
            raise CimcError(f"--loss {wanted} needs labels, and the data has none; add them or choose distill")
        return tuple(
            OutputLoss(output, Loss.distill, *_activation(network, output, sizes[output])) for output in network.logits
        )
    return tuple(
        _labelled(network, output, sizes[output], labels, wanted)
        for output, labels in labels_by_output(network, samples).items()
    )


def labels_by_output(network: Network, samples: Samples) -> Targets:
    """The labels by the output that they belong to.

    Raises:
        CimcError: the data names an output that is none, or none where there are several.
    """
    trained = ", ".join(network.logits)
    if samples.labels is None:
        return {}
    if not isinstance(samples.labels, Mapping):
        if len(network.logits) > 1:
            raise CimcError(f"the network has the outputs {trained}; name the one of the labels: labels/OUTPUT")
        return {next(iter(network.logits)): samples.labels}
    if unknown := [name for name in samples.labels if name not in network.logits]:
        raise CimcError(f"the data has labels of {', '.join(unknown)}; the outputs of the network are {trained}")
    return dict(samples.labels)


def _activation(network: Network, output: str, sizes: Sequence[int]) -> tuple[str, int]:
    """The operator between an output and its logits, and its axis counted from behind."""
    if network.logits[output] == output:
        return "", -1
    node = next(node for node in network.nodes if output in node.outputs)
    axis = int(node.attributes.get("axis", -1))
    return node.operator, axis - len(sizes) if axis >= 0 else axis


def _labelled(network: Network, output: str, sizes: Sequence[int], labels: NDArray[Any], wanted: Loss) -> OutputLoss:
    activation, axis = _activation(network, output, sizes)
    same = squeezed_shape(labels.shape)[1:] == squeezed_shape(sizes)[1:]
    truth = same and bool(np.isin(labels, (NOT_COUNTED, 0, 1)).all())
    kind = wanted
    if kind is Loss.auto:
        numbers = labels.dtype.kind == "f"
        yes_or_no = truth and (activation == "Sigmoid" or not numbers)
        kind = Loss.binary if yes_or_no else Loss.mse if numbers else Loss.cross_entropy
    if kind is Loss.binary and not truth:
        raise CimcError(f"--loss binary needs a label of 0 or 1 for every value of {output}; choose another loss")
    if kind is Loss.mse and not same:
        raise CimcError(
            f"the targets of {output} have {_text(labels.shape)} values a sample but it has {_text(sizes)}; give one "
            "target a value"
        )
    masked = bool((labels == NOT_COUNTED).any()) if labels.dtype.kind in "iu" else False
    if kind is not Loss.cross_entropy:
        return OutputLoss(output, kind, activation, axis, masked and kind is Loss.binary)
    if labels.dtype.kind not in "iu":
        raise CimcError(f"--loss cross-entropy needs classes, integers from 0, but the labels of {output} are floats")
    shape = squeezed_shape(sizes)
    place = class_axis(shape, squeezed_shape(labels.shape))
    classes = shape[place]
    if labels.size and not NOT_COUNTED <= labels.min() <= labels.max() < classes:
        raise CimcError(
            f"the labels of {output} run from {labels.min()} to {labels.max()}, {labels.max() + 1} classes, but it has "
            f"{classes}; choose data with fewer labels or a network with more outputs"
        )
    return OutputLoss(output, kind, activation, place - len(shape), masked, classes=classes)


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:])) or "1"


def total_loss(losses: tuple[OutputLoss, ...], logits: Mapping[str, Any], targets: Mapping[str, Any]) -> Array:
    """The sum of the losses of a batch, scalar: logits and targets [N, ...] by output."""
    first, *others = (_LOSSES[loss.kind](loss, logits[loss.output], targets[loss.output]) for loss in losses)
    return sum(others, first)


def _cross_entropy(loss: OutputLoss, logits: Array, labels: Array) -> Array:
    logits, labels = (array.reshape(squeezed_shape(array.shape)) for array in (logits, labels))
    if loss.axis != -1:
        logits = jnp.moveaxis(logits, loss.axis, -1)
    if not loss.masked:
        return jnp.mean(_of_classes(loss, logits, labels))
    counted = labels != NOT_COUNTED
    return _mean(_of_classes(loss, logits, jnp.where(counted, labels, 0)), counted)


def _of_classes(loss: OutputLoss, logits: Array, labels: Array) -> Array:
    """The cross-entropy of each label, for logits [..., classes]."""
    if not loss.smoothing:
        each: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), loss.smoothing)
    smoothed: Array = optax.softmax_cross_entropy(logits, wanted)
    return smoothed


def _mean(each: Array, counted: Array) -> Array:
    return jnp.sum(jnp.where(counted, each, 0)) / jnp.maximum(jnp.sum(counted), 1)


def _squared(loss: OutputLoss, logits: Array, targets: Array) -> Array:
    computed = activate(loss, logits)
    return jnp.mean(jnp.square(computed - targets.reshape(computed.shape)))


def _binary(loss: OutputLoss, logits: Array, labels: Array) -> Array:
    labels = labels.reshape(logits.shape)
    if not loss.masked:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32)))
    counted = labels != NOT_COUNTED
    return _mean(optax.sigmoid_binary_cross_entropy(logits, jnp.where(counted, labels, 0).astype(jnp.float32)), counted)


def _distilled(loss: OutputLoss, logits: Array, reference: Array) -> Array:
    """How far from what the reference says: of classes by softened probabilities, of truth values by probabilities."""
    if loss.activation == "Sigmoid":
        wanted = jax.nn.sigmoid(reference)
        entropy = optax.sigmoid_binary_cross_entropy(reference, wanted)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, wanted) - entropy)
    if not loss.activation:
        return jnp.mean(jnp.square(logits - reference))
    wanted, computed = (jax.nn.log_softmax(array / TEMPERATURE, axis=loss.axis) for array in (reference, logits))
    return TEMPERATURE**2 * jnp.mean(jnp.sum(jnp.exp(wanted) * (wanted - computed), axis=loss.axis))


def activate(loss: OutputLoss, logits: Any) -> Array:
    """The output itself, of its logits."""
    if loss.activation == "Sigmoid":
        return jax.nn.sigmoid(logits)
    if loss.activation:
        apply = jax.nn.log_softmax if loss.activation == "LogSoftmax" else jax.nn.softmax
        return apply(logits, axis=loss.axis)
    return jnp.asarray(logits)


_LOSSES: dict[Loss, Callable[[OutputLoss, Array, Array], Array]] = {
    Loss.cross_entropy: _cross_entropy,
    Loss.mse: _squared,
    Loss.binary: _binary,
    Loss.distill: _distilled,
}
