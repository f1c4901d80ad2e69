"""Pulse trains drawn by plain NumPy from a law, for fits: soft bounds, linear or power, device by device."""

import numpy as np

from runtime.fitting.pulse_trains import PulseTrains

LOW, HIGH, STEP, DOWN, C2C = 10.0, 100.0, 2.5, 2.2, 0.3
SPREADS = {"step_d2d": 0.15, "asymmetry_d2d": 0.05, "high_d2d": 0.08, "low_d2d": 0.06}


def drawn(
    law: str,
    *,
    devices: int = 100,
    pulses: int = 100,
    outliers: float = 0.0,
    missing: float = 0.0,
    exponent: float = 2.0,
    bounds: bool = True,
    seed: int = 0,
) -> PulseTrains:
    """Each device by as many SET and then RESET pulses, noise a fraction C2C of each step.

    outliers: share of readings that are anything in the window. missing: share of rows left out. bounds: they differ
    from device to device.
    """
    random = np.random.default_rng(seed)
    spread = {key: sd * random.standard_normal(devices) for key, sd in SPREADS.items()}
    half, middle = (HIGH - LOW) / 2, (HIGH + LOW) / 2
    up = STEP * (1 + spread["step_d2d"] + spread["asymmetry_d2d"])
    down = DOWN * (1 + spread["step_d2d"] - spread["asymmetry_d2d"])
    high = HIGH + bounds * half * spread["high_d2d"]
    low = LOW - bounds * half * spread["low_d2d"]
    held, rows = low + 0.5, []
    for number, direction in enumerate([0] + [1] * pulses + [-1] * pulses):
        if direction:
            room, reach = (high - held, high - middle) if direction > 0 else (held - low, middle - low)
            factor = {
                "linear": np.ones(devices),
                "soft-bounds": room / reach,
                "power": (2 * np.maximum(room, 0) / (high - low)) ** exponent,
            }[law]
            mean = (up if direction > 0 else down) * factor
            held = np.clip(held + direction * mean + C2C * mean * random.standard_normal(devices), low, high)
        rows.append((np.arange(devices), np.full(devices, number), np.full(devices, direction), held))
    device, pulse, way, conductance = (np.stack(column).T.ravel() for column in zip(*rows, strict=True))
    wrong = random.random(len(device)) < outliers
    conductance = np.where(wrong, random.uniform(LOW, HIGH, len(device)), conductance)
    kept = random.random(len(device)) >= missing
    train = np.zeros(kept.sum(), np.int64)
    return PulseTrains(device[kept], train, pulse[kept], way[kept], conductance[kept])
