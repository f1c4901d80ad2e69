"""Samples with what a network should make of them, as everything from loading to deployment hands them on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.errors import CimcError

IMAGE_AXES = 4  # of several inputs, those with so many axes or more are images
# Labels of one output: classes, targets, or none.
Labels = NDArray[Any] | Mapping[str, NDArray[Any]] | None


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as they are stored; the arrays may be read-only or mapped from a file.

    inputs: arrays [N, ...] by the network's input name, or by "" where the set does not name it: the network's only
    input. labels: what the outputs should be: int32 classes [N], or [N, T] one a position (-1: not counted), or float32
    targets; by output name where there are several outputs; None where they are not known.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: Labels = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def labels_of(self, output: str = "") -> NDArray[Any] | None:
        """The labels of an output: those with its name, or those that the set does not name."""
        return self.labels.get(output) if isinstance(self.labels, Mapping) else self.labels

    def take(self, index: NDArray[np.integer] | slice) -> "Samples":
        """The samples at these indices, or in that slice, in that order."""
        labels = self.labels
        if isinstance(labels, Mapping):
            labels = {name: array[index] for name, array in labels.items()}
        elif labels is not None:
            labels = labels[index]
        return Samples({name: array[index] for name, array in self.inputs.items()}, labels)


@dataclass(frozen=True)
class Preprocess:
    """From stored values to what the network sees: (x * scale - mean) / std.

    mean, std: one value, or one a channel (axis 1); empty: 0 and 1. channels_last: stored as [N, *spatial, C], seen as
    [N, C, *spatial].
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels_last: bool = False

    def __post_init__(self) -> None:
        """Raises CimcError for values that are not finite, and for an std that is not above 0."""
        if not np.isfinite([self.scale, *self.mean, *self.std]).all() or min(self.std, default=1.0) <= 0:
            mean, std = (",".join(map(str, values)) or "not given" for values in (self.mean, self.std))
            raise CimcError(f"--mean and --std must be finite numbers, --std above 0; they are {mean} and {std}")

    def check_channels(self, channels: int, name: str) -> None:
        """Raises CimcError where mean or std of an input of that name has another number of channels."""
        for label, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, channels):
                raise CimcError(
                    f"--{label} has {len(values)} values but {name} has {channels} channels: give one, or one a channel"
                )

    def apply(self, x: Any) -> Any:
        """Network inputs, float32, for stored values [N, ...], both as NumPy or as JAX arrays.

        Raises:
            CimcError: as of `check_channels`.
        """
        x = x.astype(np.float32) * np.float32(self.scale)
        if self.channels_last and x.ndim > 2:
            x = x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))
        self.check_channels(x.shape[1] if x.ndim > 1 else 1, "the data")
        if self.mean:
            x = x - _by_channel(self.mean, x.ndim)
        return x / _by_channel(self.std, x.ndim) if self.std else x


def _by_channel(values: tuple[float, ...], dimensions: int) -> NDArray[np.float32]:
    """One value a channel as [C, 1, ...], to go with [N, C, ...]."""
    return np.asarray(values, np.float32).reshape(-1, *(1,) * (dimensions - 2))


AS_STORED = Preprocess()


def seen_as(preprocess: Preprocess, stored: Any, inputs: int) -> Preprocess:
    """What is done to an input of floats, of so many inputs: the only one and images are preprocessed."""
    return preprocess if inputs == 1 or stored.ndim >= IMAGE_AXES else AS_STORED


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, split in training and test data.

    synthetic: generated, which is said wherever a result on them is shown. classes: labels run from 0 to `classes` - 1;
    None where labels are no classes. preprocess: from what is stored to what the network sees. validation: training
    samples that a run keeps apart.
    """

    name: str
    train: Samples
    test: Samples
    synthetic: bool = False
    classes: int | None = None
    preprocess: Preprocess = Preprocess()
    validation: Samples | None = None

    @classmethod
    def of_images(
        cls,
        name: str,
        x_train: NDArray[Any],
        y_train: NDArray[Any],
        x_test: NDArray[Any],
        y_test: NDArray[Any],
        *,
        synthetic: bool = False,
        classes: int | None = None,
    ) -> "Dataset":
        """The usual case: one input, which is not named, and a class for each sample.

        Args:
            name: of the set.
            x_train, x_test: [N, ...]; uint8 is seen as value / 255, floats and tokens as they are.
            y_train, y_test: int32 [N], from 0 to `classes` - 1.
            synthetic: generated.
            classes: how many.
        """
        train, test = Samples({"": x_train}, y_train), Samples({"": x_test}, y_test)
        return cls(name, train, test, synthetic, classes, preprocess_of(x_train))

    @property
    def label(self) -> str:
        """The name; that of synthetic samples says so."""
        return f"{self.name} (synthetic)" if self.synthetic else self.name

    def bounds(self, inputs: Collection[str]) -> dict[str, tuple[float, float]]:
        """Of these inputs of floats, those that are stored: the least and the largest value that the network sees."""
        found = {}
        for name in [name for name in inputs if name in self.test.inputs]:
            parts = [samples.inputs[name] for samples in (self.train, self.test)]
            applied = [seen_as(self.preprocess, part, len(self.test.inputs)) for part in parts]
            lows, highs = zip(*map(input_bounds, parts, applied), strict=True)
            found[name] = min(lows), max(highs)
        return found


def input_bounds(stored: NDArray[Any], preprocess: Preprocess) -> tuple[float, float]:
    """The least and the largest value that the network sees of stored values [N, ...]."""
    channel = stored.ndim - 1 if preprocess.channels_last else 1
    others = tuple(axis for axis in range(stored.ndim) if axis != channel)
    low, high = (preprocess.apply(extreme(stored, axis=others, keepdims=True)) for extreme in (np.min, np.max))
    return float(low.min()), float(high.max())


def preprocess_of(stored: NDArray[Any]) -> Preprocess:
    """The usual one for stored values: uint8 is seen as value / 255, all else as it is."""
    return Preprocess(scale=1 / 255) if stored.dtype == np.uint8 else Preprocess()
