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

    targets: conductances [2, rows, columns] in uS (G+ and G-). weight_range: the weight of a fully programmed pair.
    input_range: the input of the DAC's largest code. gain: the layer's trainable scale. bias: [columns] or None.
    """

    targets: Floats
    weight_range: np.float32
    input_range: np.float32
    gain: np.float32
    bias: Floats | None


@dataclass(frozen=True)
class Program:
    """All layers by name, and the digital constants of the network that training changed, by initializer name."""

    layers: Mapping[str, LayerProgram]
    digital: dict[str, npt.NDArray[Any]]
