"""A PyTorch module in, its trained state dict out: the module then computes what `cimc eval --exact` computes.

The judge is PyTorch. Without it only its absence is tested.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cimc
from cimc.api.system_of import state_of, system_of
from cimc.dataset import Preprocess, Samples
from runtime.network.load import load_network
from runtime.system.inference import predict
from tests.as_trained import as_trained


def test_without_pytorch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript.optimizer", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(cimc.CimcError, match=r"is not installed; install it with: pip install 'cimc\[torch\]'"):
        cimc.from_torch(object(), np.zeros((1, 4)))


def convolutional(nn: Any) -> Any:
    """Batch normalisation between convolutions, one grouped and one without a bias; dropout."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(6 * 4 * 4, 5),
    )


def recurrent(nn: Any, kind: str) -> Any:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(8, 4, batch_first=True)
            self.head = nn.Linear(4, 5)

        def forward(self, images: Any) -> Any:
            return self.head(self.layer(images[:, 0])[0][:, -1])

    return Recurrent()


def tied(nn: Any) -> Any:
    """One layer used twice: one parameter under two names."""
    shared = nn.Linear(8, 8)
    return nn.Sequential(shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(2 * 8 * 8, 5))


MODULES: dict[str, Callable[[Any], Any]] = {
    "convolutional": convolutional,
    "GRU": lambda nn: recurrent(nn, "GRU"),
    "LSTM": lambda nn: recurrent(nn, "LSTM"),
    "tied": tied,
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_with_its_trained_state_is_the_exact_network(name: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = MODULES[name](torch.nn)
    images = np.random.default_rng(0).random((6, 2, 8, 8), np.float32)
    network = cimc.from_torch(module, images[:1])
    assert module.training, "the mode of the module was changed"
    assert {one.name for one in network.graph.initializer} & set(module.state_dict())
    compiled = cimc.compile(network, "brram-256x64", verify=False)
    trained = as_trained(compiled.artifact)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = cimc.to_torch_state(trained, module, network=network)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    module.load_state_dict(state)
    module.eval()
    with torch.no_grad():
        found = module(torch.tensor(images)).numpy()
    system = system_of(trained)
    held, _ = state_of(trained, system, "test", weight_range=None)
    (wanted,) = predict(
        system, held, Samples({system.network.input: images}), Preprocess(scale=1.0), exact=True
    ).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.max(np.abs(wanted)))
    changed = {key for key, value in state.items() if not torch.equal(value, before[key])}
    assert changed == {key for key in state if not key.endswith("num_batches_tracked")}


def test_layers_are_called_after_modules_and_another_module_is_refused() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    compiled = cimc.compile(cimc.from_torch(module, np.zeros((2, 6), np.float32)), "ideal", verify=False)
    assert [layer.name for layer in compiled.artifact.mapping.layers] == ["0", "2"]
    other = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 3))
    with pytest.raises(cimc.CimcError, match="Sequential is not the network that was trained"):
        cimc.to_torch_state(as_trained(compiled.artifact), other)  # exported again, for its inputs


def test_buffers_and_frozen_parameters_are_not_trained_and_every_other_parameter_is() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    nn: Any = torch.nn

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)
            self.scale, self.alpha = torch.nn.Parameter(torch.rand(5)), torch.nn.Parameter(torch.tensor(1.5))
            self.frozen = torch.nn.Parameter(torch.rand(5), requires_grad=False)
            self.b.weight.requires_grad = False
            self.register_buffer("before", torch.rand(6))
            self.register_buffer("after", torch.rand(3), persistent=False)

        def forward(self, x: Any) -> Any:
            hidden = (self.a(x + self.before) * self.scale).relu() * self.alpha
            return self.b((hidden + self.frozen).relu()) + self.after

    compiled = cimc.compile(cimc.from_torch(Mixed(), np.zeros((1, 6), np.float32)), "ideal", verify=False)
    network = load_network(compiled.artifact.network)
    assert set(network.trainable) == {"scale", "alpha", "a.bias", "b.bias"}
    assert compiled.notes == (
        "buffers and frozen parameters are not trained: after, b.weight, before, frozen",
        "frozen weights and biases of layers are trained all the same: b.weight; --freeze, or freeze of "
        "TrainingOptions, keeps layers as they are",
    )


def test_a_float64_module_and_a_network_file_are_taken_and_a_larger_module_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    linear = torch.nn.Linear
    module = torch.nn.Sequential(linear(6, 4), torch.nn.ReLU(), linear(4, 3)).double()
    path = tmp_path / "net.onnx"
    trained = as_trained(
        cimc.compile(cimc.from_torch(module, np.zeros((1, 6)), output=path), "ideal", verify=False).artifact
    )
    state = cimc.to_torch_state(trained, module, network=path)
    assert all(value.dtype == torch.float64 for value in state.values())
    assert not any(torch.equal(state[key], value) for key, value in module.state_dict().items())
    larger = torch.nn.Sequential(*module, linear(3, 3))
    with pytest.raises(cimc.CimcError, match=r"Sequential is another module .*: that has no parameter '3\.bias'"):
        cimc.to_torch_state(trained, larger, network=path)
    with pytest.raises(cimc.CimcError, match=r"it has no parameter '2\.bias'"):
        cimc.to_torch_state(trained, torch.nn.Sequential(linear(6, 4)), network=path)
    for wrong in (type(module), module.state_dict(), 5):
        with pytest.raises(cimc.CimcError, match="was given for the module"):
            cimc.to_torch_state(trained, wrong)


def test_wrong_modules_and_examples_are_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    nn: Any = torch.nn

    class Choosing(nn.Module):
        def forward(self, x: Any) -> Any:
            return x + 1 if x.sum() > 0 else x

    given: tuple[Any, ...] = (5, np.zeros, {}, torch.nn.Linear)
    for wrong in given:
        with pytest.raises(cimc.CimcError, match=r"was given for the module; give a torch\.nn\.Module"):
            cimc.from_torch(wrong, np.zeros((1, 6), np.float32))
    for example in ("abc", None, 5.0, np.zeros((0, 6))):
        with pytest.raises(cimc.CimcError, match="the example"):
            cimc.from_torch(torch.nn.Linear(6, 4), example)
    with pytest.raises(cimc.CimcError, match=r"control flow depends on values of the data; .* torch\.cond"):
        cimc.from_torch(Choosing(), np.zeros((2, 6), np.float32))
    assert capfd.readouterr() == ("", "")
