"""Speed of training by devices: LeNet-5 at batch 64, processor time of a step, linear law beside the others.

    python -m tests.benchmarks.device_speed

Each round takes the cases in turn, so that what else the machine does falls on all of them; the table has the least
time of a step over the rounds, and the bytes of the traits of all devices. Random images: only the time counts.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from cimc.api.compile import compile_model
from cimc.chip import Chip, load_chip
from cimc.data.load import load
from cimc.device_pulse import AnyPulse, Linear, SoftBounds
from cimc.options import Write
from runtime.network.load import load_network
from runtime.system.state import System, build_system, initial_state
from runtime.training.options import Policy, TrainingOptions
from runtime.training.run import Run
from runtime.training.start import start
from runtime.training.train import train

MODEL = Path(__file__).parents[2] / "models" / "lenet5.onnx"
ROUNDS, STEPS = 5, 100
SAME = SoftBounds(law="soft-bounds", step_uS=4.0, c2c=0.3)
OWN = SAME.model_copy(update={"step_d2d": 0.3, "asymmetry_d2d": 0.05, "high_d2d": 0.3, "low_d2d": 0.3})


@dataclass(frozen=True)
class Case:
    """A device and how it is written."""

    name: str
    pulse: AnyPulse
    write: Write


CASES = (
    Case("linear, closed loop", Linear(step_uS=4.0), Write.verify),
    Case("linear, pulses", Linear(step_uS=4.0, c2c=0.3), Write.pulse),
    Case("soft bounds, pulses", SAME, Write.pulse),
    Case("soft bounds, d2d, pulses", OWN, Write.pulse),
)


def chip_with(pulse: AnyPulse) -> Chip:
    """The reference chip with those pulses."""
    chip = load_chip("brram-256x64")
    return chip.model_copy(update={"cell": chip.cell.model_copy(update={"pulse": pulse})})


def main() -> None:
    """Measure and print the table."""
    data = load("digits")
    systems: dict[str, System] = {}
    runs: dict[str, Run] = {}
    best = dict.fromkeys([case.name for case in CASES], np.inf)
    for number in range(ROUNDS + 1):  # the first compiles
        for case in CASES:
            options = TrainingOptions(
                policy=Policy(write=case.write), epochs=number + 1, steps_per_epoch=STEPS, batch_size=64
            )
            if case.name not in systems:
                artifact = compile_model(MODEL, chip_with(case.pulse), verify=False).artifact
                systems[case.name] = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
                runs[case.name] = start(systems[case.name], initial_state(systems[case.name]), options)
            began = time.process_time()
            runs[case.name] = train(systems[case.name], runs[case.name], options, data)
            jax.block_until_ready(runs[case.name].state)
            if number:
                best[case.name] = min(best[case.name], (time.process_time() - began) / STEPS)
    base = best[CASES[1].name]
    print("| device | ms of processor a step | speed, of linear pulses | traits, bytes a weight |\n|---|---|---|---|")
    for case in CASES:
        state, traits = runs[case.name].state, ("step_up", "step_down", "high", "low")
        weights = sum(array.size for array in state["weight"].values())
        held = sum(array.nbytes for trait in traits for array in state.get(trait, {}).values())
        print(f"| {case.name} | {1e3 * best[case.name]:.2f} | {base / best[case.name]:.2f} | {held / weights:.0f} |")


if __name__ == "__main__":
    main()
