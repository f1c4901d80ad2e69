"""What can be done after each network pass: check that the answer is still the same, or keep the network as a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir

from cimc.errors import CimcError
from cimc.files import replacing
from cimc.operators import CROSSBAR_DOMAIN
from passes.crossbar_functions import AddCrossbarFunctions
from passes.judge import disagreement, sensitivity_of
from passes.verify import Feeds, digest, run

# (number and name of the pass, the network after it)
Watch = Callable[[int, str, ir.Model], None]


def verify_each(reference: ir.Model, feeds: Feeds) -> Watch:
    """A watch that runs the network in onnxruntime and refuses the first pass that changes its outputs.

    A network that is byte for byte the one after the pass before is not run again.

    Raises:
        CimcError: naming the pass.
    """
    expected = run(reference, feeds)
    sensitivity = sensitivity_of(reference, feeds, expected)
    before = b""

    def check(number: int, name: str, model: ir.Model) -> None:
        nonlocal before
        runnable = _runnable(model)
        now = digest(runnable)
        if now == before:
            return
        before = now
        try:
            wrong = disagreement(reference, expected, run(runnable, feeds), sensitivity)
        except CimcError as error:
            raise CimcError(f"after the pass {name} the network no longer runs: {error}") from None
        if wrong is not None:
            raise CimcError(f"the pass {name} changes the outputs by {wrong}; report this as a fault, with the network")

    return check


def save_passes(folder: Path) -> Watch:
    """A watch that writes `NN-PassName.onnx` after each pass into a folder; any ONNX runtime and viewer opens them.

    Raises:
        CimcError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CimcError(f"cannot make the folder {folder}: {error.strerror or error}; choose another") from None

    def save(number: int, name: str, model: ir.Model) -> None:
        with replacing(folder / f"{number:02d}-{name}.onnx") as temporary:
            ir.save(_runnable(model), temporary)

    return save


def all_of(watches: Sequence[Watch]) -> Watch:
    """One watch that does what several do, in order."""

    def watch(number: int, name: str, model: ir.Model) -> None:
        for one in watches:
            one(number, name, model)

    return watch


def _runnable(model: ir.Model) -> ir.Model:
    """The network with the bodies of its crossbar operators, which the pipeline adds last."""
    if any(node.domain == CROSSBAR_DOMAIN for node in model.graph.all_nodes()) and not model.functions:
        return AddCrossbarFunctions()(model.clone()).model
    return model
