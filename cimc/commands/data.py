"""`cimc data`: which data sets are found, and their download."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cimc.commands.options import DataDir, Json, emit

data = typer.Typer(
    name="data",
    help="List the data sets that are found; download one (`cimc data fetch mnist`).",
    invoke_without_command=True,
    rich_markup_mode="rich",
)


@data.callback()
def list_data(context: typer.Context, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the data sets that `--data` takes by name, and where they were found; `fetch` downloads one.

    Example: cimc data
    """
    if context.invoked_subcommand is None:
        found = found_sets(data_dir)
        emit({"data": found}, lambda: show(found), as_json=as_json)


@data.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="mnist or cifar10.", autocompletion=lambda: ["mnist", "cifar10"])],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder to put it in. Default: $CIMC_DATA, else the user's cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a public data set, check its SHA-256, and put it where `--data` finds it.

    From the well-known mirrors, or from the folder that $CIMC_MIRROR names. Nothing else in cimc uses a network.

    Example: cimc data fetch mnist
    """
    from cimc.commands.console import progress_bar, say
    from cimc.data.fetch import fetch

    with progress_bar(f"fetch {name}") as bar:
        folder = fetch(name, data_dir, progress=lambda done, total: bar(done, total, ""))
    figures = {"name": name, "folder": str(folder)}
    emit(figures, lambda: say(f"{name} is in {folder}; use it with --data {name}"), as_json=as_json)


def found_sets(data_dir: Path | None = None) -> dict[str, str | None]:
    """The folder of each named set; None: it was not found."""
    from cimc.data.load import find_set

    return {
        name: str(folder) if (folder := find_set(name, data_dir)) else None
        for name in ("mnist", "fashion-mnist", "cifar10")
    }


def rows(found: dict[str, Any]) -> dict[str, str]:
    """The sets as texts."""
    return {**{name: folder or "not found" for name, folder in found.items()}, "digits": "embedded (synthetic)"}


def show(found: dict[str, str | None]) -> None:
    """The sets and where they are, and how to get those that are missing."""
    from cimc.commands.console import print_figures, say

    print_figures("data sets", rows(found))
    if missing := [name for name in ("mnist", "cifar10") if not found[name]]:
        say(f"next: cimc data fetch {missing[0]}")
