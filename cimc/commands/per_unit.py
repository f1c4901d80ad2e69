"""What a part of an input costs: a token or a step of a sequence, and a second of a stream."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import onnx_ir as ir

from cimc.artifact import Artifact
from cimc.commands.console import say
from cimc.operators import SEQUENCE_STEPS

TOKENS = (ir.DataType.INT32, ir.DataType.INT64)


class Share(NamedTuple):
    """Energy and time of a unit, at full rate. inputs: so many of the network's inputs are one unit.

    energy_mj: None where the chip file states none. interval_ms: the arrays are at work for it.
    """

    unit: str
    inputs: float
    energy_mj: float | None
    interval_ms: float


def shares(artifact: Artifact, interval_ms: float, inputs_per_second: float | None) -> list[Share]:
    """Of a token or a step where the inputs are sequences, and of a second where it is said how many inputs it has.

    interval_ms: between inputs.
    """
    energy = artifact.mapping.cost.spent_mj or None
    parts = [(unit, 1 / count) for unit, count in _units(artifact.network.graph)]
    if inputs_per_second is not None:
        parts.append(("second", inputs_per_second))
    return [Share(unit, n, energy and energy * n, interval_ms * n) for unit, n in parts]


def figures(found: list[Share]) -> dict[str, Any]:
    """JSON key of `inspect` and `compile`: `per`, by unit."""
    return {
        "per": {share.unit: {key: value for key, value in share._asdict().items() if key != "unit"} for share in found}
    }


def show(found: list[Share]) -> None:
    """One line a unit."""
    for share in found:
        energy = "energy not stated" if share.energy_mj is None else f"{share.energy_mj:.2g} mJ"
        if share.unit == "second":
            at_work = f"arrays at work {share.interval_ms:.3g} ms"
            say(
                f"per second ({share.inputs:g} inputs): {energy}, {at_work}{' (too slow)' * (share.interval_ms > 1000)}"
            )
        else:
            count = round(1 / share.inputs)
            say(f"per {share.unit} ({count:,} an input): {energy}, one every {share.interval_ms:.3g} ms")


def _units(graph: ir.Graph) -> Iterator[tuple[str, int]]:
    """Tokens of the first input of integers [N, T], else steps of the longest recurrent layer; only more than one."""
    for value in graph.inputs:
        sizes = () if value.shape is None else tuple(value.shape)
        if value.dtype in TOKENS and len(sizes) == 2 and isinstance(sizes[1], int) and sizes[1] > 1:
            yield "token", sizes[1]
            return
    steps = max((int(node.metadata_props.get(SEQUENCE_STEPS, "1")) for node in graph), default=1)
    if steps > 1:
        yield "step", steps
