"""State carried from output to input over a stream: the samples in their order are its steps, each one call."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from cimc.errors import CimcError
from runtime.network.network import Network
from runtime.network.stepwise import Arrays
from runtime.system.inference import Batch, Outputs, batch_axis, outputs_exactly
from runtime.system.inputs import outward

Carry = Mapping[str, str]  # output -> the input that takes it in the next step
Run = Callable[[Batch], Outputs]


def check_carry(network: Network, carry: Carry) -> None:
    """Raises CimcError where an output or input is unknown, the two do not fit, or two outputs go to one input."""
    for output, name in carry.items():
        for kind, given, known in (("outputs", output, network.outputs), ("inputs", name, tuple(network.inputs))):
            if given not in known:
                raise CimcError(f"--carry {output}={name}: {given} is not among the {kind} {', '.join(known)}")
        ends = [(network.shapes.get(value, ()), network.types[value]) for value in (output, name)]
        if not _fit(*(sizes for sizes, _ in ends)) or ends[0][1] != ends[1][1]:
            shown = " but ".join(f"{value} has {_text(network, value)}" for value in (output, name))
            raise CimcError(
                f"--carry {output}={name}: {shown}; an output must have the sizes and type of the input, and the "
                "length of a cache that grows is to be left open when compiling"
            )
    if len(set(carry.values())) < len(carry):
        raise CimcError(f"--carry: an input takes one output, but {', '.join(carry)} go to {', '.join(carry.values())}")


def _fit(given: tuple[Any, ...], taken: tuple[Any, ...]) -> bool:
    """Whether sizes agree; one that is not static fits any."""
    return len(given) == len(taken) and all(
        one == other or not (isinstance(one, int) and isinstance(other, int))
        for one, other in zip(given, taken, strict=True)
    )


def _text(network: Network, value: str) -> str:
    sizes = network.shapes.get(value, ())
    kind = TensorProto.DataType.Name(network.types[value]).lower()
    return f"{kind} {'x'.join('?' if size is None else str(size) for size in sizes)}"


def carried(network: Network, carry: Carry, run: Run, input_range: tuple[float, float] | None = None) -> Run:
    """`run` for the steps of a stream in their order: each takes the states that the step before gave.

    The first step takes what the data holds for a state, else zeros; of a state whose length is open, such as a cache
    that grows by each step, none. Every stream has its own states.

    Args:
        network: takes and gives the states.
        carry: none: `run` as it is.
        run: computes the outputs of a batch.
        input_range: of the inputs that the network was compiled for; None: states are not checked.

    Raises:
        CimcError: by the function returned, for a state below 0 where `input_range` has nothing below 0.
    """
    if not carry:
        return run
    states: dict[str, NDArray[Any]] = {}
    zeros = {name: np.zeros(_empty(network, name), network.input_types[name]) for name in carry.values()}

    def step(batch: Batch) -> Outputs:
        outputs = run(replace(batch, feeds={**zeros, **batch.feeds, **states}))
        for output, name in carry.items():
            states[name] = np.moveaxis(outputs[output], 0, batch_axis(network, output))
            if input_range is not None and states[name].dtype.kind == "f":
                _check_sign(name, states[name], input_range)
        return outputs

    return step


def _empty(network: Network, name: str) -> list[int]:
    """Sizes of a state before the first step: one sample, and nothing yet along other open axes."""
    axis = batch_axis(network, name)
    return [int(place == axis) if size is None else size for place, size in enumerate(network.inputs[name])]


def with_states(network: Network, carry: Carry, steps: Iterable[Batch], parameters: Arrays) -> Iterator[Batch]:
    """The steps of a stream with the states that the exact network (`exact_parameters`) has there."""
    if not carry:
        yield from steps
        return
    seen: list[Batch] = []

    def exactly(batch: Batch) -> Outputs:
        seen.append(batch)
        return outputs_exactly(network, parameters, batch)

    run = carried(network, carry, exactly)
    for step in steps:
        run(step)
        yield seen.pop()


def _check_sign(name: str, state: NDArray[Any], input_range: tuple[float, float]) -> None:
    """A chip whose inputs are all positive drives no negative ones."""
    least = float(state.min(initial=0))
    if input_range[0] >= 0 > least:
        largest = max(input_range[1], float(np.abs(state).max()))
        raise CimcError(
            f"the state {name} reaches {least:.3g} but the network was compiled for inputs from {input_range[0]:g}; "
            f"compile it with --input-range {outward(-largest, largest)}"
        )
