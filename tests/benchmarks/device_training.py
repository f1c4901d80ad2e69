"""What networks each device trains, on real MNIST: LeNet-5 and an MLP, mixed precision, all presets.

    python -m tests.benchmarks.device_training --data-dir DIR [--out results/device_training] [--parts states]

`states`: LeNet-5 on soft-bounds devices of 4, 10 and 20 states, blind pulses, converters ideal (the protocol of arXiv
2510.02516, shorter) and of 8 bit with read noise. `pcm`: an MLP 784-250-10 on one-sided PCM pairs by Nandakumar's rule
(Front. Neurosci. 14:406): blind pulses, the rest stays in the accumulator. `presets`: LeNet-5 on every device of the
tool, the same five epochs of 400 steps, closed-loop writes and blind pulses where it has them.

Each run's JSON is kept in the output folder and not run again, so that an interrupted measurement goes on where it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cimc.chip import load_chip
from cimc.chip_to_toml import chip_to_toml
from cimc.device_file import device_names, load_device
from tests.benchmarks.runs import MODELS, Runs, add_shortening, arguments, runs_of, spread, updates, work_off

CELLS_IN_RANGE = 10.0  # fully-on cells in the ADC's range, as the reference system has it (arXiv 2305.14547, Table 1)
READ_NOISE = 0.02  # of the window, likewise
CONVERTERS = ("ideal", "8-bit")
PARTS = ("states", "pcm", "presets")
# Of a pulse of pcm-pair over the window, as a fraction of it: 0.005 (1 + 27.235 (1 - exp(-5)) / 5); Nandakumar's
# threshold is the mean step.
MEAN_STEP = 0.032
LENET5 = ("--batch-size", "64", "--lr", "0.003", "--weight-decay", "0.1")
PULSES = ("--write", "pulse", "--residual", "keep")


@dataclass(frozen=True)
class Case:
    """A training: of that model on that device behind those converters, with options of `cimc train`."""

    part: str
    device: str
    converters: str
    model: str
    options: tuple[str, ...]
    write: str

    @property
    def run(self) -> str:
        """Name of its files, without the seed."""
        return f"{self.part}-{self.device}-{self.converters}-{self.write}"


def cases(parts: list[str], epochs: int) -> Iterator[Case]:
    """All trainings of those parts."""
    long = (*LENET5, "--epochs", str(epochs))
    if "states" in parts:
        for states in (4, 10, 20):
            for converters in CONVERTERS:
                yield Case("states", f"soft-bounds-{states}", converters, "lenet5", (*long, *PULSES), "pulse")
    if "pcm" in parts:
        length = ("--batch-size", "64", "--epochs", str(epochs), "--threshold", str(MEAN_STEP))
        yield Case("pcm", "pcm-pair", "8-bit", "mlp", (*length, *PULSES), "pulse")
    if "presets" in parts:
        short = (*LENET5, "--epochs", "5", "--steps-per-epoch", "400")
        for name in device_names():
            device = load_device(name)
            if device.pulse is None or device.pulse.directions == "both":
                yield Case("presets", name, "8-bit", "lenet5", short, "verify")
            if device.pulse is not None:
                yield Case("presets", name, "8-bit", "lenet5", (*short, *PULSES), "pulse")


def chip_file(runs: Runs, device: str, converters: str) -> str:
    """The path of the chip of a device: ideal but for it, or with converters of 8 bit that fit its currents."""
    cell = load_device(device)
    settings: dict[str, dict[str, float | int | str]] = {}
    if converters != "ideal":
        largest_uA = cell.read_voltage_V * cell.conductance_max_uS
        settings = {
            "input": {"bits": 8, "encoding": "bit-serial-accumulated", "signed": "two-phase"},
            "adc": {"bits": 8, "range_uA": CELLS_IN_RANGE * largest_uA},
        }
        if not cell.read_noise_uS and not cell.reads_follow_state:
            settings["cell"] = {"read_noise_uS": READ_NOISE * cell.window_uS}
    path = runs.out / f"{device}-{converters}.toml"
    path.write_text(chip_to_toml(load_chip("ideal", device, settings=settings)), encoding="utf-8")
    return str(path)


def measure(runs: Runs, case: Case, seed: int) -> None:
    """Train one case with one seed."""
    chip = chip_file(runs, case.device, case.converters)
    runs.compile_and_train(f"{case.run}-{seed}", str(MODELS / f"{case.model}.onnx"), chip, seed, *case.options)


def table(runs: Runs, part: str, chosen: list[Case], seeds: list[int]) -> None:
    """Print a part's table: mean and standard deviation over the seeds; of writes the mean, first ones not counted."""
    head = "device|converters|write|accuracy %|updates a weight, mean (largest)|pulses or trials a weight|writes, mJ|ms"
    print(f"\n{part}\n\n| {' | '.join(head.split('|'))} |\n|{8 * '---|'}")
    for case in chosen:
        done = [runs.figures(f"{case.run}-{seed}", "train") for seed in seeds]
        trials = np.mean([run["programming_trials"] / run["weights"] for run in done])
        accuracy = spread([100 * run["accuracy"] for run in done])
        energy, time = (np.mean([run[f"write_{key}"] for run in done]) for key in ("energy_mj", "time_ms"))
        case_text = f"{case.device} | {case.converters} | {case.write}"
        print(f"| {case_text} | {accuracy} | {updates(done)} | {trials:.1f} | {energy:.3g} | {time:,.0f} |")


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = arguments(__doc__, Path("results/device_training"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the tables to make")
    parser.add_argument("--devices", nargs="+", help="of these devices only")
    parser.add_argument("--length", type=int, default=12, help="epochs of states and pcm")
    add_shortening(parser)
    options = parser.parse_args()
    runs = runs_of(options)
    chosen = [
        case for case in cases(options.parts, options.length) if not options.devices or case.device in options.devices
    ]
    work_off(options.jobs, [partial(measure, runs, case, seed) for case in chosen for seed in options.seeds])
    for part in PARTS:
        if rows := [case for case in chosen if case.part == part]:
            table(runs, part, rows, options.seeds)


if __name__ == "__main__":
    main()
