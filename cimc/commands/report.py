"""`cimc report`."""

from pathlib import Path
from typing import Annotated

import typer

from cimc.commands.options import Json, emit


def report(
    artifact: Annotated[Path, typer.Argument(help="Compiled or trained .cim file, a package or a sweep folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page to write.")],
    deployed: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Of a package: what cimc deploy --json printed; repeatable, to compare."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained page: training, network, array floor plan, pipeline, cost, conductance histograms.

    Of a package: how it agrees with float32, what each of its layers loses (export --layers), its virtual chips, and
    the faults of its die. Every figure can be saved as SVG, and its numbers as CSV.

    Example: cimc report lenet1.cim -o report.html
    """
    from cimc.artifact import read_artifact
    from cimc.commands.console import say
    from cimc.errors import CimcError
    from cimc.package import Package, read_package
    from cimc.report.html import write_page
    from cimc.report.package_page import package_report
    from cimc.report.page import report as artifact_report
    from cimc.report.read_deployments import read_deployments
    from cimc.report.sweep import sweep_report
    from cimc.sweep_results import is_sweep, read_rows

    if is_sweep(artifact):
        if not read_rows(artifact):
            raise CimcError(f"the sweep in {artifact} has no rows yet; go on with its command")
        write_page(sweep_report(artifact), output)
        emit({"report": str(output)}, lambda: say(f"wrote {output}; open it in a browser"), as_json=as_json)
        return
    contents = read_package(artifact) if artifact.is_dir() else read_artifact(artifact)
    if isinstance(contents, Package):
        page = package_report(contents, read_deployments(deployed or [], (contents.model, contents.chip.name)))
    elif deployed:
        raise CimcError(f"--deployed goes with a package folder, and {artifact} is a .cim file")
    else:
        page = artifact_report(contents)
    write_page(page, output)
    figures = {"model": contents.model, "chip": contents.chip.name, "report": str(output)}
    emit(figures, lambda: say(f"wrote {output}; open it in a browser"), as_json=as_json)
