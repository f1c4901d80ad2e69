"""`cimc chips`. The tables of `--explain` are those of `explain_table`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from cimc.commands.options import Json, emit

if TYPE_CHECKING:
    from cimc.chip import Chip


def chips(
    name: Annotated[str | None, typer.Argument(help="Print the description with its sources; or a TOML file.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Errors, steps, ADC range, MVM energy.")] = False,
    as_json: Json = False,
) -> None:
    """List the chips, print one as a start for your own, or explain what follows from a description.

    Example: cimc chips brram-soc > mychip.toml; cimc chips mychip.toml --explain
    """
    from cimc.chip import chip_names, chip_text, load_chip

    if name is not None and not as_json and not explain:
        typer.echo(chip_text(name), nl=False)
        return
    described = {chip: load_chip(chip) for chip in ([name] if name else chip_names())}
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
