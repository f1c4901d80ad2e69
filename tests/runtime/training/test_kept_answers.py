"""Training by distillation begins where export would: at the network's own answers, as far as the chip gives them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

import cimc
from cimc.dataset import Dataset, Samples
from tests.networks import network_proto


def test_columns_of_small_weights_are_heard_from_the_first_step_on(tmp_path: Path) -> None:
    # As folded normalisation leaves them: in one range for the whole layer the small columns drown in errors of writes.
    random = np.random.default_rng(0)
    scales = np.logspace(0, -2, 16, dtype=np.float32)
    weight = (random.normal(size=(128, 16)) * scales).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Div", ["r", "s"], ["y"]),
    ]
    constants = {"w": weight, "s": scales}
    onnx.save(network_proto(nodes, {"x": ["N", 128]}, {"y": ["N", 16]}, constants), tmp_path / "scaled.onnx")
    compiled = cimc.compile(tmp_path / "scaled.onnx", "brram-256x64", input_range=(0.0, 1.0), verify=False).artifact
    samples = Samples({"x": random.uniform(size=(64, 128)).astype(np.float32)})
    data = Dataset("made", samples, samples)
    options = cimc.TrainingOptions(epochs=1, steps_per_epoch=1, batch_size=8, lr=0.0)
    trained = cimc.train(compiled, data, options=options, output=tmp_path / "trained.cim")
    record = trained.run.history[0]
    # The smallest column alone is a hundredth of the largest: with one range the outputs have 1 dB.
    assert record["measures"]["snr_db"] > 10
    (layer,) = record["layers"].values()
    assert layer["weight_range"] > np.abs(weight).max() / 2
    # What was trained is read again with a range for each column.
    figures = cimc.evaluate(tmp_path / "trained.cim", data)
    assert figures["agreement"]["y"]["snr_db"] > 10
