"""The window of a convolution: its sizes, and the size of what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A convolution window: one entry a spatial axis; pads hold all begins, then all ends (as ONNX orders them).

    Raises:
        ValueError: the fields do not have one entry an axis, or `pads` not two.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def __post_init__(self) -> None:
        axes = len(self.kernel)
        if (len(self.strides), len(self.pads), len(self.dilations)) != (axes, 2 * axes, axes):
            raise ValueError(f"the sizes of {self} do not belong to one number of axes")


def output_sizes(spatial: Sequence[int], window: Window) -> tuple[int, ...]:
    """Spatial sizes of a convolution's output from those of its input."""
    axes = len(window.kernel)
    return tuple(
        (spatial[a] + window.pads[a] + window.pads[axes + a] - window.dilations[a] * (window.kernel[a] - 1) - 1)
        // window.strides[a]
        + 1
        for a in range(axes)
    )
