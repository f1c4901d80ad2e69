"""Compiled functions of networks that are gone are dropped when the process has grown, and not before."""

import gc
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from runtime.crossbar import xla


class Network:
    """Stands for what compiled functions are made for."""


@partial(jax.jit, static_argnums=0)
def run(network: Network, x: jax.Array) -> jax.Array:
    return x + 1


@pytest.mark.parametrize("grown", [True, False])
def test_what_was_compiled_for_a_network_goes_when_memory_has_grown(
    grown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = iter((0, xla.GROWS_BYTES + (1 if grown else -1), 0, 0))
    monkeypatch.setattr(xla, "_resident_bytes", lambda: next(held))
    monkeypatch.setattr(xla, "_grown_from", None)
    cleared: list[bool] = []
    clear = jax.clear_caches

    def noted() -> None:
        cleared.append(True)
        clear()

    monkeypatch.setattr(jax, "clear_caches", noted)
    network = Network()
    run(network, jnp.zeros(2)).block_until_ready()
    gone = weakref.ref(network)
    del network
    xla.drop_old_programs()
    assert not cleared
    xla.drop_old_programs()
    assert bool(cleared) == grown
    gc.collect()
    assert (gone() is None) == grown


def test_the_memory_of_this_process_is_told() -> None:
    assert 2**26 < xla._resident_bytes() < 2**38
