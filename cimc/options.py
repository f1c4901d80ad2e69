"""What options can be chosen among, and the checks of their values, for commands and Python alike."""

import difflib
import math
import operator
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from cimc.errors import CimcError

if TYPE_CHECKING:
    from cimc.chip_cell import Cell

# Methods of training that write no device: the file they make holds float weights.
OFF_ARRAYS = ("float", "quantisation-aware", "hardware-aware")
Choice = TypeVar("Choice", bound=StrEnum)
MOST_SEED = 2**63 - 1


class RateSchedule(StrEnum):
    """Course of the learning rate."""

    constant = "constant"
    cosine = "cosine"
    plateau = "plateau"
    step = "step"
    linear = "linear"
    exponential = "exponential"


class Optimizer(StrEnum):
    """How gradients become steps. adam: decoupled weight decay on crossbar weights; adamw: on all parameters. momentum,
    sgd: weight decay in the gradient. frank-wolfe: weights within a set (`runtime.training.frank_wolfe`).
    """

    adam = "adam"
    adamw = "adamw"
    momentum = "momentum"
    sgd = "sgd"
    frank_wolfe = "frank-wolfe"


class Augment(StrEnum):
    """What is drawn anew for every image of a batch."""

    crop = "crop"
    flip = "flip"
    cutout = "cutout"


class Keep(StrEnum):
    """Which epoch's state a run ends with; best: by the loss of the validation samples."""

    last = "last"
    best = "best"


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


class Gradient(StrEnum):
    """How a training step finds its gradients: see `runtime.training.gradients`."""

    backward = "backward"
    weights = "weights"
    projected = "projected"
    activities = "activities"


class Constraint(StrEnum):
    """The set within which Frank-Wolfe keeps a layer's weights: see `runtime.training.frank_wolfe`."""

    box = "box"
    l2_ball = "l2-ball"
    k_sparse = "k-sparse"


class Sync(StrEnum):
    """What the digital copy becomes after a write; auto: see `sync_of`."""

    auto = "auto"
    target = "target"
    readback = "readback"
    none = "none"


def sync_of(sync: Sync, write: Write, cell: "Cell") -> Sync:
    """What `auto` is on a device: read back, unless a closed-loop write knows the device better than a read tells it.

    That is where the sd of one read is above the step at which a device is due: each write would then begin from the
    noise of the read before it, and a weight would walk.
    """
    if sync is not Sync.auto:
        return sync
    noisy = cell.largest_read_sd_uS > cell.granularity * cell.window_uS
    return Sync.target if write is Write.verify and noisy else Sync.readback


class Loss(StrEnum):
    """What training makes small; auto: by the labels, and without labels distillation."""

    auto = "auto"
    cross_entropy = "cross-entropy"
    mse = "mse"
    binary = "binary"
    distill = "distill"


class Weights(StrEnum):
    """Where exported weights come from."""

    devices = "devices"
    digital = "digital"


class Correct(StrEnum):
    """What of an exported network is fitted to samples, so that it computes on the chip what it does in float32.

    bias: the mean error of each column goes into the digital bias. affine: and its scale. reconstruct: and the weights.
    """

    none = "none"
    bias = "bias"
    affine = "affine"
    reconstruct = "reconstruct"


class Compensate(StrEnum):
    """What the digital side makes up for when devices have drifted, in the order in which it does.

    By reads of the devices: global: a scale of each layer; column: of each of its columns. By samples, layer after
    layer: ranges: the input ranges are chosen again; bn: mean and sd of each channel become those of the exact network;
    affine: scale and shift of each column by regression of what the exact network gives on what the chip gives.
    """

    none = "none"
    global_ = "global"
    column = "column"
    ranges = "ranges"
    bn = "bn"
    affine = "affine"


BY_SAMPLES = (Compensate.ranges, Compensate.bn, Compensate.affine)


def parse_compensate(given: str | Sequence[str]) -> tuple[Compensate, ...]:
    """The compensations that are named, with `+` or `,` between or one by one, in the order in which they are done.

    Raises:
        CimcError: one is none.
    """
    names = re.split("[+,]", given) if isinstance(given, str) else given
    chosen = {check_choice(Compensate, "compensate", name.strip()) for name in names}
    return tuple(kind for kind in Compensate if kind in chosen and kind is not Compensate.none)


class DiePlacement(StrEnum):
    """How a package is made for a die with stuck cells. none: its weights stay where and what they are. pairs: the good
    devices of each weight take up what the stuck ones lack. full: before that, arrays, rows and columns are chosen.
    """

    none = "none"
    pairs = "pairs"
    full = "full"


class ShareWeights(StrEnum):
    """Whether a weight that several products of a network use is one crossbar layer.

    auto: yes, unless nothing but chance made it one: all its elements are equal, or an exporter stored equal
    parameters of different names once.
    """

    auto = "auto"
    always = "always"
    never = "never"


class RowSplit(StrEnum):
    """How rows of a weight matrix are split over arrays."""

    channel = "channel"
    flat = "flat"


def check_choice(kind: type[Choice], field: str, value: Any) -> Choice:
    """The member of `kind` that `value` is or names.

    Raises:
        CimcError: it is none; `field`, the value and the choices are named.
    """
    try:
        return kind(value)
    except ValueError:
        close = difflib.get_close_matches(str(value), list(kind), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise CimcError(f"{field} is {value!r}; choose {', '.join(kind)}{hint}") from None


def check_whole(field: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int. Raises CimcError, naming `field`, when it is no whole number from `least` to `most`."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least or isinstance(value, bool) or (most is not None and whole > most):
        end = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise CimcError(f"{field} is {value!r}; give a whole number {end}")
    return whole


def listed(field: str, value: Any) -> tuple[str, ...]:
    """Several names, as a text with commas or one by one. Raises CimcError, naming `field`, for anything else."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise CimcError(f"{field} is {value!r}; give names, with commas between them")
    return tuple(name.strip() for name in names if name.strip())


def check_seed(value: Any) -> int:
    """`value` as a seed, which is one of 63 bits. Raises CimcError as `check_whole`."""
    return check_whole("seed", value, 0, MOST_SEED)


def check_range(field: str, value: Any) -> tuple[float, float]:
    """`value` as (least, greatest). Raises CimcError, naming `field`, when it is not two finite ascending numbers."""
    try:
        low, high = (float(bound) for bound in ([] if isinstance(value, str | bytes) else value))
    except (TypeError, ValueError, OverflowError):
        low = high = math.nan
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise CimcError(f"{field} is {value!r}; give its least and its greatest value, two finite numbers")
    return low, high


def check_number(field: str, value: Any, least: float, most: float = math.inf) -> float:
    """`value` as a float. Raises CimcError, naming `field`, when it is not a finite number from `least` to `most`."""
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        end = f"to {most:g}" if most < math.inf else "on"
        raise CimcError(f"{field} is {value!r}, not a finite number in its range; give one from {least:g} {end}")
    return number
