"""The command line: the commands in their order, and how errors end. Each command is a file of its name.

A command imports what is heavy when it is called, so that --help answers at once.
"""

import errno
import os
import sys
import warnings
from typing import Annotated

import typer

from cimc.commands.cache import cache
from cimc.commands.chips import chips
from cimc.commands.compare import compare
from cimc.commands.compile import compile
from cimc.commands.data import data
from cimc.commands.deploy import deploy
from cimc.commands.devices import devices
from cimc.commands.doctor import doctor
from cimc.commands.evaluate import evaluate
from cimc.commands.export import export
from cimc.commands.inspect import inspect
from cimc.commands.keeps_inputs import KeepsInputs
from cimc.commands.measure import measure
from cimc.commands.ops import ops
from cimc.commands.quickstart import quickstart
from cimc.commands.report import report
from cimc.commands.sweep import sweep
from cimc.commands.train import train
from cimc.commands.tune import tune
from cimc.commands.verbosity import TakesVerbosity, set_verbosity
from cimc.commands.verify import verify
from cimc.commands.weights import weights
from cimc.errors import CimcError, printable
from cimc.version import __version__

# Before JAX is loaded: XLA writes alarms of its own (slow constant folding, slow compilation) between our lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

app = typer.Typer(
    name="cimc",
    cls=TakesVerbosity,
    help="From an ONNX network to trained conductances on a compute-in-memory chip.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Results, warnings and errors alone.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also where caches and data are, and what is compiled how long.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"cimc {__version__}")
        raise typer.Exit
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    set_verbosity(quiet=quiet, verbose=verbose)


# As the help lists them.
_ROAD, _LOOK, _LISTS, _MACHINE = "The road", "Looking at results", "What there is", "This machine"
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(quickstart)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(compile)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(train)
app.command("eval", rich_help_panel=_ROAD, cls=KeepsInputs)(evaluate)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(export)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(weights)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(deploy)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(tune)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(measure)
app.command(rich_help_panel=_ROAD, cls=KeepsInputs)(sweep)
app.command(rich_help_panel=_LOOK, cls=KeepsInputs)(inspect)
app.command(rich_help_panel=_LOOK, cls=KeepsInputs)(compare)
app.command(rich_help_panel=_LOOK, cls=KeepsInputs)(report)
app.command(rich_help_panel=_LOOK, cls=KeepsInputs)(verify)
app.command(rich_help_panel=_LISTS, cls=KeepsInputs)(chips)
app.add_typer(devices, rich_help_panel=_LISTS)
app.command(rich_help_panel=_LISTS, cls=KeepsInputs)(ops)
app.add_typer(data, rich_help_panel=_MACHINE)
app.add_typer(cache, rich_help_panel=_MACHINE)
app.command(rich_help_panel=_MACHINE, cls=KeepsInputs)(doctor)


def main() -> None:
    """Run the command: a problem of the user's is one line on stderr and exit status 1."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # Python's are for developers; ours are lines of our own
    try:
        app(prog_name="cimc")  # also of `python -m cimc`, whose completion else is for another name
    except CimcError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of our output has gone (`cimc ... | head`): nothing to report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except MemoryError as error:
        _fail(f"not enough memory ({str(error).strip():.120}); give smaller batches or inputs, or --memory where it is")
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # XLA's error for it
            _fail("not enough memory for the arrays of one step; give a smaller --batch-size, or --memory where it is")
        if isinstance(error, OSError) and (error.errno in _OF_THE_MACHINE or "temporary directory" in str(error)):
            where = "a temporary or cache file" if error.filename is None else printable(os.fsdecode(error.filename))
            _fail(f"cannot write {where}: {error.strerror}; free some space, or set TMPDIR or XDG_CACHE_HOME elsewhere")
        if os.environ.get("CIMC_TRACEBACK"):
            raise
        detail = str(error).strip().partition("\n")[0]
        _fail(f"internal error ({type(error).__name__}: {detail:.200}); set CIMC_TRACEBACK=1 and report what it shows")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)
