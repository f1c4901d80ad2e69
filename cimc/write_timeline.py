"""The time of a training step on the arrays: products of a batch, then row writes, which may hide behind products.

Modelled: images of a batch follow each other at the mapping's interval; the gradient of a layer is complete when the
last image has passed back through it; its writes then begin, and the layer is next needed when the first image of the
next batch gets there. Layers whose arrays have ports of their own are written at the same time, others one after the
other in the order in which their gradients are complete, of several the one that is needed first. Digital work of the
backward pass and the optimiser takes no time: no chip file states it. Times of writes are means over the steps.
"""

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

from cimc.mapping import Mapping


@dataclass(frozen=True)
class LayerTimes:
    """Of a layer in a step, us from its begin: the forward products of the batch, and its writes."""

    name: str
    forward_start_us: float
    forward_stop_us: float
    write_start_us: float
    write_stop_us: float

    @property
    def write_us(self) -> float:
        """Time of its writes."""
        return self.write_stop_us - self.write_start_us


@dataclass(frozen=True)
class StepTimes:
    """A training step.

    forward_us, backward_us: of the whole batch. layers: in network order. stall_us: what the next step has to wait
    because of writes: `apart`, when nothing is computed while anything is written; `overlapped`, a layer is written
    while others compute; `double_buffered`, every array twice, one written while the other computes: a step then takes
    the writes of two, as each array of the two must get all of them.
    """

    forward_us: float
    backward_us: float
    layers: tuple[LayerTimes, ...]
    stall_us: Dictionary[str, float]

    @property
    def products_us(self) -> float:
        """Time of a step without writes."""
        return self.forward_us + self.backward_us

    @property
    def hidden_us(self) -> float:
        """Of the writes, what overlapping hides."""
        return max(0.0, self.stall_us["apart"] - self.stall_us["overlapped"])


def step_times(
    mapping: Mapping,
    write_us: Dictionary[str, float],
    *,
    writes_us: float,
    batch: int,
    backward: float,
    shared_ports: bool,
) -> StepTimes:
    """The times of a step.

    Args:
        mapping: of the network, with its schedule where there is one.
        write_us: mean time of each layer's writes in a step.
        writes_us: mean time of the busiest port in a step.
        batch: images of a step.
        backward: time of an image backward over that forward; 0: digital.
        shared_ports: whether layers share write ports.
    """
    spans, latency, interval = _of_one_image(mapping)
    forward = latency + (batch - 1) * interval
    back = backward * forward
    # The last image turns back at the last layer and reaches the first one at the end.
    ready = {name: forward + back - backward * start for name, (start, _) in spans.items()}
    starts, free = {}, 0.0
    for name in sorted(spans, key=lambda name: ready[name]):
        starts[name] = max(ready[name], free) if shared_ports else ready[name]
        free = starts[name] + write_us[name]
    layers = tuple(
        LayerTimes(name, start, stop + (batch - 1) * interval, starts[name], starts[name] + write_us[name])
        for name, (start, stop) in spans.items()
    )
    end = forward + back
    stalls = {
        "apart": writes_us,
        "overlapped": max([0.0, *(layer.write_stop_us - end - layer.forward_start_us for layer in layers)]),
        "double_buffered": max(0.0, 2 * writes_us - end),
    }
    return StepTimes(forward, back, layers, stalls)


def _of_one_image(mapping: Mapping) -> tuple[dict[str, tuple[float, float]], float, float]:
    """(start, stop) of each layer, the latency, and the interval between images, us."""
    spans: dict[str, tuple[float, float]] = {}
    schedule = mapping.schedule
    if schedule is None:
        now = 0.0
        for cost in mapping.cost.layers:
            spans[cost.name] = (now, now + cost.latency_ms * 1e3)
            now = spans[cost.name][1]
        return spans, now, mapping.cost.pipelined_latency_ms * 1e3
    for stage in schedule.stages:
        if stage.kind == "crossbar":
            start, stop = spans.get(stage.layer, (stage.start_ns * 1e-3, 0.0))
            spans[stage.layer] = min(start, stage.start_ns * 1e-3), max(stop, stage.stop_ns * 1e-3)
    return spans, schedule.latency_ns * 1e-3, schedule.interval_ns * 1e-3
