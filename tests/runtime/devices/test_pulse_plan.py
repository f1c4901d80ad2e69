"""Plans: the pulses that a change of weights takes, and the refresh of one-sided pairs."""

import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Cell, load_chip
from cimc.device_pulse import Linear
from runtime.devices.device import device_of


def planned(
    cell: Cell, change: float, base: float, held: tuple[float, float] | None = None
) -> tuple[list[float], float]:
    """Pulses for G+ and G-, and the weight aimed at, of one weight with a range of 1."""
    devices = None if held is None else jnp.array(held, jnp.float32)[:, None]
    plan = device_of(cell).plan(jnp.array([change]), jnp.array([base]), weight_range=jnp.float32(1), held=devices)
    return np.asarray(plan[0])[:, 0].tolist(), float(plan[1][0])


def plain_cell() -> Cell:
    """A window of 0 to 64 uS in steps of 4: a pulse is a sixteenth of the weight range."""
    cell = load_chip("brram-256x64").cell
    bounds = {"conductance_min_uS": 0.0, "conductance_max_uS": 64.0}
    return cell.model_copy(update={**bounds, "pulse": Linear(step_uS=4.0)})


@pytest.mark.parametrize(
    ("change", "base", "pulses", "aimed"),
    [
        (0.25, 0.5, [4, 0], 0.75),
        (0.3, 0.5, [4, 0], 0.75),  # whole pulses only
        (-0.25, 0.5, [-4, 0], 0.25),
        (0.75, -0.5, [4, -8], 0.25),  # first the other device down to its minimum, then this one up
        (-0.75, 0.5, [-8, 4], -0.25),
        (0.75, 0.5, [8, 0], 1.0),  # no further than the bound
        (0.05, 0.5, [0, 0], 0.5),
    ],
)
def test_a_change_takes_whole_pulses_and_the_idle_device_stays_at_its_minimum(
    change: float, base: float, pulses: list[float], aimed: float
) -> None:
    assert planned(plain_cell(), change, base) == (pulses, aimed)


def test_a_plan_starts_from_what_the_devices_were_read_to_hold() -> None:
    assert planned(plain_cell(), 0.25, 0.5, held=(60.0, 8.0)) == ([1, -2], 0.5 + 3 / 16)


def test_a_plan_for_a_chip_without_a_pulse_response_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[cell\.pulse\]"):
        planned(load_chip("ideal").cell.model_copy(update={"pulse": None}), 0.1, 0.0)


# --- Laws that follow the state ---

LAWS = [
    SoftBounds(law="soft-bounds", step_uS=4.0),
    SoftBounds(law="soft-bounds", step_uS=1.0, step_down_uS=2.5),
    SoftBounds(law="soft-bounds", step_uS=30.0),  # two states
    Linear(step_uS=4.0, step_down_uS=3.0),
    Exponential(law="exponential", step_uS=2.0, nonlinearity=3.0, nonlinearity_down=-2.0),
    Exponential(law="exponential", step_uS=2.0, nonlinearity=0.0, nonlinearity_down=6.0),
    ExponentialStep(law="exponential-step", step_uS=1.5),
    Power(law="power", step_uS=2.0, exponent=1.7, exponent_down=0.5),
    Piecewise(law="piecewise", step_uS=2.0, factors=(1.8, 1.0, 0.2)),
    Tabulated(law="tabulated", step_uS=3.0, curve_uS=(0.0, 20.0, 35.0, 48.0, 58.0, 64.0)),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LAWS), st.booleans(), st.integers(0, 2**31 - 1))
def test_the_pulses_of_a_plan_end_within_a_step_of_the_target(pulse: Pulse, one_sided: bool, seed: int) -> None:
    """By the mean law, pulse by pulse in plain Python; no further pulse would have come closer from this side."""
    cell = plain_cell().model_copy(
        update={"pulse": pulse.model_copy(update={"directions": "up" if one_sided else "both"})}
    )
    random = np.random.default_rng(seed)
    base = random.uniform(-0.9, 0.9, 16).astype(np.float32)
    change = (random.uniform(-1, 1, 16) - base).astype(np.float32)
    if one_sided:
        change = np.where(base > 0, np.abs(change), -np.abs(change)).astype(np.float32)
    pulses, aimed = device_of(cell).plan(jnp.asarray(change), jnp.asarray(base), weight_range=jnp.float32(1))
    held = np.stack([np.maximum(base, 0), np.maximum(-base, 0)]) * 64
    after = device_of(cell).pulse(jnp.asarray(held), pulses, jax.random.key(0))
    reached = np.asarray(after[0] - after[1]) / 64
    np.testing.assert_allclose(aimed, reached, atol=2e-2 if staircase(cell, up=True).nodes is not None else 1e-4)
    wanted = np.clip(base + change, -1, 1)
    largest = 64 * max(float(jnp.max(one_step(cell, up))) for up in (True, False))
    assert np.all(np.abs(reached - wanted) <= (largest + 0.5 * pulse.step_uS) / 64 / 64 + 1e-3)
