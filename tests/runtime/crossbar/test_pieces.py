"""A layer in pieces gives what it gives in one, and noise that hangs on nothing but the seed and the sample."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cimc.window import Window
from runtime.crossbar import pieces
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.keys import new_key
from runtime.crossbar.layer import layer_output
from runtime.crossbar.pieces import Cut, Held, cut_layer, read_in_pieces
from runtime.crossbar.unfold import fold_output
from runtime.crossbar.xla import jit
from tests.runtime.crossbar.cases import channels_first, small_chip

STRIDED = Window((3, 2), (2, 1), (1, 0, 2, 1), (1, 2))
LAYERS = {
    "product": (Crossbar(small_chip("brram-256x64", 16), 16, 32, signed=True), (7, 40)),
    "convolution": (Crossbar(small_chip("brram-256x64", 18), 18, 32, signed=False, window=STRIDED), (4, 13, 9)),
    "groups": (Crossbar(small_chip("brram-soc", 18), 6, 32, signed=True, window=STRIDED, groups=4), (4, 13, 9)),
}


def case(name: str, samples: int = 5) -> tuple[Crossbar, np.ndarray, Held]:
    layer, shape = LAYERS[name]
    random = np.random.default_rng(3)
    x = random.uniform(-1 if layer.signed else 0, 1, (samples, *shape)).astype(np.float32)
    rows = shape[-1] if layer.window is None else shape[0] // layer.groups * 6
    conductance = random.uniform(5, 40, (2, rows, 8)).astype(np.float32)
    bias = random.normal(size=8).astype(np.float32)
    return layer, x, Held(*map(jnp.asarray, (conductance, np.float32(1), np.float32(0.9), np.float32(1.25), bias)))


def whole(layer: Crossbar, x: np.ndarray, held: Held) -> np.ndarray:
    """The layer in one, without noise."""
    weight = jnp.zeros(held.conductance.shape[1:])
    inputs = jnp.asarray(x.reshape(-1, x.shape[-1])).T if layer.window is None else channels_first(layer, x)
    y = jit(layer_output, static_argnums=0)(
        layer, inputs, weight, held.gain, held.bias, held.conductance, held.weight_range, held.input_range, None
    )
    if layer.window is None:
        return np.asarray(y).T.reshape(*x.shape[:-1], -1)
    return np.moveaxis(np.asarray(fold_output(y, inputs.shape, layer.window)), -1, 0)


def set_vectors(vectors: int, monkeypatch: Any) -> None:
    """Let a piece take so many vectors at most."""
    monkeypatch.setattr(pieces, "bytes_of_mvm", lambda *sizes: -(-pieces.PIECE_BYTES // vectors))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("vectors", [3, 100, 10_000])
def test_pieces_of_any_size_give_what_the_whole_layer_gives(name: str, vectors: int, monkeypatch: Any) -> None:
    layer, x, held = case(name)
    set_vectors(vectors, monkeypatch)
    np.testing.assert_array_equal(read_in_pieces(layer, x, held, None), whole(layer, x, held))


@pytest.mark.parametrize("name", LAYERS)
def test_the_noise_of_a_sample_is_its_own_whatever_comes_with_it(name: str) -> None:
    layer, x, held = case(name)
    key = new_key(4)
    together = read_in_pieces(layer, x, held, key, number=2)
    apart = np.concatenate([read_in_pieces(layer, x[2:], held, key, number=2, first=2)])
    np.testing.assert_array_equal(together[2:], apart)
    assert np.all(np.any(together != read_in_pieces(layer, x, held, key, number=3), axis=tuple(range(1, x.ndim))))
    same = np.repeat(x[:1], 4, axis=0)
    drawn = read_in_pieces(layer, same, held, key).reshape(4, -1)
    assert len(np.unique(drawn, axis=0)) == 4, "equal samples have equal noise"


@pytest.mark.parametrize("name", ["product", "convolution"])
def test_strips_of_one_sample_have_noise_of_the_stated_size_and_their_own(name: str, monkeypatch: Any) -> None:
    layer, x, held = case(name, samples=1)
    set_vectors(7, monkeypatch)
    clean = read_in_pieces(layer, x, held, None)
    errors = np.stack([read_in_pieces(layer, x, held, new_key(seed)) - clean for seed in range(200)])
    axis = 2 if layer.window else 1
    rows = np.moveaxis(errors, axis + 1, 1).reshape(200, errors.shape[axis + 1], -1)
    spread = rows.std(axis=(0, 2))
    assert spread.min() > 0.5 * spread.max() > 0, "a strip is noisier than another"
    first, last = rows[:, 0, :8].ravel(), rows[:, -1, :8].ravel()
    assert abs(np.corrcoef(first, last)[0, 1]) < 0.1, "strips share their noise"


def test_a_cut_holds_whole_samples_or_strips_of_about_equal_height() -> None:
    assert cut_layer(5_000, (10, 10), 1_000) == Cut(32, 1, 10), "the power of two below 50 samples"
    assert cut_layer(5_000, (10, 10), 5) == Cut(8, 1, 10), "few samples"
    assert cut_layer(0, (3, 5), 9) == Cut(1, 3, 1), "never less than a row"
    assert cut_layer(1_000, (70, 25), 9) == Cut(1, 2, 35), "equal strips, of 40 rows at most"


def test_no_samples_or_no_vectors_give_nothing() -> None:
    layer, x, held = case("product")
    assert read_in_pieces(layer, x[:0], held, None).shape == (0, 7, 8)
    assert read_in_pieces(layer, x[:, :0], held, None).shape == (5, 0, 8)
