"""A weight that several products use is one layer: one set of devices, one trained value, positions of every use."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.options import ShareWeights
from passes.crossbar_functions import crossbar_layers
from passes.mapper.map_network import map_network
from passes.notes import notes_of
from passes.pipeline import lower
from passes.verify import random_inputs, run
from passes.verify_mapping import verify_mapping
from runtime.network.load import load_network
from runtime.network.run import run_network
from runtime.system.products import exact_product
from runtime.system.state import build_system, initial_state
from tests.networks import constant, difference, lower_and_compare, network, weights

node = helper.make_node

ITS_OWN = "--share-weights never"


def uses(lowered: ir.Model) -> dict[str, int]:
    """How many nodes use each layer."""
    return {name: len(nodes) for name, nodes in crossbar_layers(lowered).items()}


def cell(steps: int = 3) -> ir.Model:
    """A recurrent cell written out: h = tanh(x W + h R + b), x and h through one layer each; then a product of its own.

    As exporters write it: W as it is, R transposed anew in each step, the bias in an Add.
    """
    nodes = [node("Split", ["x"], [f"x{n}" for n in range(steps)], axis=1, num_outputs=steps)]
    state = "x0"
    for n in range(steps):
        nodes += [
            node("MatMul", [f"x{n}", "w"], [f"a{n}"], name=f"/cell/MatMul_{n}"),
            node("Transpose", ["r"], [f"t{n}"]),
            node("MatMul", [state, f"t{n}"], [f"c{n}"]),
            node("Add", [f"c{n}", "b"], [f"d{n}"]),
            node("Add", [f"a{n}", f"d{n}"], [f"e{n}"]),
            node("Tanh", [f"e{n}"], [f"h{n}"]),
        ]
        state = f"h{n}"
    nodes.append(node("Gemm", [state, "v", "z"], ["y"], transB=1, name="head"))
    constants = {"w": weights(4, 4), "r": weights(4, 4, seed=1), "b": weights(4, seed=2)}
    constants |= {"v": weights(3, 4, seed=3), "z": weights(3, seed=4)}
    return network(nodes, {"x": ["N", 4 * steps]}, {"y": ["N", 3]}, constants)


def test_a_written_out_cell_is_one_layer_a_matrix_with_the_positions_of_all_steps() -> None:
    model = cell()
    lowered = lower_and_compare(model)
    assert sorted(uses(lowered).values()) == [1, 3, 3]
    chip = load_chip("ideal")
    mapping = map_network(lowered, chip)
    assert sorted(layer.positions for layer in mapping.layers) == [1, 3, 3]
    assert mapping.cost.weights == 4 * 4 + 4 * 4 + 4 * 3
    assert mapping.schedule is not None
    # All steps wait for the one array: two layers, three times each, one after the other.
    assert mapping.cost.latency_ms == pytest.approx(sum(layer.latency_ms for layer in mapping.cost.layers))
    assert verify_mapping(model, lowered, mapping, chip).ideal < 1e-5
    assert [note for note in notes_of(lowered) if ITS_OWN in note] == [
        f"weight '{name}' (4 x 4) is one layer that 3 products use; {ITS_OWN} gives each its own" for name in "wr"
    ]


def test_a_bias_that_all_uses_add_is_the_layers_and_different_ones_stay_digital() -> None:
    lowered = lower(cell())
    assert (
        sorted(len(node.inputs) for nodes in crossbar_layers(lowered).values() for node in nodes) == [2] * 3 + [3] * 4
    )
    loaded = load_network(ir.to_proto(lowered).SerializeToString())
    assert len(loaded.trainable) == 2  # one bias for the three steps, one for the head
    for operator, kernel, shape in (("Gemm", (4, 4), [2, 4]), ("Conv", (4, 4, 1), ["N", 4, 5])):
        for biases in (("b", "c"), ("b", "")):
            nodes = [node(operator, ["x", "w", biases[0]], ["p"]), node(operator, ["p", "w", biases[1]], ["y"])]
            constants = {"w": weights(*kernel), "b": weights(4, seed=1)}
            if "c" in biases:
                constants["c"] = weights(4, seed=2)
            model = network(nodes, {"x": shape}, {"y": shape}, constants)
            lowered = lower_and_compare(model)
            assert list(uses(lowered).values()) == [2]
            loaded = load_network(ir.to_proto(lowered).SerializeToString())
            assert len(loaded.trainable) == len(set(biases) - {""})
            mapping = map_network(lowered, load_chip("ideal"))
            assert verify_mapping(model, lowered, mapping, load_chip("ideal")).ideal < 1e-5


def test_one_bias_of_two_uses_is_one_parameter() -> None:
    for operator, kernel, shape in (("Gemm", (4, 4), [2, 4]), ("Conv", (4, 4, 1), ["N", 4, 5])):
        nodes = [node(operator, ["x", "w", "b"], ["p"]), node(operator, ["p", "w", "b"], ["y"])]
        constants = {"w": weights(*kernel), "b": weights(4, seed=1)}
        lowered = lower_and_compare(network(nodes, {"x": shape}, {"y": shape}, constants))
        loaded = load_network(ir.to_proto(lowered).SerializeToString())
        assert loaded.trainable == (f"{next(iter(uses(lowered)))}.bias",)
    nodes = [
        node("ConvTranspose", ["x", "w", "b"], ["p"]),
        node("ConvTranspose", ["p", "w", "b"], ["y"]),
    ]
    constants = {"w": weights(4, 4, 1), "b": weights(4, seed=1)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 4, 5]}, {"y": ["N", 4, 5]}, constants))
    assert list(uses(lowered).values()) == [2]
    assert len(load_network(ir.to_proto(lowered).SerializeToString()).trainable) == 1


def test_a_kernel_on_maps_of_two_sizes_is_one_layer_and_with_another_stride_two() -> None:
    def heads(stride: int) -> ir.Model:
        nodes = [
            node("Conv", ["x", "k", "b"], ["p"], pads=[1, 1, 1, 1], name="first"),
            node("MaxPool", ["p"], ["q"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["q", "k", "b"], ["r"], pads=[1, 1, 1, 1], strides=[stride, stride], name="second"),
            node("GlobalAveragePool", ["p"], ["s"]),
            node("GlobalAveragePool", ["r"], ["t"]),
            node("Add", ["s", "t"], ["y"]),
        ]
        constants = {"k": weights(2, 2, 3, 3), "b": weights(2, seed=1)}
        return network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 2, 1, 1]}, constants)

    chip = load_chip("ideal")
    lowered = lower_and_compare(heads(1))
    mapping = map_network(lowered, chip)
    assert [layer.positions for layer in mapping.layers] == [8 * 8 + 4 * 4]
    assert verify_mapping(heads(1), lowered, mapping, chip).ideal < 1e-5
    lowered = lower_and_compare(heads(2))
    assert uses(lowered) == {"first": 1, "second": 1}
    assert any("'k' is used in 2 ways" in note for note in notes_of(lowered))


def test_transposed_and_scaled_uses_are_layers_of_their_own_and_that_is_said() -> None:
    for second, said in (
        (node("Gemm", ["p", "w"], ["y"], transB=1), "transposed"),
        (node("Gemm", ["p", "w"], ["y"], alpha=2.0), "scaled"),
    ):
        nodes = [node("MatMul", ["x", "w"], ["p"]), second]
        lowered = lower_and_compare(network(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": weights(4, 4)}))
        assert list(uses(lowered).values()) == [1, 1]
        (note,) = notes_of(lowered)
        assert said in note
        assert "trained apart" in note


def test_parts_of_one_constant_are_separate_layers_without_a_note() -> None:
    nodes = [
        node("Split", ["w"], ["w0", "w1"], axis=1, num_outputs=2),
        node("MatMul", ["x", "w0"], ["p"]),
        node("MatMul", ["x", "w1"], ["q"]),
        node("Add", ["p", "q"], ["y"]),
    ]
    lowered = lower_and_compare(network(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": weights(4, 8)}))
    assert len(uses(lowered)) == 2
    assert not notes_of(lowered)
    # Two entries of a stack are two layers, also where they hold the same.
    stack = np.stack([weights(4, 3)] * 2)
    model = network([node("MatMul", ["x", "w"], ["y"])], {"x": [2, 5, 4]}, {"y": [2, 5, 3]}, {"w": stack})
    assert list(uses(lower_and_compare(model)).values()) == [1, 1]


def test_a_table_that_is_a_layer_too_stays_apart_and_that_is_said() -> None:
    nodes = [
        node("Gather", ["table", "tokens"], ["e"]),
        node("Transpose", ["table"], ["turned"]),
        node("MatMul", ["e", "turned"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["N", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3, 6])],
        [onnx.numpy_helper.from_array(weights(6, 4), "table")],
    )
    lowered = lower(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])))
    assert notes_of(lowered) == ("table 'table' is the weight of a layer too; table and layer are trained apart",)


def pair(weight: np.ndarray, names: tuple[str, str], modules: tuple[str, str]) -> ir.Model:
    """Two products with one stored weight, the second through an Identity where it has another name."""
    nodes = [
        node("MatMul", ["x", names[0]], ["p"], name=f"{modules[0]}/MatMul"),
        node("MatMul", ["p", names[1]], ["y"], name=f"{modules[1]}/MatMul_1"),
    ]
    if names[0] != names[1]:
        nodes.insert(0, node("Identity", [names[0]], [names[1]]))
    rows, columns = weight.shape
    return network(nodes, {"x": ["N", rows]}, {"y": ["N", columns]}, {names[0]: weight})


@pytest.mark.parametrize(
    ("weight", "names", "modules", "layers"),
    [
        (weights(4, 4), ("w", "w"), ("/a", "/b"), {"auto": 1, "always": 1, "never": 2}),
        # Equal by chance: nothing was trained yet.
        (np.zeros((4, 4), np.float32), ("w", "w"), ("/a", "/b"), {"auto": 2, "always": 1, "never": 2}),
        (np.ones((1, 1), np.float32), ("w", "w"), ("/a", "/b"), {"auto": 2, "always": 1, "never": 2}),
        # PyTorch stores equal parameters once, and names the others by an Identity.
        (weights(4, 4), ("0.w", "1.w"), ("/a", "/a"), {"auto": 2, "always": 1, "never": 2}),
        (weights(4, 4), ("onnx::MatMul_8", "onnx::MatMul_9"), ("/0", "/1"), {"auto": 2, "always": 1, "never": 2}),
        # It computes a transpose anew for each call of one module.
        (weights(4, 4), ("onnx::MatMul_8", "onnx::MatMul_9"), ("/a", "/a"), {"auto": 1, "always": 1, "never": 2}),
    ],
)
def test_weights_that_are_equal_by_chance_are_told_apart(
    weight: np.ndarray, names: tuple[str, str], modules: tuple[str, str], layers: dict[str, int]
) -> None:
    model = pair(weight, names, modules)
    for sharing, expected in layers.items():
        lowered = lower(model, share_weights=ShareWeights(sharing))
        assert len(uses(lowered)) == expected, sharing
        (note,) = notes_of(lowered)
        assert f"'{names[0]}'" in note
        assert ("is trained apart" in note) == (expected == 2)
        feeds = random_inputs(model, 2, 0)
        assert difference(run(model, feeds), run(lowered, feeds)) < 1e-5


def test_a_parameter_of_its_own_name_is_shared_by_its_own_uses() -> None:
    """Two modules, equal before training and so stored once, each called twice: two layers with two uses each."""
    nodes = [node("Identity", ["0.w"], ["1.w"])]
    value = "x"
    for index, name in enumerate(("0.w", "1.w", "0.w", "1.w")):
        nodes.append(node("MatMul", [value, name], [f"h{index}"]))
        value = f"h{index}"
    lowered = lower_and_compare(network(nodes, {"x": ["N", 4]}, {"h3": ["N", 4]}, {"0.w": weights(4, 4)}))
    assert list(uses(lowered).values()) == [2, 2]
    # Also where no product uses the first name.
    nodes = [nodes[0], node("MatMul", ["x", "1.w"], ["h"]), node("MatMul", ["h", "1.w"], ["y"])]
    lowered = lower_and_compare(network(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"0.w": weights(4, 4)}))
    assert list(uses(lowered).values()) == [2]
    assert not any("apart" in note for note in notes_of(lowered))


def test_recurrent_operators_with_one_weight_are_layers_of_their_own_and_that_is_said() -> None:
    nodes = [
        node("RNN", ["x", "w", "r"], ["a"], hidden_size=3),
        node("Squeeze", ["a", "one"], ["b"]),
        node("RNN", ["b", "w", "r"], ["c"], hidden_size=3),
        node("Squeeze", ["c", "one"], ["y"]),
    ]
    constants = {"w": weights(1, 3, 3), "r": weights(1, 3, 3, seed=1), "one": np.array([1])}
    lowered = lower_and_compare(network(nodes, {"x": [4, "N", 3]}, {"y": [4, "N", 3]}, constants))
    assert len(uses(lowered)) == 4
    assert [note.split(" and ")[0] for note in notes_of(lowered)] == [
        f"weight '{name}' serves 2 products" for name in "wr"
    ]


def test_the_gradient_of_a_shared_weight_is_the_sum_over_its_uses() -> None:
    """The judge is the network with a weight of its own for each use."""

    def gradients(sharing: ShareWeights) -> tuple[Any, dict[str, Any]]:
        lowered, chip = lower(cell(), share_weights=sharing), load_chip("ideal")
        loaded = load_network(ir.to_proto(lowered).SerializeToString())
        system = build_system(loaded, map_network(lowered, chip), chip)
        state = initial_state(system)

        def loss(weight: Any, digital: Any) -> Any:
            product = exact_product(system, {**state, "weight": weight, "digital": digital})
            feeds = {loaded.input: jnp.asarray(x)}
            outputs, _ = run_network(loaded, feeds, product, digital, state["statistics"])
            (y,) = outputs.values()
            return jnp.sum(y * jnp.asarray(direction))

        x, direction = np.abs(weights(5, 12, seed=7)), weights(5, 3, seed=8)
        grads = jax.grad(loss, argnums=(0, 1))(state["weight"], state["digital"])
        arrays = {name: constant(nodes[0].inputs[1]) for name, nodes in crossbar_layers(lowered).items()}
        return grads, arrays

    (shared, shared_digital), arrays = gradients(ShareWeights.auto)
    (alone, alone_digital), copies = gradients(ShareWeights.never)
    assert (len(shared), len(alone)) == (3, 7)
    for name, gradient in shared.items():
        parts = [alone[copy] for copy, array in copies.items() if np.array_equal(array, arrays[name])]
        np.testing.assert_allclose(gradient, np.sum(parts, axis=0), rtol=1e-4, atol=1e-5)
    biases = [name for name in shared_digital if name.endswith(".bias")]
    total = np.sum([value.sum() for name, value in alone_digital.items() if name.endswith(".bias")])
    np.testing.assert_allclose(np.sum([shared_digital[name].sum() for name in biases]), total, rtol=1e-4)
