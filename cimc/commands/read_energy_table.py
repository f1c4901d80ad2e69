"""Energy of reads by their data as a table, beside the chip's own figure."""

from collections.abc import Mapping
from typing import Any


def show(energy: Mapping[str, Any], title: str = "energy of one input") -> None:
    """Least, mean and largest over the inputs; of what the chip file does not state a dash."""
    from cimc.commands.console import print_table

    def numbers(found: Mapping[str, float] | float | None) -> list[str]:
        spread = found if isinstance(found, Mapping) else dict.fromkeys(("min", "mean", "max"), found)
        return ["-" if value is None else f"{value:.3g}" for value in (spread["min"], spread["mean"], spread["max"])]

    names = {"cells": "cells", "word_lines": "word lines", "conversions": "conversions", "total": "these, by the data"}
    rows = [[name, *numbers(energy[key])] for key, name in names.items()]
    rows.append(["arrays, by the chip's figure", *numbers(energy["table"])])
    caption = "layers in loops are not counted"
    if any("-" in row for row in rows):
        caption += "; -: the chip file does not state it"
    print_table(f"{title}, mJ", ["", "least", "mean", "largest"], rows, caption)
