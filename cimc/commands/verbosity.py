"""--quiet and --verbose: how much is said beside results. Both may stand anywhere on the command line."""

import sys
from typing import Any

from typer.core import TyperGroup

from cimc.commands.console import Detail, inform, set_detail

ANYWHERE = ("--quiet", "-q", "--verbose", "-v")
LEAST_SECONDS = 0.1  # of a compilation that is told of


class TakesVerbosity(TyperGroup):
    """A group whose options `ANYWHERE` may also stand behind the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options of the group come first, wherever they stood."""
        own = args[: args.index("--")] if "--" in args else args
        moved = [word for word in own if word in ANYWHERE]
        return super().parse_args(ctx, [*moved, *(word for word in own if word not in ANYWHERE), *args[len(own) :]])


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """From now on results and errors alone are printed, or also where caches are and what is compiled how long."""
    set_detail(Detail.quiet if quiet else Detail.verbose if verbose else Detail.usual)
    if verbose:
        _tell_of_places()
        _tell_of_compilations()


def _tell_of_places() -> None:
    from cimc.data.load import places
    from cimc.version import __version__
    from cimc.xla_cache import xla_cache

    inform(f"cimc {__version__}, Python {sys.version.split()[0]}", detail=Detail.verbose)
    inform(f"compilation cache: {xla_cache()}", detail=Detail.verbose)
    inform(f"data sets are looked for in: {', '.join(map(str, places()))}", detail=Detail.verbose)


def _tell_of_compilations() -> None:
    from jax import monitoring

    cached = [False]

    def hit(event: str, **about: Any) -> None:
        cached[0] |= event == "/jax/compilation_cache/cache_hits"

    def compiled(event: str, duration_secs: float, **about: str | int) -> None:
        if event != "/jax/core/compile/backend_compile_duration":
            return
        if duration_secs >= LEAST_SECONDS or cached[0]:
            what = about.get("fun_name", "a function")
            how = "read from the cache" if cached[0] else "compiled"
            inform(f"{what}: {how} in {duration_secs:.2f} s", detail=Detail.verbose)
        cached[0] = False

    monitoring.register_event_listener(hit)
    monitoring.register_event_duration_secs_listener(compiled)
