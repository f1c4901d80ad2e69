"""A mapping in all: arrays, area, the time of one input, rate, power, throughput, the objective beside its bound."""

from cimc.artifact import Artifact
from cimc.commands import per_unit
from cimc.commands.console import counted, say
from cimc.mapping import Mapping

# Components with a key in [area]; memories and links are part of its core_mm2.
WITH_AREA = ("MVM", "ADC", "DAC", "array", "shift-add", "digital operators")


def figures(mapping: Mapping) -> dict[str, float | None]:
    """JSON of the totals; None: the chip file states nothing that it could be counted from.

    energy_mj: of one input, in all components that state theirs: arrays with converters, digital operators, data
    movement, reprogramming; array_energy_mj: what the arrays take of it, reprogramming included. area_mm2: of all
    components that state one. power_w: energy of one input in all components that state one, over the
    interval between inputs. operations: two (multiply, add) for every weight of a crossbar layer and MVM. tops: 1e12 of
    these a second, inputs following at the interval; tops_per_w: 1e12 of these a joule.
    """
    # A chip file whose energies are all 0 states none.
    energy_mj, between_ms, operations = mapping.cost.spent_mj or None, interval_ms(mapping), mapping.cost.flops
    areas = [part.area_mm2 for part in mapping.cost.components if part.area_mm2 is not None]
    return {
        "energy_mj": energy_mj,
        "array_energy_mj": mapping.cost.energy_mj or None,
        "area_mm2": sum(areas) if areas else None,
        "power_w": energy_mj / between_ms if energy_mj and between_ms else None,
        "operations": operations,
        "tops": operations / between_ms * 1e-9 if between_ms else None,
        "tops_per_w": operations / energy_mj * 1e-9 if energy_mj else None,
    }


def energy_not_stated(mapping: Mapping) -> list[str]:
    """The components whose energy is in no figure: the chip file does not state it, or it cannot be counted."""
    return [part.name for part in mapping.cost.components if part.energy_mj is None]


def interval_ms(mapping: Mapping) -> float:
    """The time between inputs."""
    # In segments an input is done before the next one begins.
    return mapping.cost.latency_ms if mapping.schedule is None else mapping.schedule.interval_ns * 1e-6


def show(artifact: Artifact, inputs_per_second: float | None = None) -> None:
    """Arrays and area, the time of one input, energy, power and throughput; what was asked for and its bound.

    inputs_per_second: as of `per_unit.shares`.
    """
    _show_size(artifact)
    _show_time(artifact.mapping)
    _show_energy(artifact.mapping)
    per_unit.show(per_unit.shares(artifact, interval_ms(artifact.mapping), inputs_per_second))
    _show_traffic(artifact)
    _show_objective(artifact.mapping)


def _show_size(artifact: Artifact) -> None:
    mapping, chip, cost = artifact.mapping, artifact.chip, artifact.mapping.cost
    where = f"{len(mapping.segments)} segments on one chip" if mapping.segments else counted(mapping.chips, "chip")
    area = figures(mapping)["area_mm2"]
    unstated = ", ".join(part.name for part in cost.components if part.area_mm2 is None and part.name in WITH_AREA)
    missing = f" ({unstated}: not stated)" if unstated else ""
    per_chip = " + ".join(str(chip.sizes[kind].per_chip) for kind in mapping.all_kinds)
    size = "not stated" if area is None else f"{area:.4g} mm2{missing}"
    say(
        f"{counted(cost.crossbars, 'array')} on {where} of {per_chip}, {cost.devices} devices, "
        f"{cost.utilization:.0%} of their places used; area {size}"
    )
    if mapping.chips > 1 and not mapping.segments:
        say(
            f"note: one {chip.name} has {per_chip} arrays, the network is spread over {mapping.chips} chips; "
            "not counted: the energy of what moves between cores and chips, waits for what arrays of a core share, "
            "areas of cores"
        )


def _show_time(mapping: Mapping) -> None:
    cost, schedule = mapping.cost, mapping.schedule
    if schedule is None:
        spent = f"{cost.reprogramming_mj:.2g} mJ" if cost.reprogramming_mj else "energy not stated"
        say(
            f"latency of one input: {cost.latency_ms:.4g} ms, layer after layer; of these, programming: "
            f"{cost.reprogramming_ms:.4g} ms, {spent}"
        )
        return
    limit = f" (limited by {schedule.limits[0].kind}: {schedule.limits[0].where})" if schedule.limits else ""
    say(
        f"latency of one input: {schedule.latency_ns * 1e-6:.4g} ms, each layer at work as soon as the rows that it "
        f"needs are there; one input every {schedule.interval_ns * 1e-6:.4g} ms{limit}; buffers "
        f"{schedule.buffer_bytes:,} bytes"
    )


def _show_energy(mapping: Mapping) -> None:
    found, energy_mj = figures(mapping), mapping.cost.spent_mj
    unstated = ", ".join(energy_not_stated(mapping))
    missing = f" ({unstated}: not stated)" if unstated and energy_mj else ""
    say(f"energy of one input: {f'{energy_mj:.2g} mJ' if energy_mj else 'not stated'}{missing}")
    rates = {"W": found["power_w"], "TOPS": found["tops"], "TOPS/W": found["tops_per_w"]}
    stated = ", ".join(f"{value:.3g} {unit}" for unit, value in rates.items() if value is not None)
    if stated:
        say(f"at full rate: {stated}; {mapping.cost.flops:,} operations an input, two for every weight and MVM")


def _show_traffic(artifact: Artifact) -> None:
    placement = artifact.mapping.placement
    if placement is None or not placement.byte_hops or artifact.chip.cores.bus_bytes_per_ns is not None:
        return
    busiest = max(placement.links, key=lambda link: link.bytes)
    say(
        f"between cores: {placement.byte_hops:,} byte hops (bound {placement.byte_hops_bound:,}, in network order "
        f"{placement.byte_hops_unplaced:,}); busiest link core {busiest.source} to {busiest.target}, "
        f"{busiest.bytes:,} bytes"
    )


def _show_objective(mapping: Mapping) -> None:
    if mapping.result is None:
        return
    result = mapping.result
    proof = "optimal by the mapper's rules" if result.exact else f"{result.gap:.1%} above the bound"
    say(
        f"objective {result.objective} within {result.budget} arrays, seed {result.seed}: "
        f"{result.value:.5g} {result.unit}, bound {result.bound:.5g} {result.unit}, {proof}"
    )
