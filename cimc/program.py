"""The program of a chip: what is written into its arrays and set in its digital units, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerProgram:
    """One crossbar layer on a chip.

    targets: conductances [devices, rows, columns] in uS. weight_range: the largest weight that devices hold,
    scalar or [columns]. input_range: the input of the DAC's largest code. gain: the layer's digital scale, scalar or
    [columns]. bias: [columns] or None. input_factor: [channels], of a product [rows], by which inputs are divided
    before the DAC and the weights of their rows multiplied; None: 1.
    """

    targets: Floats
    weight_range: Floats | np.float32
    input_range: np.float32
    gain: Floats | np.float32
    bias: Floats | None
    input_factor: Floats | None = None


@dataclass(frozen=True)
class Program:
    """All layers by name, and the digital constants of the network that training changed, by initializer name."""

    layers: Mapping[str, LayerProgram]
    digital: dict[str, npt.NDArray[Any]]
