"""Virtual chips programmed with a package."""

from collections.abc import Callable
from pathlib import Path

from cimc.dataset import Dataset
from cimc.package import read_package
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.deploy import Deployment
from runtime.deployment.deploy import deploy as deploy_program
from runtime.network.load import load_network
from runtime.system.evaluate import check_data
from runtime.system.state import build_system, initial_state

# Called with the units done, of how many.
Progress = Callable[[int, int], None]


def deploy(
    folder: Path,
    data: Dataset,
    chips: int = 20,
    seed: int = 0,
    required: float = 0.99,
    baseline: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Deployment:
    """Program virtual chips with a package and measure their accuracy on the test set (`runtime.deployment.deploy`)."""
    use_compilation_cache()
    package = read_package(folder)
    system = build_system(load_network(package.network), package.mapping, package.chip)
    check_data(system, initial_state(system), data, package.mapping.input_range)
    total = chips * len(data.x_test)
    return deploy_program(
        system, package.program, data, chips, seed, required, baseline, lambda done: progress(done, total)
    )
