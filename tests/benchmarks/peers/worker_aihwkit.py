"""aihwkit: MixedPrecisionReRamSB, one analog tile a layer, or layers mapped to tiles of a given size."""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # twice as fast as with more: its tiles call BLAS from their own threads

import torch
from aihwkit.nn.conversion import _DEFAULT_MAPPED_CONVERSION_MAP, convert_to_analog
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.presets import MixedPrecisionReRamSBPreset

from tests.benchmarks.peers.torch_networks import build, runner
from tests.benchmarks.peers.work import Runner, Work, serve


def prepare(work: Work) -> Runner:
    """The runner of a work."""
    torch.set_num_threads(work.threads)
    config = MixedPrecisionReRamSBPreset()
    assert work.input_bits is not None
    assert work.adc_bits is not None
    for io in (config.forward, config.backward):
        io.inp_res, io.out_res = 1 / (2**work.input_bits - 2), 1 / (2**work.adc_bits - 2)
        if not work.noise:
            io.out_noise = 0.0
    conversion = None
    if work.array:
        config.mapping.max_input_size = config.mapping.max_output_size = work.array
        conversion = dict(_DEFAULT_MAPPED_CONVERSION_MAP)
    model = convert_to_analog(build(work.network), config, conversion_map=conversion)
    optimizer = None
    if work.mode == "train":
        optimizer = AnalogSGD(model.parameters(), lr=0.05)
        optimizer.regroup_param_groups(model)
    return runner(model, optimizer, work.network, work.batch)


if __name__ == "__main__":
    serve(prepare)
