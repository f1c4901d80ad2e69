"""`train --write-budget`: figures of the row writes, a resumed run with the same bits, one line for what is wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api.train import Trained
from cimc.artifact import Artifact
from cimc.chip import load_chip
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.report.page import report
from cimc.write_timeline import step_times
from tests.networks import network_proto, weights

CHIP: dict[str, Any] = {
    "array": {"per_chip": 8},
    "cell": {"programming": {"pulse_us": 2.0, "pulse_nj": 0.5}, "endurance": {"writes": 1e4}},
    "write": {"ports": 1, "line_us": 0.5, "line_nj": 0.25, "read_us": 0.25, "read_nj": 1.0},
}
LIMITED = cimc.TrainingOptions(epochs=2, steps_per_epoch=40, batch_size=16, lr=0.05, write_budget="6", write_every=2)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("writes") / "small.onnx"
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], name="second"),
    ]
    constants = {"w1": 0.3 * weights(20, 70), "w2": 0.3 * weights(70, 4)}
    onnx.save(network_proto(nodes, {"x": ["N", 20]}, {"y": ["N", 4]}, constants), path)
    return cimc.compile(path, load_chip("brram-soc", settings=CHIP), verify=False).artifact


def data() -> Dataset:
    random = np.random.default_rng(0)
    x = random.random((300, 20), np.float32)
    y = (x[:, :4].argmax(axis=1)).astype(np.int32)
    return Dataset.of_images("corner", x[:200], y[:200], x[200:], y[200:], synthetic=True, classes=4)


class Limited(NamedTuple):
    """A run with a budget, and its file."""

    done: Trained
    path: Path


@pytest.fixture(scope="module")
def limited(compiled: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Limited:
    path = tmp_path_factory.mktemp("limited") / "whole.cim"
    return Limited(cimc.train(compiled, data(), options=LIMITED, output=path), path)


class KilledError(Exception):
    """The process ends here."""


def test_a_resumed_run_with_a_budget_ends_with_the_same_bits(
    compiled: Artifact, limited: Limited, tmp_path: Path
) -> None:
    parts = tmp_path / "parts.cim"

    def kill(run: Any, total: int) -> None:
        if run.step > total // 2:
            raise KilledError

    with pytest.raises(KilledError):
        cimc.train(compiled, data(), options=LIMITED, output=parts, checkpoint_seconds=0, progress=kill)
    cimc.train(compiled, data(), options=LIMITED, output=parts, resume=True)
    assert parts.read_bytes() == limited.path.read_bytes()
    other = replace(LIMITED, write_budget="7")
    with pytest.raises(CimcError, match="other settings \\(write_budget\\)"):
        cimc.train(compiled, data(), options=other, output=parts, resume=True)


def test_figures_agree_with_the_counters_of_the_devices(limited: Limited) -> None:
    figures, run = limited.done.figures, limited.done.run
    assert 1 < figures["row_writes_per_step"] <= 3, "six rows in each second step"
    assert figures["row_writes"] == sum(layer["rows"] for layer in figures["write_layers"].values())
    phases = sum(layer["phases"] for layer in figures["write_layers"].values())
    longest = sum(layer["pulses"] for layer in figures["write_layers"].values())
    # A read before and after each row write, and one after each trial.
    reads = 2 * figures["row_writes"] + longest
    assert figures["write_row_reads"] == reads
    # One port: what it does, it does one after the other.
    assert figures["write_time_ms"] * 1e3 == pytest.approx(0.5 * phases + 2.0 * longest + 0.25 * reads, rel=1e-5)
    nj = 0.25 * phases + 0.5 * figures["programming_trials"] + 1.0 * reads
    assert figures["write_energy_mj"] * 1e6 == pytest.approx(nj, rel=1e-6)
    assert figures["write_port_utilization"] == pytest.approx(1, rel=1e-5)
    assert figures["write_assumed"] == []
    most = max(int(np.max(array)) for array in run.state["trials"].values())
    assert figures["pulses_per_device_max"] == most
    assert figures["endurance_used"] == pytest.approx((most + figures["first_trials"] / (2 * 1680)) / 1e4)
    assert figures["lifetime_trainings"] == pytest.approx(1 / figures["endurance_used"])
    assert sum(count for _, count in figures["pulses_per_device"]) == 2 * 1680
    assert figures["wait_steps_max"] > figures["wait_steps_mean"] > 0
    assert run.history[-1]["row_writes"] == figures["row_writes"]
    # All lines of the first programming: 20 rows in three column blocks, 70 in one, over two arrays of rows.
    first = np.asarray(run.state["schedule"]["first"])
    assert first[:, 0].tolist() == [60, 70]
    assert figures["first_write_time_ms"] * 1e3 == pytest.approx(
        0.5 * first[:, 1].sum() + 2.0 * first[:, 2].sum() + 0.25 * (2 * 130 + first[:, 2].sum()), rel=1e-5
    )
    page = report(limited.done.artifact)
    assert "Row writes" in page
    assert "<script" not in page


def test_the_timeline_hides_what_later_layers_leave_room_for(compiled: Artifact) -> None:
    def times(first: float, second: float, backward: float = 0.0, shared: bool = False) -> Any:
        return step_times(
            compiled.mapping,
            {"first": first, "second": second},
            writes_us=first + second if shared else max(first, second),
            batch=1,
            backward=backward,
            shared_ports=shared,
        )

    alone = times(0, 0)
    one = alone.layers[1].forward_start_us  # the second layer starts when the first is done
    assert one > 0
    assert alone.stall_us == {"apart": 0, "overlapped": 0, "double_buffered": 0}
    # The first layer is needed at once, the second when the first has computed.
    assert times(5, 0).stall_us["overlapped"] == pytest.approx(5)
    assert times(0, one / 2).stall_us["overlapped"] == 0
    assert times(0, one + 3).stall_us["overlapped"] == pytest.approx(3)
    # At one port one is written after the other.
    assert times(5, 7, shared=True).stall_us["overlapped"] == pytest.approx(12 - one)
    # Backward on the arrays, the second layer's writes begin before those of the first.
    assert times(0, one + 3, backward=1.0).stall_us["overlapped"] == pytest.approx(max(0.0, 3 - one))
    products = alone.products_us
    assert times(0, products).stall_us["double_buffered"] == pytest.approx(products)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"write_budget": "0"}, "--write-budget is '0', which lets nothing be written"),
        ({"write_budget": "ten"}, "--write-budget is 'ten'; give row writes a step"),
        ({"write_budget": "0.1us"}, "less than a row write can take"),
        ({"write_every": 0}, "write_every is 0; give a whole number from 1 to"),
        ({"write_budget": "5", "policy": cimc.Policy(method="float")}, "--update float writes no devices"),
        ({"write_budget": "5", "policy": cimc.Policy(method="naive")}, "--update naive keeps none there; leave it out"),
    ],
)
def test_a_wrong_budget_is_one_clear_line(compiled: Artifact, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CimcError) as error:
        cimc.train(compiled, data(), options=cimc.TrainingOptions(**options))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
