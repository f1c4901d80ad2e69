"""What options of the command line can be chosen among."""

from enum import StrEnum


class Method(StrEnum):
    """What an optimiser step does to the devices."""

    mixed_precision = "mixed-precision"
    naive = "naive"
    float = "float"


class Schedule(StrEnum):
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
