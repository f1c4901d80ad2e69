"""This tool: training as `cimc train` does it (`runtime.training.train`), and inference (`runtime.system.evaluate`)."""

import tempfile
from pathlib import Path

import jax
import numpy as np
import onnx

from cimc.api.compile import compile_model
from cimc.dataset import Dataset, Preprocess, Samples
from models.build import NETWORKS
from runtime.crossbar.xla import use_compilation_cache
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.inference import predict
from runtime.system.state import System, build_system, initial_state
from runtime.system.watch import SETTLED_LOOK_STEPS
from runtime.training.options import TrainingOptions
from runtime.training.run import Run
from runtime.training.start import start
from runtime.training.train import train
from tests.benchmarks.peers.work import Runner, Work, serve

WHOLE_LAYER = 4096  # rows and columns of an array that holds any of these layers
CHIP = """
name = "bench"
description = "the arrays of brram-256x64 in another size"
array = {{ rows = {rows}, columns = {columns}, per_chip = 65536 }}
cost = {{ mvm_us = 0.72, mvm_nj = 2.93 }}
[cell]
technology = "bulk-switching RRAM"
read_voltage_V = 0.1
conductance_min_uS = 10.0
conductance_max_uS = 70.0
granularity_uS = 4.0
read_noise_uS = {read_noise}
programming = {{ error_sd_uS = 2.0 }}
"""
CONVERTERS = """
[input]
bits = {input_bits}
encoding = "bit-serial-accumulated"
[adc]
bits = {adc_bits}
range_uA = 70.0
noise_lsb = {adc_noise}
"""
# One code for one unit of a digit and one bit of the inputs.
SERIAL = """
[weights]
scheme = "offset"
bits = 8
bits_per_cell = {cell_bits}
[input]
bits = {input_bits}
encoding = "bit-serial"
[adc]
bits = {adc_bits}
"""


def system_for(work: Work) -> System:
    """The network on its arrays."""
    rows = work.array or WHOLE_LAYER
    # One weight takes two columns, or one for each slice; aihwkit and CrossSim count them as one.
    each = work.slices if work.serial else 2
    text = CHIP.format(rows=rows, columns=each * rows, read_noise=1.2 if work.noise else 0)
    if work.serial:
        text += SERIAL.format(cell_bits=8 // work.slices, input_bits=work.input_bits, adc_bits=work.adc_bits)
    elif work.input_bits:
        noise = 2.0 if work.noise else 0
        text += CONVERTERS.format(input_bits=work.input_bits, adc_bits=work.adc_bits, adc_noise=noise)
    with tempfile.TemporaryDirectory() as folder:
        model, chip = Path(folder, "model.onnx"), Path(folder, "chip.toml")
        onnx.save(NETWORKS[work.network](), model)
        chip.write_text(text, encoding="utf-8")
        artifact = compile_model(model, str(chip), verify=False).artifact
    return build_system(load_network(artifact.network), artifact.mapping, artifact.chip)


def prepare(work: Work) -> Runner:
    """The runner of a work."""
    use_compilation_cache()
    system = system_for(work)
    random = np.random.default_rng(0)
    shape = [size for size in system.network.inputs[system.network.input][1:] if size is not None]
    if work.mode == "infer":
        samples = Samples({system.network.input: random.integers(0, 256, (work.batch, *shape), np.uint8)})
        state = calibrate(system, initial_state(system), samples, Preprocess(1 / 255), jax.random.key(1))

        def infer(steps: int) -> int:
            for step in range(steps):
                key = jax.random.key(step) if work.noise else None
                predict(system, state, samples, Preprocess(1 / 255), key=key)
            return steps

        return infer
    pixels, labels = random.integers(0, 256, (6400, *shape), np.uint8), random.integers(0, 10, 6400).astype(np.int32)
    data = Dataset.of_images("random", pixels, labels, pixels[:1], labels[:1], synthetic=True, classes=10)
    # One test image: the evaluation that ends an epoch costs next to nothing.
    options = TrainingOptions(epochs=10**6, steps_per_epoch=1000, batch_size=work.batch)
    run = start(system, initial_state(system), options)
    # Whole intervals of looks at the input ranges, which are in the figures. Large networks stay in the first thousand
    # steps, where they are five times as frequent.
    interval = 5 * SETTLED_LOOK_STEPS if work.network == "lenet5" else SETTLED_LOOK_STEPS

    class DoneError(Exception):
        pass

    def go(steps: int) -> int:
        nonlocal run
        first, goal = run.step, run.step + -(-steps // interval) * interval

        def stop(now: Run, total: int) -> None:
            nonlocal run
            run = now
            if now.step >= goal:
                raise DoneError

        try:
            train(system, run, options, data, progress=stop)
        except DoneError:
            jax.block_until_ready(run.state)
        return run.step - first

    return go


if __name__ == "__main__":
    serve(prepare)
