"""The tables of `cimc chips NAME --explain`."""

from collections.abc import Mapping
from typing import Any

from cimc.api.explain import TYPICAL
from cimc.commands.console import print_figures, print_table


def show_explanations(explained: Mapping[str, dict[str, Any]]) -> None:
    """The tables of `cimc chips NAME --explain`, of every chip."""
    for figures in explained.values():
        simulated = figures["not_simulated"]
        note = None if simulated is None else f"its products are not simulated ({simulated})"
        _show_programming(figures["chip"], figures["programming"], note)
        if figures["write_loop"] is not None:
            _show_write_loop(figures["write_loop"])
        _show_updates(figures["updates"])
        _show_converters(figures["converters"])
        _show_mvm(figures["mvm"])
        for kind, of_kind in figures.get("kinds", {}).items():
            arrays = f", arrays {kind} ({of_kind['rows']} x {of_kind['columns']})"
            _show_converters(of_kind["converters"], arrays)
            _show_mvm(of_kind["mvm"], arrays)


def _show_programming(chip: str, figures: dict[str, Any], note: str | None) -> None:
    rows = [
        [
            f"{s['state']:.0%}" + (" (idle)" if s["state"] == 0 else ""),
            f"{s['target_uS']:.4g}",
            f"{s['stated_mean_uS']:.3g} / {s['stated_sd_uS']:.3g}",
            f"{s['mean_uS']:.3g} / {s['sd_uS']:.3g}",
            f"{s['excess_kurtosis']:.2f}",
            f"{s['beyond_3_sd']:.2%}",
            f"{s['beyond_window']:.1%}",
            f"{s['accepted_first']:.1%}",
            f"{s['trials']:.2f}",
            f"{s['read_sd_uS']:.3g}",
        ]
        for s in figures["states"]
    ]
    headings = ["state", "target uS", "stated mean / sd uS", "left mean / sd uS", "excess kurtosis", "beyond 3 sd"]
    headings += ["beyond window", "accepted at once", "trials", "read sd uS"]
    print_table(f"{chip}: the error that a write leaves", headings, rows, note)
    tolerance, limits = figures["tolerance_uS"], figures["limits_uS"]
    print_figures(
        "a write",
        {
            "error of one trial, mean / sd": (
                "follows the state, as in the table"
                if figures["trial_error_sd_uS"] is None
                else f"{figures['trial_error_mean_uS']:.3g} / {figures['trial_error_sd_uS']:.3g} uS"
            ),
            "accepted within": "every trial" if tolerance is None else f"{tolerance:g} uS of the target",
            "trials at most": str(figures["trials_at_most"]),
            "limits": "none stated" if limits is None else f"clipped at {limits[0]:g} and {limits[1]:g} uS",
            "written devices beyond the window": f"{figures['beyond_window']:.1%} for normal weights, sd 1/3 range",
        },
        "targets lie in the window; a write ends where its error takes it, also beyond, but not beyond stated limits",
    )


def _show_write_loop(states: list[dict[str, float]]) -> None:
    rows = [
        [
            f"{s['state']:.0%}",
            f"{s['target_uS']:.4g}",
            f"{s['mean_uS']:.3g} / {s['sd_uS']:.3g}",
            f"{s['within_tolerance']:.1%}",
            f"{s['pulses']:.2f}",
            f"{s['reads']:.2f}",
        ]
        for s in states
    ]
    headings = ["state", "target uS", "left mean / sd uS", "within tolerance", "pulses", "reads"]
    note = "simulated, from G_min; a device that the reads place within tolerance may lie beyond it"
    print_table("write-verify by pulses and reads", headings, rows, note)


def _show_updates(figures: dict[str, Any]) -> None:
    levels = figures["levels"]
    spacing = "listed" if figures["levels_listed"] else "uniform in conductance"
    print_figures(
        "updates",
        {
            "levels": "any conductance (write-verify to an analog target)"
            if levels is None
            else f"{levels}, {spacing}",
            "granularity": (
                f"{figures['granularity_uS']:.4g} uS, {figures['granularity_of_window']:.2%} of the window "
                f"({figures['granularity_origin']})"
            ),
            "threshold by default": f"{figures['threshold_of_weight_range']:.4g} of the weight range",
        },
    )


def _show_converters(figures: dict[str, Any], arrays: str = "") -> None:
    step, lsb = figures["dac_step_of_input_range"], figures["adc_lsb_uA"]
    on, idle, clipped = (
        figures[key] for key in ("fully_on_cells_in_adc_range", "idle_column_of_adc_range", "clipped_conversions")
    )
    print_figures(
        f"converters{arrays}",
        {
            "DAC step": "ideal" if step is None else f"1/{1 / step:.0f} of the input range",
            "ADC range": ("-" if lsb is None else f"{figures['adc_range_uA']:.4g} uA ({figures['adc_range_origin']})"),
            "ADC LSB": "-" if lsb is None else f"{lsb:.4g} uA, {figures['adc_lsb_uS']:.4g} uS at the read voltage",
            "fully-on cells at full input that fill the ADC": "-" if on is None else f"{on:.4g}",
            "a full column of idle cells at full input": "-" if idle is None else f"{idle:.1%} of the ADC range",
            "clipped conversions for typical inputs": "-" if clipped is None else f"{clipped:.2%}",
        },
        f"typical: {TYPICAL}" if clipped is not None else None,
    )


def _show_mvm(figures: dict[str, Any], of_kind: str = "") -> None:
    parts = {"ADC": "adc_nj", "shift-add": "shift_add_nj", "DAC": "dac_nj", "array": "array_nj"}
    lines = {f"energy, {name}": figures[key] for name, key in parts.items()}
    stated = any(value is not None for value in lines.values())
    arrays, phases = figures["physical_arrays"], figures["phases_of_signed_inputs"]
    print_figures(
        f"one MVM of one full physical array{of_kind}",
        {
            "time": f"{figures['time_us']:.4g} us",
            "energy": f"{figures['energy_nj']:.4g} nJ" + ("" if stated else " (not stated by part)"),
            **{name: "-" if value is None else f"{value:.4g} nJ" for name, value in lines.items() if stated},
        },
        f"{arrays} physical arrays are read for a weight; signed inputs take {phases} phase{'s' * (phases > 1)}"
        if arrays > 1
        else f"signed inputs take {phases} phase{'s' * (phases > 1)}",
    )
