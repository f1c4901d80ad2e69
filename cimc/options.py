"""What options of the command line can be chosen among, and how a range is written."""

from enum import StrEnum

import typer


class Method(StrEnum):
    """What an optimiser step does to the devices."""

    mixed_precision = "mixed-precision"
    naive = "naive"
    float = "float"


class RateSchedule(StrEnum):
    """Course of the learning rate."""

    constant = "constant"
    cosine = "cosine"
    plateau = "plateau"


class Residual(StrEnum):
    """What stays in the accumulator after a write."""

    keep = "keep"
    drop = "drop"


class Reset(StrEnum):
    """The earlier name of `Residual`."""

    residual = "residual"
    zero = "zero"


class Write(StrEnum):
    """How a device is written."""

    verify = "verify"
    pulse = "pulse"


class Backward(StrEnum):
    """Where input gradients are computed."""

    digital = "digital"
    analog = "analog"


class Sync(StrEnum):
    """What the digital copy becomes after a write."""

    target = "target"
    readback = "readback"
    none = "none"


class Weights(StrEnum):
    """Where exported weights come from."""

    devices = "devices"
    digital = "digital"


class Objective(StrEnum):
    """What the mapper's copies and packing are for."""

    latency = "latency"
    interval = "interval"
    energy = "energy"
    arrays = "arrays"


class RowSplit(StrEnum):
    """How rows of a weight matrix are split over arrays."""

    channel = "channel"
    flat = "flat"


def parse_range(text: str) -> tuple[float, float]:
    """LOW,HIGH as numbers. Raises typer.BadParameter when it is not that."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = float("nan")
    if not (low < high and abs(low) < float("inf") and abs(high) < float("inf")):
        raise typer.BadParameter(f"{text!r} is not LOW,HIGH with LOW below HIGH", param_hint="--input-range")
    return low, high
