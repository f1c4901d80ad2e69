"""Chip in the loop: layers that devices hold already are read on their arrays while the others are fine-tuned.

After Wan et al., Nature 608:504 (2022): the layers behind those that are programmed learn on what these give on the
chip, errors of their devices and of their converters included. Here they are read anew for every batch, with the noise
of reads, where the paper recorded their outputs once.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from jax import Array

from runtime.network.scan import Product
from runtime.system.fit_scales import rows_of_channels
from runtime.system.products import array_product
from runtime.system.state import State, System
from runtime.training.compute import Compute
from runtime.training.options import Policy


@dataclass(frozen=True)
class PartlyProgrammed(Policy):
    """A way to compute that writes no device, of a network some of whose layers devices hold already.

    programmed: these layers. Input ranges of the others stay as they are when the run begins.
    """

    programmed: frozenset[str] = frozenset()

    @property
    def compute(self) -> Compute:
        """As the way computes, with the programmed layers on their arrays."""
        return _with_programmed(super().compute, self.programmed)


@lru_cache
def _with_programmed(way: Compute, programmed: frozenset[str]) -> Compute:
    """The same object for the same arguments, which compiled functions go by."""

    def product(system: System, state: State) -> Product:
        factors = {name: factor for name, factor in state["input_factor"].items() if name in programmed}
        # The gradient goes by what the devices stand for: the weights times the factors that inputs are divided by.
        held = {
            name: state["weight"][name] * rows_of_channels(factor, system.crossbars[name], state["weight"][name])
            for name, factor in factors.items()
        }
        others = way.product(system, state)
        arrays = array_product(system, {**state, "weight": {**state["weight"], **held}})

        def layer(name: str, x: Array, key: Array | None) -> Array:
            if name not in programmed:
                return others(name, x, key)
            factor = factors.get(name)
            return arrays(name, x if factor is None else x / factor.reshape(-1, *[1] * (x.ndim - 1)), key)

        return layer

    return replace(way, product=product, held=None)
