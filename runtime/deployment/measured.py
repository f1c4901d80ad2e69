"""The accuracy of a chip that is programmed already, from the conductances measured on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import jax
import numpy as np

from cimc.dataset import Dataset
from cimc.program import Program
from runtime.crossbar.keys import new_key
from runtime.system.carry import Carry, carried
from runtime.system.inference import batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.program import programmed_state
from runtime.system.quality import better, new_quality
from runtime.system.state import System


@dataclass(frozen=True)
class MeasuredChip:
    """A chip that was measured.

    measure: what `value` is, of labelled data its usual measure (accuracy), else the agreement with the package's own
    weights in float32. baseline: theirs. agreement: by output, with these weights. layers: what each layer loses on
    some of the samples, in their order.
    """

    measure: str
    value: float
    baseline: float
    agreement: Mapping[str, Mapping[str, float]]
    layers: tuple[LayerError, ...]

    @property
    def normalized(self) -> float | None:
        """The figure over the baseline's; the other way round for errors; None where the baseline is none."""
        return better(self.measure, self.value, self.baseline) if self.baseline > 0 else None


def evaluate_measured(
    system: System,
    program: Program,
    conductance: Mapping[str, np.ndarray],
    data: Dataset,
    *,
    references: Mapping[str, np.ndarray] = MappingProxyType({}),
    seed: int,
    metric: str | None = None,
    memory: int | None = None,
    carry: Carry = MappingProxyType({}),
    input_range: tuple[float, float] | None = None,
    progress: Callable[[int], None] = lambda samples: None,
) -> MeasuredChip:
    """Measure the test set on a chip that holds these conductances.

    Args:
        system, program, data: as of `runtime.deployment.population.population_of`.
        conductance: by layer [devices, rows, columns], uS.
        references: by layer, of its reference columns [rows, groups x column blocks], uS; {}: the chip has none.
        seed: of the noise of reads.
        metric, memory, carry, input_range: as of `runtime.deployment.population.Request`.
        progress: called with the samples done so far.
    """
    state, network, key = programmed_state(system, program), system.network, new_key(seed)
    chip = {**state, "conductance": {name: jax.device_put(conductance[name]) for name in state["conductance"]}}
    chip["reference_column"] = {name: jax.device_put(columns) for name, columns in references.items()}
    reference = partial(outputs_exactly, network, exact_parameters(system, state))
    exactly = carried(network, carry, reference, input_range)
    on_arrays = carried(network, carry, partial(outputs_on_arrays, system, chip, key=key))
    exact, found = (new_quality(network, data.test, metric, name=data.name) for _ in range(2))
    for batch in batches(network, data.test, data.preprocess, memory, steps=bool(carry)):
        wanted = exactly(batch)
        exact.add(wanted, batch.samples, wanted)
        found.add(on_arrays(batch), batch.samples, wanted)
        progress(batch.first + len(batch.samples))
    errors = layer_errors(system, chip, data.test, data.preprocess, key, carry=carry, targets=state["conductance"])
    (measure, value), (_, baseline) = found.main(), exact.main()
    return MeasuredChip(measure, value, baseline, found.agreement(), tuple(errors))
