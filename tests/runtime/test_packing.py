"""Packing: arrays come back as they were, and each entry meets the scalar of its own array."""

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
    arrays = {name: jnp.asarray(random.random((2, 3)[:leading] + shape)) for name, shape in sizes.items()}
    packed = packing({name: jnp.zeros(shape) for name, shape in sizes.items()})
    vectors = pack(packed, arrays)
    back = unpack(packed, vectors)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert all(vector.shape[-1] % STRIP == 0 for vector in vectors)
    scalars = {name: jnp.float32(index + 2) for index, name in enumerate(sizes)}
    for name, spread_out in unpack(
        packed, [jnp.broadcast_to(s, v.shape[-1:]) for s, v in both(packed, scalars, vectors)]
    ).items():
        assert (np.asarray(spread_out) == scalars[name]).all()


def both(packed: module.Packing, scalars: dict, vectors: tuple) -> zip:
    return zip(spread(packed, scalars), vectors, strict=True)


def test_large_arrays_are_alone_and_not_copied_together() -> None:
    large = module.ALONE + STRIP
    arrays = {"a": jnp.ones(5), "large": jnp.ones((large // 16, 16)), "b": jnp.ones((2, 2))}
    packed = packing(arrays)
    assert [[name for name, _ in vector] for vector in packed] == [["a", "b"], ["large"]]
    assert [vector.size for vector in pack(packed, arrays)] == [16, large]
    assert spread(packed, {name: jnp.float32(3) for name in arrays})[1].ndim == 0
