"""`cimc report` of a package: agreement, losses by layer, the die, virtual chips, arrays, cost, targets."""

from collections.abc import Mapping
from types import MappingProxyType

from cimc.package import Package
from cimc.report.conductances import target_section
from cimc.report.deployment import as_programmed, deployment_section, worst_chips
from cimc.report.die import die_section
from cimc.report.html import page_of, tiles
from cimc.report.losses import agreement_section, losses_section
from cimc.report.page import arrays_section, cost_sections
from cimc.report.read_deployments import Deployed
from cimc.report.svg import duration, energy
from cimc.shares import measure_text


def package_report(package: Package, deployments: Mapping[str, Deployed] = MappingProxyType({})) -> str:
    """The page: HTML without scripts and without any reference to another file.

    deployments: of the package, by name (`cimc.report.read_deployments.read_deployments`).
    """
    notes, mapping = package.notes, package.mapping
    return page_of(
        f"{package.model} for {package.chip.name}",
        package.chip.description,
        [
            _summary(package, deployments),
            agreement_section(notes.get("agreement")),
            deployment_section(deployments),
            losses_section(notes.get("layers"), worst_chips(deployments)),
            die_section(package),
            arrays_section(mapping, package.chip),
            cost_sections(mapping),
            target_section(package),
        ],
    )


def _summary(package: Package, deployments: Mapping[str, Deployed]) -> str:
    cost, mapping = package.mapping.cost, package.mapping
    shown = [
        (f"{cost.crossbars:,}", f"arrays of {package.chip.sizes_text(mapping.kinds_in_use)}"),
        (f"{cost.weights:,}", "weights"),
        (f"{cost.devices:,}", "devices to program"),
        (duration(mapping.latency_ms * 1e6), "latency of one input"),
        (energy(cost.spent_mj) if cost.spent_mj else "not stated", "energy of one input"),
    ]
    if package.die is not None:
        shown.append((package.die.name, "the die it is for"))
    for when, one in as_programmed(deployments).items() if deployments else ():
        shown.append(
            (measure_text(one["measure"], one["accuracy"]["mean"]), f"mean {one['measure'].replace('_', ' ')} {when}")
        )
    return tiles(shown)
