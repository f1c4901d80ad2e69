"""The settings that were tried for a target, as a table."""

from typing import TYPE_CHECKING, Any

from cimc.commands.console import print_table

if TYPE_CHECKING:
    from cimc.api.choose_layout import LayoutChoice, Measured


def figures(choice: "LayoutChoice | None") -> dict[str, Any]:
    """JSON key of `compile` with a target: `layout_choice`, with every setting."""
    return {} if choice is None else {"layout_choice": choice.figures}


def show(choice: "LayoutChoice | None") -> None:
    """Every setting with its cost, and how it agrees with float32; the one that is taken is marked."""
    if choice is None:
        return
    rows = [
        [
            f"{setting}{' (taken)' if setting is choice.chosen else ''}",
            f"{setting.mapping.cost.crossbars}",
            f"{setting.mapping.latency_ms:.4g}",
            f"{setting.mapping.cost.spent_mj:.3g}",
            *_texts(setting.noise_on),
            *_texts(setting.noise_off),
        ]
        for setting in choice.settings
    ]
    not_measured = any(setting.noise_on is None for setting in choice.settings)
    print_table(
        f"settings for {choice.target}, on {choice.samples} samples",
        ["setting", "arrays", "ms", "mJ", "agreement", "SNR, dB", "without noise", "SNR, dB"],
        rows,
        "on one virtual chip with its noise, of the output that has least; all on arrays first, by mJ, then arrays"
        + ("; -: not measured, because one before is enough (--curve measures all)" if not_measured else ""),
    )


def _texts(measured: "Measured | None") -> list[str]:
    if measured is None:
        return ["-", "-"]
    return ["no entries" if measured.agreement is None else f"{measured.agreement:.1%}", f"{measured.snr_db:.1f}"]
