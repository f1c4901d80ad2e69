"""The shipped networks as JAX functions: exactly, on an ideal chip, and layer by layer on a real one."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.read import read_network
from runtime.crossbar.product import counts
from runtime.crossbar.xla import jit
from runtime.network.load import load_network
from runtime.network.network import Network
from runtime.network.run import run_network, run_nodes
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System, build_system, flatten_state, gain_name, initial_state, restore_state
from tests import reference
from tests.networks import network, run_only, weights

MODELS = Path(__file__).parents[2] / "models"
jitted_counts = jit(counts)
SHIPPED = sorted(path.stem for path in MODELS.glob("*.onnx"))


@cache
def lowered(name: str) -> ir.Model:
    return lower(read_network(MODELS / f"{name}.onnx"))


@cache
def network_of(name: str) -> Network:
    return load_network(ir.to_proto(lowered(name)).SerializeToString())


def system_of(name: str, chip: Chip, input_range: tuple[float, float] = (0.0, 1.0)) -> tuple[System, State, Mapping]:
    mapping = map_network(lowered(name), chip, options=MappingOptions(input_range=input_range))
    system = build_system(network_of(name), mapping, chip)
    return system, initial_state(system), mapping


def images_for(name: str, count: int = 3, seed: int = 0) -> npt.NDArray[np.float32]:
    loaded = network_of(name)
    shape = [size for size in loaded.inputs[loaded.input][1:] if size is not None]
    return np.random.default_rng(seed).random((count, *shape), dtype=np.float32)


def onnxruntime_output(name: str, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(MODELS / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run(system: System, state: State, product: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    evaluate = jit(lambda x: run_only(system.network, x, product, state["digital"], state["statistics"])[0])
    return np.asarray(evaluate(images))


def exact_inputs(system: System, state: State, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """The input of every crossbar layer of the exact network."""

    @jit
    def inputs(x: jax.Array) -> dict[str, jax.Array]:
        fed = {}

        def recorded(name: str, x: jax.Array, key: jax.Array | None) -> jax.Array:
            fed[name] = jnp.moveaxis(x, -1, 0)  # in the order of ONNX
            return exact_product(system, state)(name, x, key)

        run_only(system.network, x, recorded, state["digital"], state["statistics"])
        return fed

    return {name: np.asarray(x) for name, x in inputs(images).items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_exact_and_ideal_products_are_those_of_onnxruntime(name: str) -> None:
    system, state, _ = system_of(name, load_chip("ideal"))
    images = images_for(name)
    expected = onnxruntime_output(name, images)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(expected[0] - expected[1]).max() > 100e-4 * scale, "the outputs differ, so equality means something"
    for product in (exact_product(system, state), array_product(system, state)):
        assert np.abs(run(system, state, product, images) - expected).max() < 1e-4 * scale


def test_every_layer_of_lenet1_on_real_arrays_is_the_plain_model() -> None:
    """Layer by layer on the inputs that two images make, moved off the rounding ties of the DAC."""
    chip = load_chip("brram-256x64")
    system, state, mapping = system_of("lenet1", chip)
    fed = exact_inputs(system, state, images_for("lenet1", 2))
    assert list(fed) == [layer.name for layer in mapping.layers]
    for layer in mapping.layers:
        crossbar = system.crossbars[layer.name]
        input_range = np.float32((0.9 if layer.name == "conv1" else 3) * fed[layer.name].max())
        level = np.asarray(fed[layer.name], np.float64) * 255 / input_range
        x = ((np.round(level) + np.clip(level - np.round(level), -0.45, 0.45)) * input_range / 255).astype(np.float32)
        g = np.asarray(state["conductance"][layer.name])
        d = jitted_counts(crossbar.reading, np.moveaxis(x, 0, -1), g, input_range, None)
        d = np.asarray(d).reshape(layer.columns, layer.positions, 2).swapaxes(1, 2)
        window = None
        if crossbar.window:
            window = reference.ConvWindow(
                crossbar.window.kernel, crossbar.window.strides, crossbar.window.pads, crossbar.window.dilations
            )
        bounds = reference.row_bounds(layer.rows, layer.kernel_size, chip)
        assert list(layer.row_bounds) == bounds
        u = reference.vectors(reference.dac_codes(x, float(input_range), chip), window)
        expected = reference.sums(chip, u, g, bounds, False, None)
        assert d.shape == (layer.columns, 2, layer.positions)
        assert (np.abs(np.asarray(d) - expected.d) <= expected.ties).all()
        assert (expected.ties > 0).mean() < 0.01
        assert np.unique(expected.d).size > 10


def test_several_row_blocks_of_lenet1_are_summed_as_in_the_plain_model() -> None:
    chip = load_chip("brram-soc")
    system, state, mapping = system_of("lenet1", chip)
    layer = mapping.layers[2]
    assert len(layer.row_bounds) == 3
    codes = np.random.default_rng(1).integers(0, 256, (2, layer.rows))
    x = (codes / 255).astype(np.float32)
    g = np.asarray(state["conductance"][layer.name])
    d = jitted_counts(system.crossbars[layer.name].reading, x.T, g, jnp.float32(1), None)[..., None]
    bounds = reference.row_bounds(layer.rows, layer.kernel_size, chip)
    expected = reference.sums(chip, codes.T[:, :, None].astype(float), g, bounds, False, None)
    assert (np.abs(np.asarray(d) - expected.d) <= expected.ties).all()


def test_the_network_on_real_arrays_stays_near_the_exact_one() -> None:
    system, state, _ = system_of("lenet1", load_chip("brram-256x64"))
    images = images_for("lenet1", 20)
    fed = exact_inputs(system, state, images)
    state["input_range"] = {name: jnp.float32(3 * x.max()) for name, x in fed.items()}  # or the ADCs saturate
    computed = run(system, state, array_product(system, state), images)
    expected = onnxruntime_output("lenet1", images)
    assert np.corrcoef(computed.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_final_softmax_is_left_out_of_every_output_that_has_one() -> None:
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"], name="fc")
    softmax = helper.make_node("Softmax", ["y"], ["p"])
    constants = {"w": weights(4, 3)}
    model = lower(network([gemm, softmax], {"x": ["N", 4]}, {"p": ["N", 3]}, constants))
    loaded = load_network(ir.to_proto(model).SerializeToString())
    assert loaded.logits == {"p": "y"}
    x = weights(2, 4, seed=1)
    y, _ = run_only(loaded, jnp.asarray(x), lambda name, x, key: jnp.asarray(constants["w"].T) @ x, {}, {})
    np.testing.assert_allclose(y, x @ constants["w"], atol=1e-6)
    two = lower(network([gemm, softmax], {"x": ["N", 4]}, {"p": ["N", 3], "y": ["N", 3]}, constants))
    loaded = load_network(ir.to_proto(two).SerializeToString())
    values, _ = run_nodes(loaded, {"x": jnp.asarray(x)}, lambda name, x, key: jnp.asarray(constants["w"].T) @ x, {}, {})
    np.testing.assert_allclose(values["p"], jax.nn.softmax(x @ constants["w"]), atol=1e-6)
    both, _ = run_network(loaded, {"x": jnp.asarray(x)}, lambda name, x, key: jnp.asarray(constants["w"].T) @ x, {}, {})
    np.testing.assert_array_equal(both["p"], values["y"])
    np.testing.assert_array_equal(both["y"], values["y"])


def test_noise_of_layers_is_independent_and_follows_the_key() -> None:
    system, state, _ = system_of("lenet1", load_chip("brram-256x64"))
    seen: list[Any] = []

    def product(name: str, x: jax.Array, key: jax.Array | None) -> jax.Array:
        seen.append(None if key is None else jax.random.key_data(key).tolist())
        return exact_product(system, state)(name, x, None)

    images = jnp.asarray(images_for("lenet1", 1))
    for key in (jax.random.key(0), jax.random.key(1), jax.random.key(0), None):
        run_only(system.network, images, product, state["digital"], state["statistics"], key)
    first, second, again, none = (seen[start : start + 3] for start in range(0, 12, 3))
    assert first == again
    assert none == [None] * 3
    assert len({tuple(key) for key in first + second}) == 6


def test_the_state_survives_its_flat_form_and_a_wrong_one_is_refused() -> None:
    system, state, _ = system_of("vgg8", load_chip("brram-256x64"))
    state["weight"]["conv1"] = state["weight"]["conv1"] + 1
    state["digital"][gain_name("conv2")] = jnp.float32(3)
    flat = flatten_state(state)
    restored = flatten_state(restore_state(system, dict(flat), "trained.cim"))
    assert restored.keys() == flat.keys()
    for name, array in flat.items():
        np.testing.assert_array_equal(restored[name], array)
        assert restored[name].dtype == array.dtype
    for broken in (
        {name: array for name, array in flat.items() if name != "weight/conv1"},
        {**flat, "weight/conv1": flat["weight/conv1"][:-1]},
    ):
        with pytest.raises(CimcError, match=r"trained\.cim does not fit its network \(at weight/conv1\)"):
            restore_state(system, broken, "trained.cim")


def test_the_initial_devices_stand_for_the_weights_of_the_network() -> None:
    for chip in (load_chip("ideal"), load_chip("brram-soc")):
        system, state, _ = system_of("lenet5", chip)
        for node in system.network.layers():
            weight = system.network.initializers[node.inputs[1]]
            weight_range = float(np.abs(weight).max())
            g = np.asarray(state["conductance"][node.name], np.float64)
            cell = chip.cell
            stored = (g[0] - g[1]) * weight_range / (cell.conductance_max_uS - cell.conductance_min_uS)
            assert np.abs(stored - weight).max() <= weight_range * chip.target_step_uS / cell.window_uS * 1.01
            assert g.min() >= cell.conductance_min_uS
            assert g.max() <= cell.conductance_max_uS
            # The grid begins above G_min and ends below G_max.
            np.testing.assert_allclose(g.min(axis=0), cell.conductance_min_uS, atol=chip.target_step_uS)
            np.testing.assert_array_equal(state["weight"][node.name], weight)
