"""A recurrent layer in a Scan takes the time, the energy and the traffic of its steps one after the other.

The figures of short sequences are those that the mapper gave when it still wrote every step as nodes of its own.
"""

from itertools import pairwise

import onnx_ir as ir
import pytest

from cimc.chip import load_chip
from cimc.mapping import Mapping
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.simulator.simulate import simulate
from tests.passes.test_lower_recurrent import recurrent

# (latency and interval in ns, tile operations, energy in mJ, bytes times links)
UNROLLED = {
    ("LSTM", "forward", False, "brram-256x64"): (7200.0, 4320.0, 10, 2.93e-05, 0),
    ("LSTM", "forward", True, "isaac"): (11219.0, 6400.0, 8, 1.7127240000000004e-05, 0),
    ("LSTM", "bidirectional", False, "pimcomp-a"): (28031.78125, 16000.0, 112, 0.0006961696000000002, 0),
    ("GRU", "forward", False, "hermes"): (4168.0, 1563.0000000000002, 16, 0.00042239999999999997, 30),
    ("GRU", "bidirectional", True, "isaac"): (17619.0, 6400.0, 24, 3.1917104000000004e-05, 0),
    ("RNN", "forward", True, "puma"): (16135.0, 9216.0, 64, 4.903913600000001e-05, 0),
}


def of_any_batch(model: ir.Model) -> ir.Model:
    """The network of one recurrent node with a free batch."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        sizes = list(value.shape)
        value.shape = ir.Shape([*sizes[:-2], "N", sizes[-1]])
    return model


def mapped(operator: str, chip: str, **more: object) -> tuple[ir.Model, Mapping]:
    model = lower(of_any_batch(recurrent(operator, **more)))  # type: ignore[arg-type]
    return model, map_network(model, load_chip(chip))


@pytest.mark.parametrize(("operator", "direction", "states", "chip"), UNROLLED)
def test_four_steps_cost_what_they_cost_as_nodes_of_their_own(
    operator: str, direction: str, states: bool, chip: str
) -> None:
    model, mapping = mapped(operator, chip, direction=direction, states=states)
    assert mapping.schedule is not None
    assert mapping.placement is not None
    found = (
        mapping.schedule.latency_ns,
        mapping.schedule.interval_ns,
        mapping.cost.tile_ops,
        mapping.cost.energy_mj,
        mapping.placement.byte_hops,
    )
    # Where the first state comes from the shared memory, it is moved once and not spread over the steps.
    assert found == pytest.approx(UNROLLED[operator, direction, states, chip], rel=1e-4)
    simulated = simulate(model, mapping, load_chip(chip))
    assert simulated.interval_ns == pytest.approx(mapping.schedule.interval_ns, rel=1e-3)


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_a_long_sequence_is_timed_step_by_step(operator: str) -> None:
    """The schedule stops to follow the steps where they have become even; the simulator follows all."""
    times = []
    for length in (20, 40, 60):
        model, mapping = mapped(operator, "isaac", states=True, length=length)
        assert mapping.schedule is not None
        assert len(mapping.schedule.stages) < 40
        assert mapping.layers[1].positions == length
        simulated = simulate(model, mapping, load_chip("isaac"))
        assert mapping.schedule.latency_ns == pytest.approx(simulated.latency_ns, rel=0.05)
        times.append(mapping.schedule.latency_ns)
    assert times[2] - times[1] == pytest.approx(times[1] - times[0])
    step_of_arrays = 1600 * (2 if operator == "GRU" else 1)  # the candidate waits for the gates
    assert (times[1] - times[0]) / 20 > step_of_arrays


def test_the_critical_path_holds_the_steps_as_one_piece_and_has_no_gap() -> None:
    _, mapping = mapped("LSTM", "isaac", states=True, length=50)
    assert mapping.schedule is not None
    path = mapping.schedule.critical_path
    (steps,) = [step for step in path if step.stage == "rnn.recurrent.value"]
    assert (steps.layer, steps.first_row, steps.last_row) == ("rnn.recurrent", 0, 49)
    assert path[0].start_ns == 0
    assert path[-1].stop_ns == mapping.schedule.latency_ns
    for before, after in pairwise(path):
        assert before.stop_ns == after.start_ns


def test_the_layers_of_a_gru_in_one_array_do_not_wait_for_each_other_for_ever() -> None:
    """Two layers in the body that share lines of an array take turns within a step, in schedule and simulation."""
    model = lower(of_any_batch(recurrent("GRU", states=True)))
    chip = load_chip("packing-256")
    mapping = map_network(model, chip, options=MappingOptions(objective="energy", arrays=1))
    assert mapping.arrays == 1
    assert mapping.schedule is not None
    assert simulate(model, mapping, chip).latency_ns == pytest.approx(mapping.schedule.latency_ns, rel=0.05)


@pytest.mark.parametrize(
    ("activation", "states", "low", "signed"),
    [("Relu", False, 0.0, False), ("Relu", True, 0.0, False), ("Relu", True, -1.0, True), ("Tanh", False, 0.0, True)],
)
def test_states_that_are_never_negative_need_one_phase(activation: str, states: bool, low: float, signed: bool) -> None:
    """Proven over all steps: from the first state, in the range of inputs if a user gives it, and from each step."""
    model = lower(of_any_batch(recurrent("RNN", states=states, activations=[activation])))
    mapping = map_network(model, load_chip("brram-256x64"), options=MappingOptions(input_range=(low, 1.0)))
    assert mapping.layers[1].signed_input == signed
