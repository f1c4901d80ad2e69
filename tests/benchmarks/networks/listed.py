"""The list of networks, `networks.toml`, and the folder where a run keeps what it installed and measured."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIST = Path(__file__).parent / "networks.toml"


@dataclass(frozen=True)
class Network:
    """One entry of the list.

    package: name==version. file: the ONNX file, inside the package. inputs: `maker`, a function of one of the modules
    here, and its arguments. count: samples. shapes: for `cimc compile --shape`. constants: scalar inputs that are set
    once, by name. note: what a reader of the table should know.
    """

    name: str
    kind: str
    package: str
    file: str
    inputs: dict[str, Any]
    count: int
    shapes: list[str] = field(default_factory=list)
    constants: dict[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Work:
    """The folder of a run: `packages/` as installed, and one folder a network."""

    folder: Path

    @property
    def packages(self) -> Path:
        """Where packages are installed."""
        return self.folder / "packages"

    def package(self, network: Network) -> Path:
        """Where the package of a network is installed."""
        return self.packages / network.package

    def model(self, network: Network) -> Path:
        """The network's ONNX file."""
        return self.package(network) / network.file

    def of(self, network: Network, name: str) -> Path:
        """A file of a network's own folder."""
        return self.folder / network.name / name


def read_list(names: list[str]) -> list[Network]:
    """The networks of these names, or all, in the order of the list. Raises SystemExit for an unknown name."""
    networks = [Network(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["network"]]
    if unknown := set(names) - {network.name for network in networks}:
        raise SystemExit(f"no network of the list: {', '.join(sorted(unknown))}")
    return [network for network in networks if not names or network.name in names]
