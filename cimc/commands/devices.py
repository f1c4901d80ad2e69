"""`cimc devices`: a list, a description, a drawing, a fit; `cimc devices NAME` is `cimc devices show NAME`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cimc.commands.options import Json, Seed, emit

if TYPE_CHECKING:
    from cimc.api.fit_device import FittedDevice
    from cimc.device_file import DeviceFile


class _ShowsByName(TyperGroup):
    """A group whose first argument may be a device in place of a command, and that lists where there is none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] not in ([name] for name in (*self.commands, "-h", "--help")):
            named = bool(args) and not args[0].startswith("-")
            args = ["show" if named else "list", *args]
        return super().parse_args(ctx, args)


devices = typer.Typer(
    name="devices",
    cls=_ShowsByName,
    help="List the devices, print one (`cimc devices NAME`), draw what one does, fit one to measurements.\n\n"
    "Example: cimc devices soft-bounds-10 > mydevice.toml; cimc devices plot mydevice.toml -o device.png",
    rich_markup_mode="rich",
)


@devices.command("list")
def list_devices(as_json: Json = False) -> None:
    """List the devices.

    Example: cimc devices
    """
    from cimc.device_file import device_names, load_device

    described = {name: load_device(name) for name in device_names()}
    figures = {name: device.model_dump() for name, device in described.items()}
    emit(figures, lambda: _show_list(described), as_json=as_json)


@devices.command()
def show(
    name: Annotated[str, typer.Argument(help="Device, or path of its TOML file.")],
    as_json: Json = False,
) -> None:
    """Print a description with its sources, as a start for your own; `cimc devices NAME` does the same.

    Example: cimc devices soft-bounds-10 > mydevice.toml
    """
    from cimc.device_file import device_text, load_device

    if as_json:
        typer.echo(json.dumps(load_device(name).model_dump(), allow_nan=False))
    else:
        typer.echo(device_text(name), nl=False)


