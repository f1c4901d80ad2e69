"""`cimc chips`. The tables of `--explain` are those of `explain_table`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from cimc.commands.options import DeviceName, Json, emit, parse_settings

if TYPE_CHECKING:
    from cimc.chip import Chip


def chips(
    name: Annotated[str | None, typer.Argument(help="Print the description with its sources; or a TOML file.")] = None,
    device: DeviceName = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY.PATH=VALUE", help="A value of the description, such as adc.bits=6; repeatable."
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Errors, steps, ADC range, MVM energy.")] = False,
    as_json: Json = False,
) -> None:
    """List the chips, print one as a start for your own, or explain what follows from a description.

    Example: cimc chips brram-soc > mychip.toml; cimc chips mychip.toml --explain

    Example: cimc chips hermes --device soft-bounds-10 --set adc.bits=6 > mychip.toml
    """
    from cimc.chip import chip_names, chip_text, load_chip

    changes = parse_settings(settings)
    changed = device is not None or bool(changes)
    if name is None and changed:
        raise typer.BadParameter("--device and --set change a chip; name it")
    if name is not None and not as_json and not explain:
        if changed:
            from cimc.api.sources import chip_of

            typer.echo(chip_of(name, device, settings=changes)[1], nl=False)
        else:
            typer.echo(chip_text(name), nl=False)
        return
    described = {chip: load_chip(chip, device, settings=changes) for chip in ([name] if name else chip_names())}
    if explain:
        import cimc
        from cimc.commands.explain_table import show_explanations

        figures = {chip: cimc.explain(description) for chip, description in described.items()}
        emit(figures, lambda: show_explanations(figures), as_json=as_json)
    else:
        figures = {chip: description.model_dump() for chip, description in described.items()}
        emit(figures, lambda: show(described), as_json=as_json)


def show(described: Mapping[str, "Chip"]) -> None:
    """A row a chip."""
    from cimc.commands.console import print_table

    rows = []
    for name, chip in described.items():
        adc = "ideal" if chip.adc.bits is None else f"{chip.adc.bits} bit"
        dac = "ideal" if chip.input.bits is None else f"{chip.input.bits} bit"
        programmable = chip.cell.programmable_uS
        levels = "any" if programmable is None else str(len(programmable))
        array = f"{chip.array.rows} x {chip.array.columns}"
        rows.append([name, chip.description, array, str(chip.array.per_chip), levels, f"{dac} / {adc}"])
    print_table("chips", ["name", "description", "array", "arrays", "levels", "DAC / ADC"], rows)
