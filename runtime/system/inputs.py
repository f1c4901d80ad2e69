"""From stored samples to the inputs of a network: which is which, whether they fit, and what the network sees."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.dataset import AS_STORED, Dataset, Preprocess, Samples, seen_as
from cimc.errors import CimcError
from runtime.network.network import Network

# Name -> sizes [N, ...] (None: any) and NumPy type of each input of a network.
Shapes = Mapping[str, tuple[Sequence[int | None], np.dtype[Any]]]
ROUNDING = 1e-3  # of the largest value: not worth a word


def input_shapes(network: Network) -> Shapes:
    """Sizes and types of a network's inputs."""
    return {name: (sizes, network.input_types[name]) for name, sizes in network.inputs.items()}


def sample_shapes(network: Network, samples: Samples) -> Shapes:
    """Sizes and types of the inputs as samples hold them, with the samples first.

    The batch, the open size, may be another than the first, as in recurrent states [layers, N, features]. An array with
    an axis more than an input of fixed sizes holds all that a call takes in each sample.
    """
    shapes = dict(input_shapes(network))
    for name, (sizes, kind) in shapes.items():
        stored = samples.inputs.get(name, samples.inputs.get(""))
        if None in sizes:
            axis = sizes.index(None)
            shapes[name] = ((None, *sizes[:axis], *sizes[axis + 1 :]), kind)
        elif stored is not None and stored.ndim > len(sizes):
            shapes[name] = ((None, *sizes), kind)
    return shapes


def match_data(
    network: Network, data: Dataset, *, free_batch: bool = True, carried: Collection[str] = frozenset()
) -> Dataset:
    """The data with the network's own input names, and its tokens checked. It may lack inputs that are `carried`.

    Raises:
        CimcError: as `match_inputs`, or the network has a fixed batch although `free_batch` is needed.
    """
    for name, sizes in network.inputs.items():
        if free_batch and not (sizes and sizes[0] is None):
            raise CimcError(
                f"the first size of the network's input {name} is fixed to {sizes[0] if sizes else 1}: training needs "
                "a free batch there; export the network with a dynamic batch axis, images first"
            )
    try:
        train, test = (_match(network, samples, data.preprocess, carried) for samples in (data.train, data.test))
    except CimcError as error:
        raise CimcError(f"{data.name}: {error}") from None
    return replace(data, train=train, test=test)


def _match(network: Network, samples: Samples, preprocess: Preprocess, carried: Collection[str]) -> Samples:
    absent = set(carried) - samples.inputs.keys()
    shapes = {name: shape for name, shape in sample_shapes(network, samples).items() if name not in absent}
    matched = match_inputs(samples, shapes, preprocess)
    check_tokens(matched.inputs, {name: size for name, size in network.tokens.items() if name in shapes})
    return matched


def check_range(data: Dataset, network: Network, input_range: tuple[float, float], note: Callable[[str], None]) -> None:
    """Compare the values of data (of `match_data`) with those that the network was compiled for.

    Values above are noted and no error: what the input of the DAC's largest code is, calibration chooses.

    Raises:
        CimcError: for values below.
    """
    floats = [name for name, kind in network.input_types.items() if kind.kind == "f"]
    bounds = data.bounds(floats).values()
    low, high = min((least for least, _ in bounds), default=0.0), max((most for _, most in bounds), default=0.0)
    needed = f"--input-range {outward(min(low, input_range[0]), max(high, input_range[1]))} or --calibrate {data.name}"
    if low < min(input_range[0], 0.0):
        raise CimcError(
            f"{data.name} has values down to {low:.3g} but the network was compiled for inputs from "
            f"{input_range[0]:g}; compile it with {needed}"
        )
    if high > input_range[1] + ROUNDING * abs(input_range[1]):
        note(
            f"{data.name} reaches {high:.4g} but the network was compiled for inputs up to {input_range[1]:g}; pixels "
            f"may want scaling (--mean, --std), else compile it with {needed}"
        )


def outward(low: float, high: float) -> str:
    """LOW,HIGH with three digits, rounded such that all between the two stays between them."""

    def rounded(value: float, whole: Callable[[float], int]) -> float:
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 1.0
        return whole(value / step) * step

    return f"{rounded(low, math.floor):.6g},{rounded(high, math.ceil):.6g}"


