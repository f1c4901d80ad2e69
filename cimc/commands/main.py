"""The command line. Heavy modules are imported by the command that needs them, so that --help answers at once."""

import gc
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.errors import CimcError
from cimc.options import (
    Backward,
    Method,
    Objective,
    Reset,
    Residual,
    RowSplit,
    Schedule,
    Sync,
    Weights,
    Write,
    parse_range,
)
from cimc.version import __version__

if TYPE_CHECKING:
    from cimc.dataset import Dataset

app = typer.Typer(
    name="cimc",
    help="From an ONNX network to trained conductances on a compute-in-memory chip.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Data = Annotated[str, typer.Option("--data", help="mnist, fashion-mnist, cifar10, digits, or a FILE.npz.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the data lies; else $CIMC_DATA, else the user's cache.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"cimc {__version__}")
        raise typer.Exit


@app.command()
def compile(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    chip: Annotated[str, typer.Option(help="Chip name (see `cimc chips`) or path of a TOML file.")] = "brram-256x64",
    output: Annotated[Path | None, typer.Option("-o", "--output", help=".cim file to write.")] = None,
    input_range: Annotated[
        str, typer.Option(help="Least and greatest input value; a negative one takes a second read phase.")
    ] = "0,1",
    max_chips: Annotated[int | None, typer.Option(help="Refuse a network that needs more chips.", min=1)] = None,
    row_split: Annotated[RowSplit | None, typer.Option(help="In place of the chip's own rule.")] = None,
    objective: Annotated[
        Objective | None, typer.Option(help="What copies and packing are for. Default: one copy, one block an array.")
    ] = None,
    arrays: Annotated[int | None, typer.Option(help="Budget of the objective. Default: one chip.", min=1)] = None,
    seed: Seed = 0,
    shape: Annotated[
        list[str] | None, typer.Option(help="Sizes of an input, such as input=1x3x224x224 or tokens=Nx128; repeatable.")
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Compare with onnxruntime on random inputs; default: up to 1 GiB."),
    ] = None,
    verify_each: Annotated[
        bool, typer.Option("--verify-each", help="Compare after every network pass; name the first that errs.")
    ] = False,
    save_passes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the network after every pass, to be opened in a viewer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lower an ONNX network to crossbar layers, map it on a chip, verify it, and count its cost.

    Example: cimc compile models/lenet1.onnx --chip brram-soc -o lenet1.cim
    """
    from cimc.api.compile import compile_model
    from cimc.commands import views
    from passes.set_shapes import parse_shape

    # A network is many objects that live to the end: looking for dead ones again and again takes a fifth of the time.
    gc.set_threshold(100_000, 20, 20)
    compiled = compile_model(
        model,
        chip,
        output,
        parse_range(input_range),
        max_chips,
        row_split.value if row_split else None,
        verify,
        dict(parse_shape(text) for text in shape or ()),
        verify_each,
        save_passes,
        objective.value if objective else None,
        arrays,
        seed,
    )
    _emit(as_json, views.compiled_figures(compiled), lambda: views.show_compiled(compiled, output))


@app.command()
def train(
    artifact: Annotated[Path, typer.Argument(help="Compiled .cim file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Trained .cim file; holds checkpoints meanwhile.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    steps_per_epoch: Annotated[int | None, typer.Option(min=1, help="Default: the whole training set.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    lr: Annotated[
        float,
        typer.Option(
            min=0, callback=_finite, help="For He's initial weights; other layers' steps follow their weights."
        ),
    ] = 0.005,
    schedule: Annotated[Schedule, typer.Option(help="Course of the learning rate.")] = Schedule.cosine,
    weight_decay: Annotated[
        float, typer.Option(min=0, callback=_finite, help="Decoupled, on crossbar weights.")
    ] = 0.01,
    method: Annotated[
        Method, typer.Option(help="naive programs every step; float trains the same network without arrays.")
    ] = Method.mixed_precision,
    threshold: Annotated[
        float | None,
        typer.Option(help="Fraction of the weight range. Default: the device's granularity."),
    ] = None,
    residual: Annotated[
        Residual, typer.Option(help="What a write left undone: keep it in the accumulator, or drop it.")
    ] = Residual.keep,
    reset: Annotated[Reset | None, typer.Option(hidden=True, help="Earlier name of --residual.")] = None,
    write: Annotated[Write, typer.Option(help="Closed-loop write-verify or blind pulses.")] = Write.verify,
    backward: Annotated[Backward, typer.Option(help="Input gradients: digital copy or transposed read.")] = (
        Backward.digital
    ),
    sync: Annotated[Sync, typer.Option(help="Digital copy after a write.")] = Sync.readback,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in OUTPUT, if any.")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, callback=_finite, help="Between checkpoints within an epoch.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Train a compiled network on its arrays: analog forward pass, digital accumulation, devices written when due.

    Example: cimc train lenet1.cim --data mnist --epochs 13 --steps-per-epoch 400 --lr 0.004 -o trained.cim
    """
    import cimc
    from cimc.commands import views
    from cimc.commands.console import progress_bar
    from runtime.training.options import TrainingOptions
    from runtime.training.update import Policy

    kept = residual if reset is None else Residual.drop if reset is Reset.zero else Residual.keep
    options = TrainingOptions(
        policy=Policy(method.value, threshold, kept.value, write.value, backward.value, sync.value),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule.value,
        weight_decay=weight_decay,
        seed=seed,
    )
    dataset = _load(data, data_dir)
    with progress_bar("train") as bar:
        show: Any = lambda run, total: bar(run.step, total, views.epoch_note(run.history))  # noqa: E731
        run, figures = cimc.train(artifact, dataset, options, output, resume, checkpoint_seconds, show)
    _emit(as_json, figures, lambda: views.show_training(run.history, figures, dataset, output))


@app.command(name="eval")
def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Compiled or trained .cim file.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    exact: Annotated[bool, typer.Option("--exact", help="Float32 products, no arrays.")] = False,
    noise: Annotated[bool, typer.Option(help="Read and ADC noise.")] = True,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a network on its arrays, on the test set.

    Example: cimc eval trained.cim --data mnist
    """
    import cimc
    from cimc.commands import views
    from cimc.commands.console import progress_bar

    dataset = _load(data, data_dir)
    with progress_bar("eval") as bar:
        figures = cimc.evaluate(artifact, dataset, exact, noise, seed, lambda done, total: bar(done, total, ""))
    _emit(as_json, figures, lambda: views.show_evaluation(figures, dataset))


@app.command()
def export(
    artifact: Annotated[Path, typer.Argument(help="Trained .cim file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Package folder to write.")],
    chip: Annotated[str | None, typer.Option(help="Inference chip. Default: the one it was compiled for.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Set input ranges on this data, not on the images kept from training.")
    ] = None,
    data_dir: DataDir = None,
    weights: Annotated[
        Weights, typer.Option(help="What the trained devices hold (mean of 16 reads), or their digital copy.")
    ] = Weights.devices,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write the package for an inference chip: target conductances, addresses, digital values, chip-exact ONNX.

    Example: cimc export trained.cim --chip brram-256x64 -o package/
    """
    import cimc
    from cimc.commands import views

    dataset = None if data is None else _load(data, data_dir)
    package = cimc.export(artifact, chip, output, dataset, weights.value, seed)
    _emit(as_json, views.package_figures(package, output), lambda: views.show_package(package, output))


@app.command()
def deploy(
    package: Annotated[Path, typer.Argument(help="Package folder.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    chips: Annotated[int, typer.Option(min=1, help="Virtual chips to program.")] = 20,
    required: Annotated[
        float, typer.Option(min=0, callback=_finite, help="Normalised accuracy of a good chip, for the yield.")
    ] = 0.99,
    baseline: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            callback=_finite,
            help="Accuracy to normalise by. Default: the package's weights in float32.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Program virtual chips with a package and measure their accuracy and yield, on the test set.

    Example: cimc deploy package/ --data mnist --chips 100
    """
    import cimc
    from cimc.commands import views
    from cimc.commands.console import progress_bar
    from runtime.deployment.deploy import summary

    dataset = _load(data, data_dir)
    with progress_bar("deploy") as bar:
        result = cimc.deploy(
            package, dataset, chips, seed, required, baseline, lambda done, total: bar(done, total, "")
        )
    _emit(as_json, summary(result), lambda: views.show_deployment(result, dataset))


@app.command()
def inspect(artifact: Annotated[Path, typer.Argument(help=".cim file.")], as_json: Json = False) -> None:
    """Show how a .cim file lies on its chip: layers, arrays, copies, time, energy, bound, critical path.

    Example: cimc inspect lenet1.cim
    """
    from cimc.artifact import read_artifact
    from cimc.commands import mapping_table

    contents = read_artifact(artifact)
    _emit(as_json, mapping_table.figures(contents), lambda: mapping_table.show(contents))


@app.command()
def report(
    artifact: Annotated[Path, typer.Argument(help="Compiled or trained .cim file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page to write.")],
    as_json: Json = False,
) -> None:
    """Write one self-contained page: network, array floor plan, pipeline, cost, conductance histograms.

    Example: cimc report lenet1.cim -o report.html
    """
    from cimc.artifact import read_artifact
    from cimc.commands.console import say
    from cimc.files import require_different
    from cimc.report.page import write_report

    require_different(artifact, output)
    contents = read_artifact(artifact)
    write_report(contents, output)
    figures = {"model": contents.model, "chip": contents.chip.name, "report": str(output)}
    _emit(as_json, figures, lambda: say(f"wrote {output}; open it in a browser"))


@app.command()
def chips(
    name: Annotated[str | None, typer.Argument(help="Print the description with its sources; or a TOML file.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Errors, steps, ADC range, MVM energy.")] = False,
    as_json: Json = False,
) -> None:
    """List the chips, print one as a start for your own, or explain what follows from a description.

    Example: cimc chips brram-soc > mychip.toml; cimc chips mychip.toml --explain
    """
    from cimc.chip import chip_names, chip_text, load_chip
    from cimc.commands import views

    if name is not None and not as_json and not explain:
        typer.echo(chip_text(name), nl=False)
        return
    described = {chip: load_chip(chip) for chip in ([name] if name else chip_names())}
    _emit(as_json, views.chip_figures(described, explain), lambda: views.show_chips(described, explain))


@app.command()
def ops(as_json: Json = False) -> None:
    """List the operators of ONNX that run here: on crossbars or digitally, trainable or not, standard cases passed.

    All others run in onnxruntime, node by node, where their sizes are static; they pass no gradient.

    Example: cimc ops --json
    """
    from dataclasses import asdict

    from cimc.commands import views
    from cimc.operators import OPERATORS

    _emit(as_json, {name: asdict(operator) for name, operator in OPERATORS.items()}, views.show_operators)


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files and pictures.")] = Path(
        "quickstart"
    ),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Walk the whole road in half a minute: compile, train, export and deploy LeNet-1 on synthetic digits.

    Example: cimc quickstart
    """
    from cimc.commands import quickstart as road

    figures = road.quickstart(output, seed, quiet=as_json)
    _emit(as_json, figures, lambda: road.show(figures))


def main() -> None:
    """Entry point: a problem of the user's is one line on stderr and exit status 1."""
    try:
        app()
    except CimcError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output has gone (`cimc ... | head`): nothing to report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if os.environ.get("CIMC_TRACEBACK"):
            raise
        detail = str(error).strip().partition("\n")[0]
        _fail(f"internal error ({type(error).__name__}: {detail:.200}); set CIMC_TRACEBACK=1 and report what it shows")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _emit(as_json: bool, figures: dict[str, Any], show: Any) -> None:
    if as_json:
        typer.echo(json.dumps(figures, allow_nan=False))
    else:
        show()


def _load(name: str, folder: Path | None) -> "Dataset":
    from cimc.data.load import load

    return load(name, folder)
