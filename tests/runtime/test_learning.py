"""Training on the arrays learns, over more steps than other tests take: input ranges must follow what grows."""

from pathlib import Path

from cimc.api.compile import compile_model
from cimc.data.load import load
from runtime.network.load import load_network
from runtime.system.state import build_system, initial_state
from runtime.training.options import TrainingOptions
from runtime.training.start import start
from runtime.training.train import train


def test_lenet1_learns_the_synthetic_digits_on_noisy_arrays() -> None:
    model = Path(__file__).parents[2] / "models" / "lenet1.onnx"
    artifact = compile_model(model, "brram-soc", verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    options = TrainingOptions(epochs=2, steps_per_epoch=250)
    run = train(system, start(system, initial_state(system), options), options, load("digits"))
    first, second = run.history
    assert second["loss"] < 0.6 * first["loss"], run.history
    assert second["accuracy"] > 0.7, run.history