def match_inputs(samples: Samples, inputs: Shapes, preprocess: Preprocess = AS_STORED) -> Samples:
    """The samples with the network's own input names, in its order.

    Arrays stay as they are stored: sizes of 1 may be more or fewer, and samples may be flat where the input is not or
    the other way round; `network_inputs` brings them into shape.

    Raises:
        CimcError: an input is missing, unknown, or has sizes or a type that do not fit.
    """
    given = dict(samples.inputs)
    if list(given) == [""]:
        if len(inputs) != 1:
            raise CimcError(
                f"the data has one array of samples but the network takes {', '.join(inputs)}: give one array by each "
                "of these names"
            )
        given = {next(iter(inputs)): given[""]}
    if missing := [name for name in inputs if name not in given]:
        raise CimcError(f"the data lacks {', '.join(missing)}: the network takes {', '.join(inputs)}")
    if unknown := [name for name in given if name not in inputs]:
        raise CimcError(f"the data has {', '.join(unknown)}, no input of the network: it takes {', '.join(inputs)}")
    for name, (sizes, kind) in inputs.items():
        applied = seen_as(preprocess, given[name], len(inputs))
        stored = _seen_sizes(given[name].shape, applied)
        _check_sizes(name, stored, sizes)
        if kind.kind == "f":
            applied.check_channels(stored[1] if len(stored) > 1 else 1, name)
        _check_type(name, given[name].dtype, kind)
    return Samples({name: given[name] for name in inputs}, samples.labels)


def _seen_sizes(stored: Sequence[int], preprocess: Preprocess) -> tuple[int, ...]:
    if preprocess.channels_last and len(stored) > 2:
        return (stored[0], stored[-1], *stored[1:-1])
    return tuple(stored)


def _check_sizes(name: str, stored: Sequence[int], sizes: Sequence[int | None]) -> None:
    """Axes of size 1 may differ, and a flat side takes any: no other order is guessed, such as channels last."""
    wanted = list(sizes[1:])
    if None in wanted:
        fits = len(stored) == len(sizes) and all(
            size in (None, there) for size, there in zip(wanted, stored[1:], strict=True)
        )
    else:
        flat = len(wanted) <= 1 or len(stored) <= 2
        same = [size for size in wanted if size != 1] == [size for size in stored[1:] if size != 1]
        fits = int(np.prod(stored[1:])) == int(np.prod([size or 1 for size in wanted])) and (flat or same)
    if not fits:
        raise CimcError(
            f"the data has {_text(stored[1:])} a sample of {name} but the network takes {_text(wanted)}; choose data "
            "of that shape"
        )


def _text(sizes: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes) or "one value"


def _check_type(name: str, stored: np.dtype[Any], kind: np.dtype[Any]) -> None:
    if stored.kind == "f" and kind.kind in "iub":
        raise CimcError(f"the data has {stored} for {name} but the network takes {kind} there: save it as integers")


def check_tokens(stored: Mapping[str, NDArray[Any]], entries: Mapping[str, int]) -> None:
    """Raises CimcError when tokens are negative, or too large for a table of that many entries, by input name."""
    for name, size in entries.items():
        least, largest = int(stored[name].min()), int(stored[name].max())
        if least < 0 or largest >= size:
            raise CimcError(
                f"the data has the token {least if least < 0 else largest} for {name} but the network's table has "
                f"{size} entries; choose data of its vocabulary"
            )


def network_inputs(stored: Mapping[str, Any], inputs: Shapes, preprocess: Preprocess) -> dict[str, Any]:
    """What the network sees of stored arrays [N, ...] by input name (`match_inputs`), as NumPy or as JAX arrays.

    Inputs of integers and truth values take what is stored. The only input of floats, or of several those that are
    images [N, C, *spatial], are preprocessed.
    """
    seen = {}
    for name, (sizes, kind) in inputs.items():
        x = stored[name]
        if kind.kind in "iub":
            x = x.astype(np.bool_ if kind.kind == "b" else np.int32)
        else:
            x = seen_as(preprocess, x, len(inputs)).apply(x)
        wanted = tuple(size for size in sizes[1:] if size is not None)
        seen[name] = x.reshape(len(x), *wanted) if len(wanted) == len(sizes) - 1 else x
    return seen
