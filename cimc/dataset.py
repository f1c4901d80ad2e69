"""Images with labels, as everything from loading to deployment hands them on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, split in training and test data.

    `x_train`, `x_test`: uint8 (N, C, H, W) as stored, or float32 (N, ...) or int32 tokens as given in an `.npz`;
    multiplied by `scale` they are what the network sees. `y_train`, `y_test`: int32 (N,), from 0 to `classes` - 1.
    `synthetic` marks generated images, which are labelled so wherever a result on them is shown. The arrays may be
    read-only.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int32]
    x_test: NDArray[Any]
    y_test: NDArray[np.int32]
    synthetic: bool
    classes: int

    @property
    def label(self) -> str:
        """The name; that of synthetic images says so."""
        return f"{self.name} (synthetic)" if self.synthetic else self.name

    @property
    def scale(self) -> float:
        """The factor from stored values to network inputs: 1/255 for uint8 images, 1 for others."""
        return 1 / 255 if self.x_train.dtype == np.uint8 else 1.0
