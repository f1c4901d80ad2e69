"""All chips of a population measured: here, or by workers that share them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from cimc.api.progress import Progress
from cimc.api.run_tasks import run_tasks
from cimc.dataset import Dataset
from cimc.package import Package
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.population import AT_ONE_WORKER, Part, Population, Request, measure_part, population_of
from runtime.network.load import load_network
from runtime.system.inference import MOST_BYTES
from runtime.system.state import build_system


@dataclass(frozen=True, eq=False)
class _Shared:
    """What a worker makes the population of."""

    package: Package
    data: Dataset
    request: Request


def measure_population(
    population: Population, package: Package, workers: int, cluster: str | None, progress: Progress
) -> list[Part]:
    """All parts of the chips, in their order.

    Args:
        population: the chips.
        package: what they were made of; workers make the population of it anew.
        workers, cluster: as of `cimc.api.deploy.deploy`.
        progress: called with the samples done on all chips and at all times, of how many.
    """
    of_chip = len(population.data.test) * len(population.moments)
    more = _counted(progress, population.request.chips * of_chip)
    if workers == 1 and cluster is None:
        return [measure_part(population, part, progress=more) for part in population.parts()]
    # Workers take as many samples at once as this process would, however much of their memory is free.
    request = replace(population.request, memory=population.request.memory or MOST_BYTES)
    data = replace(population.data, train=population.data.train.take(slice(0)), validation=None)
    parts, found = population.parts(AT_ONE_WORKER), {}
    shared = _Shared(package, data, request)
    for number, part in run_tasks(_measure_by_worker, parts, shared=shared, workers=workers, cluster=cluster):
        found[number] = part
        more(len(part.stuck_shares) * of_chip)
    return [found[number] for number in range(len(parts))]


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    """Takes how much more is done."""
    done = 0

    def more(units: int) -> None:
        nonlocal done
        done += units
        progress(done, total)

    return more


def _measure_by_worker(shared: _Shared, part: tuple[int, int]) -> Part:
    return measure_part(_population_of(shared), part)


@lru_cache(maxsize=1)
def _population_of(shared: _Shared) -> Population:
    """The population, once in each worker."""
    use_compilation_cache()
    package = shared.package
    system = build_system(load_network(package.network), package.mapping, package.chip)
    return population_of(system, package.program, shared.data, shared.request)
