"""The pulse laws beside aihwkit's devices of the same parameters: mean and spread of staircases, 50 pulses up, 50 down.

Needs aihwkit in the same environment (`pip install aihwkit`), which is not one of the project's dependencies.

    python -m tests.benchmarks.aihwkit_devices
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from cimc.chip import Cell, load_chip
from cimc.device_pulse import ExponentialStep, Linear, Piecewise, Power, Pulse, SoftBounds
from runtime.devices.device import device_of

Traces = npt.NDArray[np.float64]

SIDE = 200  # a tile has SIDE^2 devices
PULSES = 50  # in each direction
LOW, HIGH = 10.0, 50.0  # uS; a weight of aihwkit's, -1 to 1, is (g - 30) / 20
MIDDLE, HALF = (LOW + HIGH) / 2, (HIGH - LOW) / 2
STEP = 0.03  # of a weight, aihwkit's dw_min: no device comes to rest at a hard bound, where no spread is left
START = -0.8


@dataclass(frozen=True)
class Case:
    """A device in both descriptions. make: aihwkit's device, from its module of devices."""

    name: str
    make: Callable[[Any], Any]
    pulse: Pulse


# Without aihwkit's defaults for what differs from device to device.
ALIKE = {"dw_min_dtod": 0.0, "up_down_dtod": 0.0, "w_max_dtod": 0.0, "w_min_dtod": 0.0}
SPREAD = {"dw_min_dtod": 0.3, "up_down_dtod": 0.05, "w_max_dtod": 0.2, "w_min_dtod": 0.2}


def window(**changes: float) -> dict[str, float]:
    """The parameters that aihwkit's devices share."""
    return {"w_min": -1.0, "w_max": 1.0, "dw_min": STEP, "dw_min_std": 0.3, **ALIKE, **changes}


CASES = (
    Case(
        "constant step",
        lambda d: d.ConstantStepDevice(**window()),
        Linear(step_uS=STEP * HALF, c2c=0.3),
    ),
    Case(
        "soft bounds, noise of the step",
        lambda d: d.SoftBoundsDevice(**window()),
        SoftBounds(law="soft-bounds", step_uS=STEP * HALF, c2c=0.3),
    ),
    Case(
        "soft bounds, noise the same everywhere",
        lambda d: d.SoftBoundsDevice(**window(), mult_noise=False),
        SoftBounds(law="soft-bounds", step_uS=STEP * HALF, c2c=0.3, c2c_of="nominal-step"),
    ),
    Case(
        "soft bounds, every device its own",
        lambda d: d.SoftBoundsDevice(**window(**SPREAD)),
        SoftBounds(law="soft-bounds", step_uS=STEP * HALF, c2c=0.3),
    ),
    Case(
        "exponential step (Gong)",
        lambda d: d.ExpStepDevice(**window()),
        ExponentialStep(law="exponential-step", step_uS=STEP * HALF, c2c=0.3),
    ),
    Case(
        "power, exponent 1.5",
        lambda d: d.PowStepDevice(**window(), pow_gamma=1.5, pow_gamma_dtod=0.0),
        Power(law="power", step_uS=STEP * HALF * 0.5**1.5, exponent=1.5, c2c=0.3),
    ),
    Case(
        "piecewise, three nodes",
        lambda d: d.PiecewiseStepDevice(**window(), piecewise_up=[1.5, 1.0, 0.2], piecewise_down=[0.2, 0.6, 1.3]),
        Piecewise(law="piecewise", step_uS=STEP * HALF, factors=(1.5, 1.0, 0.2), factors_down=(0.2, 0.6, 1.3), c2c=0.3),
    ),
)


def aihwkit_traces(case: Case) -> tuple[Traces, dict[str, Traces]]:
    """Weights [pulses, devices] of aihwkit's device, and each device's own parameters by aihwkit's names."""
    import torch
    from aihwkit.simulator.configs import SingleRPUConfig, UpdateParameters, devices
    from aihwkit.simulator.tiles import AnalogTile

    torch.manual_seed(1)
    update = UpdateParameters(desired_bl=1, update_bl_management=False, update_management=False)
    tile = AnalogTile(SIDE, SIDE, SingleRPUConfig(device=case.make(devices), update=update))
    tile.set_learning_rate(1.0)
    tile.set_weights(torch.full((SIDE, SIDE), START))
    traces = []
    for direction in np.repeat([1.0, -1.0], PULSES):
        tile.update(-torch.ones(1, SIDE), torch.ones(1, SIDE) * direction)  # one pulse for every device
        traces.append(tile.get_weights()[0].numpy().ravel().copy())
    own = {name: np.asarray(value).ravel() for name, value in tile.get_hidden_parameters().items()}
    return np.array(traces, np.float64), own


def our_traces(case: Case, own: dict[str, Traces]) -> Traces:
    """The same of our device with the same parameters, devices in the same order, in aihwkit's weights."""
    window = {"conductance_min_uS": LOW, "conductance_max_uS": HIGH, "limits_uS": None}
    cell: Cell = load_chip("ideal").cell.model_copy(update={**window, "pulse": case.pulse})
    # What a power is of, at the middle, is not 1: aihwkit's own step is that at the bound.
    scale = case.pulse.step_uS / STEP
    traits = {
        "step_up": own["dwmin_up"] * scale,
        "step_down": own["dwmin_down"] * scale,
        "high": MIDDLE + HALF * own["max_bound"],
        "low": MIDDLE + HALF * own["min_bound"],
    }
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in traits.items()}
    # A start beyond a device's own bounds is aihwkit's to clip, before the first pulse.
    held = jnp.clip(jnp.full(SIDE * SIDE, MIDDLE + HALF * START, jnp.float32), arrays["low"], arrays["high"])
    pulse = jax.jit(device_of(cell).pulse)
    traces = []
    for n, direction in enumerate(np.repeat([1.0, -1.0], PULSES)):
        held = pulse(held, jnp.full(held.shape, direction, jnp.float32), jax.random.key(n), arrays)
        traces.append((np.asarray(held, np.float64) - MIDDLE) / HALF)
    return np.array(traces)


def main() -> None:
    """Print the table."""
    print(f"{SIDE**2:,} devices, {PULSES} pulses up and {PULSES} down; the worst of all pulses")
    print(f"{'device':40s} {'mean, of the window':>20s} {'spread':>10s}")
    for case in CASES:
        theirs, own = aihwkit_traces(case)
        ours = our_traces(case, own)
        mean = np.max(np.abs(ours.mean(1) - theirs.mean(1))) / 2
        spread = np.max(np.abs(ours.std(1) / theirs.std(1) - 1))
        print(f"{case.name:40s} {mean:20.3%} {spread:10.2%}")


if __name__ == "__main__":
    main()
