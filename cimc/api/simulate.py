"""Simulate: the schedule of a mapped network beside what an event-driven simulator finds, with what explains both."""

from pathlib import Path
from typing import Any

from cimc.api.sources import artifact_of
from cimc.artifact import Artifact
from cimc.options import check_whole
from passes.simulator.simulate import IMAGES, Comparison, compare


def simulate_mapping(source: str | Path | Artifact, *, images: int = IMAGES) -> dict[str, Any]:
    """Send images through a mapped network, row by row, and hold the times against those of its schedule.

    Args:
        source: a `.cim` file or its contents.
        images: that follow one another for the interval, at least 4.

    Returns:
        JSON values. `latency` and `interval`: `schedule_ms`, `simulated_ms`, `difference` (a fraction of the former),
        `causes` (what had to be left out of the simulation until the two agreed to 5 %, by name), `without_causes_ms`
        and `agrees`. `buffer_bytes`: `schedule` and `simulated`. `busy`: `kind`, `where` and `busy_ns` of each
        resource for one image, the busiest first. `waits`, of one image alone, and `waits_in_turn`, of all: `kind`,
        `where`, `layers` and `wait_ns` of each contention, the longest first.

    Raises:
        CimcError: the network runs in segments, the file holds no schedule, or there are fewer than 4 images.
    """
    images = check_whole("images", images, 4)
    artifact, _ = artifact_of(source)
    mapping = artifact.mapping
    simulation, comparisons = compare(artifact.network, mapping, artifact.chip, images=images)
    assert mapping.schedule is not None
    return {
        "images": images,
        **{comparison.what: _figures(comparison) for comparison in comparisons},
        "buffer_bytes": {"schedule": mapping.schedule.buffer_bytes, "simulated": simulation.buffer_bytes},
        "busy": [{"kind": kind, "where": where, "busy_ns": busy} for kind, where, busy in simulation.busy],
        "waits": [wait._asdict() for wait in simulation.contentions],
        "waits_in_turn": [wait._asdict() for wait in simulation.contentions_in_turn],
    }


def _figures(comparison: Comparison) -> dict[str, Any]:
    return {
        "schedule_ms": comparison.analytic * 1e-6,
        "simulated_ms": comparison.simulated * 1e-6,
        "difference": comparison.deviation,
        "causes": list(comparison.causes),
        "without_causes_ms": comparison.without_causes * 1e-6,
        "agrees": comparison.agrees,
    }