@devices.command()
def plot(
    name: Annotated[str, typer.Argument(help="Device, or path of its TOML file.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Picture to write: PNG, PDF or SVG.")] = None,
    count: Annotated[int, typer.Option("--devices", help="Devices that are pulsed.", min=2)] = 100,
    cycles: Annotated[int, typer.Option(help="Up and down through the window.", min=1)] = 3,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Simulate a device: pulse response, errors of writes and reads, drift; drawn here and as a picture.

    Example: cimc devices plot soft-bounds-10 -o device.png
    """
    import cimc

    figures = cimc.plot_device(name, output, devices=count, cycles=cycles, seed=seed)
    emit(figures, lambda: _show_plot(figures, output), as_json=as_json)


@devices.command()
def fit(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="CSV of pulse trains (device, pulse, direction or voltage_V, conductance_uS or current_uA, ...), of "
            "retention (device, time_s, conductance_uS, ...), or one of each."
        ),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Device file to write.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the device. Default: the first file's.")] = None,
    read_voltage: Annotated[
        float | None, typer.Option(metavar="V", help="Voltage of the reads, which currents need.")
    ] = None,
    up_only: Annotated[bool, typer.Option("--up-only", help="The device has no RESET pulses.")] = False,
    picture: Annotated[
        Path | None, typer.Option("--plot", help="Picture of measured and fitted trains to write: PNG, PDF or SVG.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit pulse laws and drift to measurements; the law is chosen by how it predicts devices it has not seen.

    Example: cimc devices fit trains.csv -o device.toml --plot fit.png
    """
    import cimc

    fitted = cimc.fit_device(
        data, output, name=name, read_voltage_V=read_voltage, up_only=up_only, picture=picture, seed=seed
    )
    emit(fit_figures(fitted), lambda: _show_fit(fitted, output, picture), as_json=as_json)


def fit_figures(fitted: "FittedDevice") -> dict[str, Any]:
    """JSON of `fit`."""
    from dataclasses import asdict

    return {
        "device": fitted.device.model_dump(),
        "pulses": None if fitted.pulses is None else asdict(fitted.pulses),
        "drift": None if fitted.drift is None else asdict(fitted.drift),
    }


def _show_list(described: Mapping[str, "DeviceFile"]) -> None:
    """A row a device."""
    from cimc.commands.console import print_table

    rows = [[name, device.description, *_summary(device)] for name, device in described.items()]
    head = ["name", "description", "law", "window uS", "states", "write sd uS", "drift", "stuck"]
    caption = "states: window / step of a pulse; write sd: the largest in the window"
    print_table("devices", head, rows, caption, texts=("description",))


def _summary(device: "DeviceFile") -> list[str]:
    """Law, window, states, error of a write, drift and faults in a few words each."""
    pulse, drift = device.pulse, device.drift
    time = [name for name in ("relaxation", "retention", "leak") if getattr(device, name) is not None]
    if drift is not None:
        time.insert(0, "power law")
    return [
        "-" if pulse is None else pulse.law_name,
        f"{device.conductance_min_uS:.4g} to {device.conductance_max_uS:.4g}",
        "-" if pulse is None else f"{device.window_uS / pulse.step_uS:.4g}",
        f"{device.largest_error_sd_uS:.3g}",
        ", ".join(time) or "-",
        "-" if device.faults is None else f"{device.faults.share:.3g}",
    ]


def _show_plot(figures: Mapping[str, Any], output: Path | None) -> None:
    from cimc.commands.console import say
    from cimc.report.text_plot import text_plot

    say(f"{figures['device']}: {figures['description']}")
    if (pulses := figures["pulses"]) is not None:
        say(f"conductance (uS) over pulses, {pulses['law']}: mean, 5 and 95 % of devices and cycles")
        _say_all(text_plot(pulses["number"], [pulses[key] for key in ("mean_uS", "p5_uS", "p95_uS")]))
    errors = figures["errors"]
    say("sd (uS) of writes, and of a single read, over the target (uS)")
    _say_all(text_plot(errors["conductance_uS"], [errors["write_sd_uS"], errors["read_sd_uS"]], height=6))
    if (time := figures["time"]) is not None:
        say("conductance (uS) over seconds after the write (logarithmic): mean, 5 and 95 % at three targets")
        curves = [state[key] for state in time["states"] for key in ("mean_uS", "p5_uS", "p95_uS")]
        _say_all(text_plot(time["time_s"], curves, logarithmic=True))
    if output is not None:
        say(f"wrote {output}")


def _say_all(lines: Sequence[str]) -> None:
    from cimc.commands.console import say

    for line in lines:
        say(line)


def _show_fit(fitted: "FittedDevice", output: Path | None, picture: Path | None) -> None:
    from cimc.commands.console import print_table, say

    pulses, drift = fitted.pulses, fitted.drift
    if pulses is not None:
        scores = sorted(pulses.scores.items(), key=lambda item: item[1][0])
        rows = [
            [f"{law}{' (taken)' if law == pulses.law else ''}", f"{score:.4g}", f"{error:.2g}"]
            for law, (score, error) in scores
        ]
        caption = (
            "squared error of one-step predictions on devices held out, in squares of the residual sd; of laws that "
            "predict alike the simplest is taken"
        )
        print_table("laws", ["law", "error", "standard error"], rows, caption=caption)
        rows = [[key, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}"] for key, one in pulses.figures.items()]
        print_table(
            f"{pulses.law}, c2c as a fraction of the {pulses.settings['c2c_of']}",
            ["key", "value", "95 % confidence"],
            rows,
            caption=f"residual sd of single steps: {pulses.residual_sd_uS:.3g} uS",
        )
        say(
            f"{pulses.devices} devices, {pulses.steps} steps; left out: {pulses.outliers} outliers, {pulses.stuck} "
            f"devices that do not answer pulses"
        )
    if drift is not None:
        rows = [
            [key, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}"]
            for key, one in (("mean exponent", drift.exponent), ("sd of the exponent", drift.exponent_sd))
        ]
        caption = (
            f"{drift.devices} devices, {drift.readings} readings from {drift.start_s:.4g} s on; residual sd "
            f"{drift.residual:.2%} of the conductance"
        )
        print_table("drift", ["figure", "value", "95 % confidence"], rows, caption=caption)
    if picture is not None:
        say(f"wrote {picture}")
    if output is not None:
        say(f"wrote {output}; next: cimc devices plot {output} -o device.png, or compile with --device {output}")
        say(fitted.not_stated)
