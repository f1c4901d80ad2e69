"""Networks that people really have: each compiles, computes the same on ideal arrays, and trains."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from cimc.chip import load_chip
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.read import read_network
from passes.verify import random_inputs, run
from passes.verify_mapping import verify_mapping
from passes.watch import verify_each
from runtime.network.load import load_network
from runtime.network.run import run_nodes
from runtime.system.products import array_product
from runtime.system.state import build_system, initial_state
from tests.networks import constant, layers
from tests.real_networks import REAL_NETWORKS

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx"))
AFTER_EVERY_PASS = ("light_shufflenet", "light_squeezenet")  # of the larger ones the result says whether all is well
TOLERANCE = 1e-4  # of the largest output, with ideal converters
CHIP = "brram-256x64"


def test_the_onnx_package_still_ships_its_nine_networks() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_networks_compile_and_verify(path: Path) -> None:
    model = with_random_weights(read_network(path))
    feeds = random_inputs(model, 2, 0)
    lowered = lower(model, verify_each(model, feeds) if path.stem in AFTER_EVERY_PASS else None)
    mapping = map_network(lowered, load_chip(CHIP))
    (expected,) = run(model, feeds)
    assert np.ptp(expected) > 1e-3 * np.abs(expected).max() > 0, "the outputs are all the same"
    ideal = verify_mapping(model, lowered, mapping, load_chip(CHIP)).ideal
    assert ideal <= TOLERANCE * np.abs(expected).max()


def with_random_weights(model: ir.Model) -> ir.Model:
    """The network with seeded random weights: as shipped, each tensor of weights has one value throughout.

    Its layers of 4096 units get 64: nothing but time and memory hangs on their width.
    """
    random = np.random.default_rng(0)
    for node in list(model.graph):
        if node.op_type == "ConstantOfShape":
            (value,), (source,) = node.outputs, node.inputs
            sizes = [64 if size == 4096 else size for size in constant(source)]
            bound = (6 / max(1, np.prod(sizes[1:]))) ** 0.5 if len(sizes) > 1 else 0.5
            array = random.random(sizes, dtype=np.float32)
            array = (2 * array - 1) * np.float32(bound) if len(sizes) > 1 else array + np.float32(bound)
            weight = ir.Value(name=value.name, const_value=ir.tensor(array))
            value.replace_all_uses_with(weight)
            model.graph.remove(node)
            model.graph.register_initializer(weight)
    last = model.graph.outputs[0].producer()
    assert last is not None
    if last.op_type == "Softmax":  # its exponential would magnify the rounding of large logits
        (logits, *_) = last.inputs
        assert logits is not None
        model.graph.outputs[0] = logits
        logits.type = ir.TensorType(ir.DataType.FLOAT)
    return model


@pytest.mark.parametrize("name", REAL_NETWORKS)
def test_real_networks_compute_and_train_on_ideal_arrays(name: str) -> None:
    model = ir.from_proto(REAL_NETWORKS[name]())
    feeds = random_inputs(model, 2, 0)
    lowered = lower(model, verify_each(model, feeds))
    chip = load_chip("ideal")
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0)))
    (expected,) = run(model, feeds)
    ideal = verify_mapping(model, lowered, mapping, chip).ideal
    assert ideal <= TOLERANCE * np.abs(expected).max()

    loaded = load_network(ir.to_proto(lowered).SerializeToString())
    system = build_system(loaded, mapping, chip)
    state = initial_state(system)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def trained(weight: dict[str, jax.Array], feeds: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        product = array_product(system, {**state, "weight": weight})
        output = run_nodes(loaded, feeds, product, state["digital"], state["statistics"])[0][loaded.outputs[0]]
        return jnp.sum(output**2), output

    gradients, computed = trained(state["weight"], {name: jnp.asarray(array) for name, array in feeds.items()})
    assert computed.shape == expected.shape
    assert np.abs(computed - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert len(gradients) == len({node.inputs[1] for node in layers(lowered)})
    for layer, gradient in gradients.items():
        assert np.isfinite(gradient).all(), layer
        assert np.any(np.asarray(gradient) != 0), f"{layer} is not trained"
