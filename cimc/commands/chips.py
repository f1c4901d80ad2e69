"""`cimc chips`. The tables of `--explain` are those of `explain_table`, that of `--compare` of `compare_chips`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import DeviceName, Json, complete_chip, emit, parse_settings

if TYPE_CHECKING:
    from cimc.chip import Chip


def chips(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Print the description with its sources; or a TOML file. Several with --explain or --compare.",
            autocompletion=complete_chip,
        ),
    ] = None,
    device: DeviceName = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY.PATH=VALUE", help="A value of the description, such as adc.bits=6; repeatable."
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Errors, steps, ADC range, MVM energy.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Map --model on each chip: arrays, area, time, energy, TOPS/W.")
    ] = False,
    model: Annotated[Path | None, typer.Option(metavar="FILE", help="ONNX network of --compare.")] = None,
    as_json: Json = False,
) -> None:
    """List the chips, print one as a start for your own, or explain what follows from a description.

    Example: cimc chips brram-soc > mychip.toml; cimc chips mychip.toml --explain

    Example: cimc chips hermes --device soft-bounds-10 --set adc.bits=6 > mychip.toml

    Example: cimc chips --compare isaac puma hermes --model lenet1.onnx
    """
    from cimc.chip import chip_names, chip_text, load_chip

    changes = parse_settings(settings)
    changed = device is not None or bool(changes)
    chosen = list(dict.fromkeys(names or ()))
    if compare != (model is not None):
        raise typer.BadParameter("--compare and --model go together: the network that is put on each chip")
    if compare:
        _compare(model, chosen, device, changes, as_json=as_json)
        return
    if not chosen and changed:
        raise typer.BadParameter("--device and --set change a chip; name it")
    if len(chosen) > 1 and not (as_json or explain):
        raise typer.BadParameter("one chip is printed at a time; add --explain, --json or --compare")
    if chosen and not as_json and not explain:
        name = chosen[0]
        if changed:
            from cimc.api.sources import chip_of

            typer.echo(chip_of(name, device, settings=changes)[1], nl=False)
        else:
            typer.echo(chip_text(name), nl=False)
        return
    described = {chip: load_chip(chip, device, settings=changes) for chip in (chosen or chip_names())}
    if explain:
        import cimc
        from cimc.commands.explain_table import show_explanations

        figures = {chip: cimc.explain(description) for chip, description in described.items()}
        emit(figures, lambda: show_explanations(figures), as_json=as_json)
    else:
        figures = {chip: description.model_dump() for chip, description in described.items()}
        emit(figures, lambda: show(described), as_json=as_json)


def _compare(model: Path | None, chosen: list[str], device: str | None, changes: Any, *, as_json: bool) -> None:
    from cimc.chip import chip_names
    from cimc.commands import compare_chips

    assert model is not None
    if changes:
        raise typer.BadParameter("--set and --compare do not go together; write the chip with --set into a file first")
    compared = compare_chips.compare_chips(model, chosen or chip_names(), device)
    emit(compared, lambda: compare_chips.show(compared), as_json=as_json)


def show(described: Mapping[str, "Chip"]) -> None:
    """A row a chip."""
    from cimc.commands.console import print_table

    rows = []
    for name, chip in described.items():
        adc, dac = ("ideal" if bits is None else str(bits) for bits in (chip.adc.bits, chip.input.bits))
        programmable = chip.cell.programmable_uS
        levels = "any" if programmable is None else str(len(programmable))
        arrays = " + ".join(str(array.per_chip) for array in chip.sizes.values())
        size = " + ".join(f"{array.rows} x {array.columns}" for array in chip.sizes.values())
        rows.append([name, chip.description, size, arrays, levels, f"{dac} / {adc}"])
    head = ["name", "description", "array", "arrays", "levels", "bits, DAC / ADC"]
    print_table("chips", head, rows, texts=("description",))
