"""What the makers of inputs draw from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Source:
    """package: the network's own, as installed. photos: packages that ship photographs. count: samples to make."""

    package: Path
    photos: list[Path]
    count: int
    random: np.random.Generator
