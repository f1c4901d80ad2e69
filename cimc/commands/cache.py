"""`cimc cache`: the compiled functions that are kept between runs."""

from typing import Any

import typer

from cimc.commands.options import Json, emit

cache = typer.Typer(
    name="cache",
    help="Show where compiled functions are kept, and how much; `cimc cache clear` removes them.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)


@cache.callback()
def show_cache(context: typer.Context, as_json: Json = False) -> None:
    """Show the cache of compiled functions: folder, files, size, limit ($CIMC_CACHE_MB, else 2048).

    What was not used for longest goes where it grows larger. `cimc cache clear` removes all; it is made again.

    Example: cimc cache
    """
    if context.invoked_subcommand is None:
        found = figures()
        emit(found, lambda: _show(found), as_json=as_json)


@cache.command()
def clear(as_json: Json = False) -> None:
    """Remove all compiled functions; the next runs compile them again.

    Example: cimc cache clear
    """
    from cimc.commands.console import say
    from cimc.xla_cache import clear_cache, xla_cache

    files, size = clear_cache()
    found = {"folder": str(xla_cache()), "removed_files": files, "removed_bytes": size}
    emit(found, lambda: say(f"removed {files} files, {megabytes(size)}, from {xla_cache()}"), as_json=as_json)


def figures() -> dict[str, Any]:
    """JSON of `cache`."""
    from cimc.xla_cache import cache_limit, cached_files, xla_cache

    files = cached_files()
    size = sum(file.size for file in files)
    return {"folder": str(xla_cache()), "files": len(files), "bytes": size, "limit_bytes": cache_limit()}


def texts(found: dict[str, Any]) -> dict[str, str]:
    """The figures as texts."""
    return {
        "folder": found["folder"],
        "compiled functions": f"{found['files']:,}",
        "size": f"{megabytes(found['bytes'])} of {megabytes(found['limit_bytes'])}",
    }


def megabytes(size: int) -> str:
    """Bytes in MB of 2^20."""
    return f"{size / 2**20:,.1f} MB"


def _show(found: dict[str, Any]) -> None:
    from cimc.commands.console import print_figures

    print_figures("compilation cache", texts(found), "largest size: $CIMC_CACHE_MB")
