"""CrossSim 3: inference with balanced cores, 8-bit devices, quantising DAC and ADC, without noise or parasitics.

Input and ADC ranges are those of 64 other images, found by CrossSim's own profiling. With `slices` the weight's bits
are spread over that many arrays with an ADC each. `serial`: offset cores, inputs bit by bit, each converted by an ADC
of one code for one unit of a digit and one bit.
"""

import math
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # with more it is slower and erratic

import numpy as np
import torch
from simulator import CrossSimParameters
from simulator.algorithms.dnn.torch.convert import analog_modules, convertible_modules, from_torch

from tests.benchmarks.peers.torch_networks import build, data, runner
from tests.benchmarks.peers.work import Runner, Work, serve


def _parameters(work: Work, input_max: float) -> CrossSimParameters:
    p = CrossSimParameters()
    p.core.rows_max = p.core.cols_max = work.array
    p.core.weight_bits = 8
    p.core.balanced.subtract_current_in_xbar = True
    p.xbar.device.infinite_on_off_ratio = True
    if work.serial:
        p.core.style, p.core.bit_sliced.style, p.core.bit_sliced.num_slices = "BITSLICED", "OFFSET", work.slices
        p.core.offset.style = "DIGITAL_OFFSET"
        p.xbar.dac.mvm.input_bitslicing = p.xbar.adc.mvm.adc_per_ibit = True
    elif work.slices > 1:
        p.core.style, p.core.bit_sliced.style, p.core.bit_sliced.num_slices = "BITSLICED", "BALANCED", work.slices
    else:
        p.core.style, p.core.balanced.style, p.xbar.device.cell_bits = "BALANCED", "ONE_SIDED", 8
    p.xbar.dac.mvm.model = "QuantizerDAC"
    p.xbar.dac.mvm.bits, p.xbar.dac.mvm.signed = work.input_bits, False
    p.core.mapping.inputs.mvm.min, p.core.mapping.inputs.mvm.max = 0.0, input_max
    return p


def _adc_range(cores: list, slices: int) -> list:
    if slices == 1:
        top = max(float(np.abs(core.adc_inputs).max()) for core in cores)
        return [-top, top]
    tops = [max(float(np.abs(core.adc_inputs[i]).max()) for core in cores) for i in range(slices)]
    # The ranges of slices may differ by powers of two only.
    powers = [max(tops) * 2.0 ** math.ceil(math.log2(max(top / max(tops), 1e-3))) for top in tops]
    return [[-top, top] for top in powers]


def prepare(work: Work) -> Runner:
    """The runner of a work."""
    torch.set_num_threads(1)
    model = build(work.network).eval()
    images = data(work.network)[0][-64:]
    largest: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: largest.append(float(inputs[0].max())))
        for module in convertible_modules(model)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    parameters = [_parameters(work, value) for value in largest]
    if work.serial:
        assert work.adc_bits is not None
        for p in parameters:
            p.xbar.adc.mvm.model = "QuantizerADC"
            adc = p.xbar.adc.mvm
            adc.bits, adc.signed, adc.adc_per_ibit, adc.adc_range_option = work.adc_bits, False, True, "CALIBRATED"
            digit = 2 ** (p.core.weight_bits // work.slices) - 1
            adc.calibrated_range = [[0.0, (2**work.adc_bits - 1) / digit]] * work.slices
        return runner(from_torch(model, parameters), None, work.network, work.batch)
    profiled = [p.copy() for p in parameters]
    for p in profiled:
        p.simulation.analytics.profile_adc_inputs = True
        p.simulation.analytics.ntest = len(images)
    network = from_torch(model, profiled).eval()
    with torch.no_grad():
        network(images)
    for p, layer in zip(parameters, analog_modules(network), strict=True):
        p.xbar.adc.mvm.model = "QuantizerADC"
        adc = p.xbar.adc.mvm
        adc.bits, adc.signed, adc.adc_range_option = work.adc_bits, True, "CALIBRATED"
        adc.calibrated_range = _adc_range([core for row in layer.core.cores for core in row], work.slices)
    return runner(from_torch(model, parameters), None, work.network, work.batch)


if __name__ == "__main__":
    serve(prepare)
