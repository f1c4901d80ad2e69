"""Packing: arrays come back as they were, and each entry meets the scalar of its own array."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.training import vectors as module
from runtime.training.vectors import STRIP, pack, packing, spread, unpack

shapes = st.lists(st.integers(1, 12), min_size=0, max_size=3).map(tuple)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.sampled_from("abcdefgh"), shapes, min_size=1), st.integers(0, 2))
def test_arrays_come_back_as_they_were(sizes: dict[str, tuple[int, ...]], leading: int) -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.random((2, 3)[:leading] + shape).astype(np.float32) for name, shape in sizes.items()}
    zeros: Any = {name: np.zeros(shape, np.float32) for name, shape in sizes.items()}
    packed = packing(zeros)
    scalars: Any = {name: np.float32(index + 2) for index, name in enumerate(sizes)}

    @jax.jit  # one program an example, not one for each operation
    def there_and_back(arrays: dict[str, jax.Array]) -> tuple[Any, ...]:
        vectors = pack(packed, arrays)
        met = [jnp.broadcast_to(s, v.shape[-1:]) for s, v in zip(spread(packed, scalars), vectors, strict=True)]
        return vectors, unpack(packed, vectors), unpack(packed, met)

    vectors, back, met = there_and_back(arrays)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert all(vector.shape[-1] % STRIP == 0 for vector in vectors)
    for name, spread_out in met.items():
        assert (np.asarray(spread_out) == scalars[name]).all()


def test_large_arrays_are_alone_and_not_copied_together() -> None:
    large = module.ALONE + STRIP
    arrays = {"a": jnp.ones(5), "large": jnp.ones((large // 16, 16)), "b": jnp.ones((2, 2))}
    packed = packing(arrays)
    assert [[name for name, _ in vector] for vector in packed] == [["a", "b"], ["large"]]
    assert [vector.size for vector in pack(packed, arrays)] == [16, large]
    assert spread(packed, {name: jnp.float32(3) for name in arrays})[1].ndim == 0
