"""The scales of a network, by what its outputs become: fitted layer by layer, or simpler ones where these do better.

Scales that leave each layer less error by itself can leave a network more: errors of layers in a row add up with signs,
and those of few samples count much. So the outputs decide.
"""

import math
from collections.abc import Collection
from types import MappingProxyType

import numpy as np
from jax import Array

from cimc.dataset import Preprocess, Samples
from runtime.system.calibration import calibrate
from runtime.system.carry import Carry
from runtime.system.inference import batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.program import retarget
from runtime.system.state import State, System

ENOUGH_DB = 20.0  # of the outputs with fitted scales: no others are tried


def choose_scales(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array | None,
    *,
    fixed: Collection[str] = (),
    carry: Carry = MappingProxyType({}),
) -> State:
    """`calibrate` with `fit`; where its outputs on the samples are poor, also with one weight range a column and the
    input ranges alone, and the better of both. Of a stream (`carry`) the fitted scales. Arguments as `calibrate`.
    """
    fitted = calibrate(system, state, samples, preprocess, key, fit=True, fixed=fixed, carry=carry)
    if carry or (snr := _snr_db(system, fitted, samples, preprocess, key)) >= ENOUGH_DB:
        return fitted
    simple = calibrate(system, retarget(system, state, fixed=fixed), samples, preprocess, key, fixed=fixed)
    return simple if _snr_db(system, simple, samples, preprocess, key) > snr else fitted


def _snr_db(system: System, state: State, samples: Samples, preprocess: Preprocess, key: Array | None) -> float:
    """The lowest SNR of the outputs of floats against float32, in dB; infinite where there are none."""
    exact = exact_parameters(system, state)
    power: dict[str, np.ndarray] = {}
    for batch in batches(system.network, samples, preprocess):
        wanted = outputs_exactly(system.network, exact, batch)
        for name, found in outputs_on_arrays(system, state, batch, key).items():
            if found.dtype.kind == "f":
                signal, error = wanted[name], found - wanted[name]
                both = np.array([np.sum(np.square(array, dtype=np.float64)) for array in (signal, error)])
                power[name] = power.get(name, 0) + both
    return min(
        (10 * math.log10(signal / error) if signal and error else math.inf for signal, error in power.values()),
        default=math.inf,
    )
