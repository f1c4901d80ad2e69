"""The page of a run: what came of each network, then time and memory of each command."""

from collections.abc import Mapping

from tests.benchmarks.networks.listed import Network
from tests.benchmarks.networks.measure import Measured

Done = Mapping[str, Measured]
STEPS = ("original", "compile", "eval", "export", "model.onnx", "deploy")
LIMIT_MB = 2048
HEAD = """# Trained networks of public packages

{state}; `python -m tests.benchmarks.networks --work DIR --write`, chip `{chip}`; two cores of a shared machine.

{count} networks of {kinds} kinds, {complete} of them through every command. Each command is a process of its own;
inputs are real where a package ships some (photographs, files, a package's own tokenizer and first networks), else
plausible ones that `tests/benchmarks/networks` makes.

## What came of each

Agreement is that of the package's `model.onnx` with the original, both in onnxruntime, on the inputs of the
calibration: the first output, then the worst of them where there are several; "same": positions with the same largest
value. Layers: on arrays; digital: products with constant weights that are not (share of all multiply-accumulates,
products of two values included, that is not on arrays).

| network | kind | package | weights | layers | digital | arrays | agreement | refused |
|---|---|---|---|---|---|---|---|---|
"""
COSTS = """
## Time and memory

Seconds, of which those of the processor in brackets (all threads; other work on the machine changes them little), and
MB at the peak, the process and its libraries included. The original runs sample by sample. **Bold**: more than 2 GB
and more than 4 times the original.

| network | samples | {steps} |
|---|---|{lines}|
"""


def tables(networks: list[Network], done: Mapping[str, Done], *, chip: str, state: str) -> str:
    """The page in Markdown; state: what was measured, and when."""
    complete = sum("deploy" in done[network.name] and not done[network.name]["deploy"].status for network in networks)
    kinds = len({network.kind for network in networks})
    head = HEAD.format(chip=chip, state=state, count=len(networks), kinds=kinds, complete=complete)
    results = "\n".join(_result(network, done[network.name]) for network in networks)
    costs = COSTS.format(steps=" | ".join(STEPS), lines="|".join(["---"] * len(STEPS)))
    return head + results + "\n" + costs + "\n".join(_cost(network, done[network.name]) for network in networks) + "\n"


def _result(network: Network, done: Done) -> str:
    compiled = done["compile"].figures if "compile" in done else {}
    figures = [""] * 4
    if compiled:
        digital = f"{len(compiled['digital_products'])} ({1 - compiled['macs']['share_on_arrays']:.1%})"
        figures = [f"{compiled['weights']:,}", str(len(compiled["layers"])), digital, f"{compiled['crossbars']:,}"]
    agreement = _agreement(done["agreement"].figures) if "agreement" in done else ""
    cells = [network.name, network.kind, network.package, *figures, agreement, _refusal(done)]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _agreement(figures: Mapping[str, Mapping[str, float | None]]) -> str:
    outputs = list(figures.values())
    worst = min(outputs, key=lambda output: output["snr_db"] or float("inf"), default=None)
    if worst is None:
        return ""
    return _text(outputs[0]) + (f"; worst {_text(worst)}" if worst is not outputs[0] else "")


def _text(output: Mapping[str, float | None]) -> str:
    snr, same = output["snr_db"], output["same"]
    parts = ["equal" if snr is None else f"{snr:.1f} dB"] + ([] if same is None else [f"{same:.1%} same"])
    return ", ".join(parts)


def _refusal(done: Done) -> str:
    failed = [(step, measured) for step, measured in done.items() if measured.status]
    if not failed:
        return ""
    step, measured = failed[0]
    said = measured.said.removeprefix("error: ") or f"exit status {measured.status}"
    return f"{step}: {said}"


def _cost(network: Network, done: Done) -> str:
    cells = [_time(done[step], done["original"]) if step in done else "" for step in STEPS]
    return f"| {network.name} | {network.count} | {' | '.join(cells)} |"


def _time(measured: Measured, original: Measured) -> str:
    processor = "" if measured.processor_s is None else f" ({measured.processor_s:.1f})"
    text = f"{measured.seconds:.1f} s{processor} {measured.peak_mb} MB"
    return f"**{text}**" if measured.peak_mb > max(LIMIT_MB, 4 * original.peak_mb) else text
