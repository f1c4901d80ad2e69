"""What a device does, simulated with the runtime's own model: pulses, writes, reads, time; as figures and a picture."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from cimc.chip_cell import Cell
from cimc.device_file import DeviceFile, load_device
from cimc.errors import CimcError
from cimc.files import require_outputs
from cimc.finite import require_finite
from cimc.options import check_seed, check_whole
from cimc.report.drawing import picture_format
from runtime.crossbar.keys import new_key
from runtime.devices.device import Device, device_of

READINGS = 60  # of a staircase
BEYOND = 1.25  # times the pulses that the mean step would take through the window
LEAST_PULSES = 10
MOST_PULSES = 20_000
MOST_DEVICES, MOST_CYCLES = 100_000, 1_000
MOST_TOGETHER = 1_000_000  # a GB of readings
STATES = 33
STATES_IN_TIME = (0.25, 0.5, 1.0)  # of the window
SAMPLES = 2000  # devices a state
YEAR = 365.25 * 86400.0
TIMES = 41
PERCENTILES = (5.0, 95.0)


def plot_device(
    device: str | Path | DeviceFile,
    output: str | Path | None = None,
    *,
    devices: int = 100,
    cycles: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """Simulate a device and draw it.

    Args:
        device: name, path of a device file, or a device in memory.
        output: PNG, PDF or SVG to write; None: none.
        devices: that are pulsed, each with its own traits; at most 100,000.
        cycles: up and down through the window; at most 1,000, and 1,000,000 by devices.
        seed: of everything random.

    Returns:
        JSON values, None where the device has no such law: `pulses` (number, mean_uS, p5_uS, p95_uS, and three devices
        one by one), `errors` (conductance_uS, write_mean_uS, write_sd_uS, read_sd_uS), `time` (time_s, and for each of
        three states mean_uS, p5_uS, p95_uS).

    Raises:
        CimcError: as `load_device`, a wrong number, or a file that cannot be written.
    """
    devices = check_whole("devices", devices, 2, MOST_DEVICES)
    cycles = check_whole("cycles", cycles, 1, MOST_CYCLES)
    if devices * cycles > MOST_TOGETHER:
        raise CimcError(f"{devices} devices by {cycles} cycles are more than {MOST_TOGETHER} together; take fewer")
    key = new_key(check_seed(seed))
    described = device if isinstance(device, DeviceFile) else load_device(device)
    require_outputs([device] if isinstance(device, str | Path) else [], [output])
    if output is not None:
        picture_format(output)
    # The functions of a device are its cell's, whatever its name.
    cell = Cell.model_validate(described.model_dump(exclude={"name", "description"}))
    keys = jax.random.split(key, 3)
    figures: dict[str, Any] = {
        "device": described.name,
        "description": described.description,
        "conductance_min_uS": cell.conductance_min_uS,
        "conductance_max_uS": cell.conductance_max_uS,
        "pulses": None if cell.pulse is None else _staircases(cell, devices, cycles, keys[0]),
        "errors": _errors(cell, keys[1]),
        "time": _time(cell, keys[2]) if cell.drift or cell.relaxation or cell.retention else None,
    }
    require_finite(figures, f"device {described.name}", "correct the laws of the device file that give it")
    if output is not None:
        from cimc.report.device_pictures import device_picture  # needs matplotlib

        device_picture(Path(output), figures)
    return figures


def _staircases(cell: Cell, devices: int, cycles: int, key: Array) -> dict[str, Any]:
    """Cycles of SET pulses through the window and RESET pulses back, or where there are none a reset of the device."""
    device, pulse = device_of(cell), cell.pulse
    assert pulse is not None
    traits_key, key = jax.random.split(key)
    traits = device.traits(traits_key, (devices,))
    low = jnp.broadcast_to(traits.get("low", jnp.float32(cell.conductance_min_uS)), (devices,))
    take, look = jax.jit(device.pulse), jax.jit(device.seen)
    unseen = jnp.zeros_like(low) if pulse.write_noise_uS else None
    down = pulse.directions == "both"
    counts = [_pulses(cell, pulse.step_uS), -_pulses(cell, pulse.down_uS) if down else 0]
    held, seen, measured = low, unseen, []
    for cycle in range(cycles):
        readings = [held]
        for direction, count in enumerate(counts):
            strides = np.diff(np.round(np.linspace(0, count, min(abs(count), READINGS) + 1)).astype(int))
            for index, stride in enumerate(strides):
                draw = jax.random.fold_in(key, (cycle * 2 + direction) * READINGS + index)
                pulses = jnp.full((devices,), float(stride))
                held = take(held, pulses, draw, traits if seen is None else {**traits, "seen": seen})
                seen = None if seen is None else look(seen, pulses, draw)
                readings.append(held)
        measured.append(np.stack(readings))
        if not down:
            held, seen = low, unseen
    numbers = np.concatenate(
        [[0], *(np.round(np.linspace(0, abs(n), min(abs(n), READINGS) + 1)).astype(int)[1:] for n in counts)]
    )
    numbers[len(numbers) - min(abs(counts[1]), READINGS) :] += counts[0]
    each = np.stack(measured)  # [cycles, readings, devices]
    return {
        "law": pulse.law_name,
        "number": numbers.tolist(),
        "up": counts[0],
        **_spread(np.moveaxis(each, 1, 0).reshape(len(numbers), -1)),
        "single_uS": each[0, :, : min(3, devices)].T.tolist(),
    }


def _pulses(cell: Cell, step_uS: float) -> int:
    return int(np.clip(round(BEYOND * cell.window_uS / step_uS), LEAST_PULSES, MOST_PULSES))


def _errors(cell: Cell, key: Array) -> dict[str, Any]:
    """Of writes and of single reads, by target."""
    device = device_of(cell)
    target = np.linspace(cell.conductance_min_uS, cell.conductance_max_uS, STATES)
    goal = jnp.broadcast_to(jnp.asarray(target, jnp.float32)[:, None], (STATES, SAMPLES))
    write_key, read_key = jax.random.split(key)
    error = np.asarray(jax.jit(device.write)(goal, write_key).conductance) - np.asarray(goal)
    read = np.asarray(device.read(goal, read_key)) - np.asarray(goal)
    return {
        "conductance_uS": target.tolist(),
        "write_mean_uS": error.mean(axis=1).tolist(),
        "write_sd_uS": error.std(axis=1).tolist(),
        "read_sd_uS": read.std(axis=1).tolist(),
    }


def _time(cell: Cell, key: Array) -> dict[str, Any]:
    """Devices of some states after a write, from a second to a year."""
    device: Device = device_of(cell)
    times = np.geomspace(1.0, YEAR, TIMES)
    target = cell.conductance_min_uS + np.array(STATES_IN_TIME) * cell.window_uS
    goal = jnp.broadcast_to(jnp.asarray(target, jnp.float32)[:, None], (len(target), SAMPLES))
    write_key, age_key = jax.random.split(key)
    written = jax.jit(device.write)(goal, write_key).conductance
    age = jax.jit(device.age)
    aged = np.stack([np.asarray(age(written, seconds, age_key)) for seconds in times])  # [times, states, samples]
    states = [{"target_uS": float(goal)} | _spread(aged[:, index]) for index, goal in enumerate(target)]
    return {"time_s": times.tolist(), "states": states}


def _spread(values: npt.NDArray[Any]) -> dict[str, list[float]]:
    """Mean and percentiles of each row."""
    low, high = np.percentile(values, PERCENTILES, axis=1)
    return {"mean_uS": values.mean(axis=1).tolist(), "p5_uS": low.tolist(), "p95_uS": high.tolist()}
