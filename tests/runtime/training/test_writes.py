"""The write scheduler knows the word line of every weight."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import cimc
from runtime.network.load import load_network
from runtime.system.state import build_system
from runtime.training.writes import word_lines

MODELS = Path(__file__).parents[3] / "models"


def lines_of(groups: int, column_block: int, shape: tuple[int, int]) -> Any:
    system: Any = SimpleNamespace(crossbars={"a": SimpleNamespace(groups=groups, column_block=column_block)})
    return np.asarray(word_lines(system, {"a": jnp.zeros(shape)})["a"])


def test_a_word_line_is_a_row_of_one_array() -> None:
    np.testing.assert_array_equal(lines_of(1, 8, (3, 5)), np.repeat([[0], [1], [2]], 5, axis=1))
    np.testing.assert_array_equal(lines_of(1, 2, (2, 5)), [[0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
    # Groups lie in arrays of their own, each with a column block that is not full.
    np.testing.assert_array_equal(lines_of(2, 2, (1, 6)), [[0, 0, 1, 2, 2, 3]])


@pytest.mark.parametrize("model", ["lenet1", "vgg8"])
def test_word_lines_are_those_of_the_blocks_of_the_mapping(model: str) -> None:
    artifact = cimc.compile(MODELS / f"{model}.onnx", "brram-256x64", verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    shapes = {layer.name: (layer.rows, layer.columns) for layer in artifact.mapping.layers}
    lines = word_lines(system, {name: jnp.zeros(shape) for name, shape in shapes.items()})
    seen: set[int] = set()
    for layer in artifact.mapping.layers:
        found = np.asarray(lines[layer.name])
        for start, stop in layer.column_bounds:
            block = found[:, start:stop]
            assert (block == block[:, :1]).all(), "one word line in a row of a column block"
            assert len(np.unique(block)) == len(block), "another one in each row"
            assert seen.isdisjoint(np.unique(block).tolist())
            seen.update(np.unique(block).tolist())
    assert seen == set(range(len(seen)))
