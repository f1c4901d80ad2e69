"""Plain float32 JAX, the network written with this tool's own operators and `lax.conv_general_dilated`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from runtime.network.run import run_network
from runtime.system.state import initial_state
from tests.benchmarks.peers.work import Runner, Work, serve
from tests.benchmarks.peers.worker_cimc import system_for


def prepare(work: Work) -> Runner:
    """The runner of a work."""
    system = system_for(work)
    state = initial_state(system)
    random = np.random.default_rng(0)
    shape = [size for size in system.network.inputs[system.network.input][1:] if size is not None]
    images = jnp.asarray(random.random((work.batch, *shape), np.float32))
    labels = jnp.asarray(random.integers(0, 10, work.batch))
    optimizer = optax.adam(0.002)
    parameters = {"weight": state["weight"], "digital": state["digital"]}

    def output_of(parameters):
        def product(name: str, x: jax.Array, key: jax.Array | None) -> jax.Array:
            weight, window = parameters["weight"][name], system.crossbars[name].window
            if window is None:
                y = weight.T @ x
            else:
                pads = list(zip(window.pads[:2], window.pads[2:], strict=True))
                kernel = weight.T.reshape(-1, x.shape[0], *window.kernel)
                axes = ("CHWN", "OIHW", "CHWN")
                y = jax.lax.conv_general_dilated(x, kernel, window.strides, pads, dimension_numbers=axes)
            bias = system.bias_names.get(name)
            return y if bias is None else y + parameters["digital"][bias].reshape(-1, *(1,) * (y.ndim - 1))

        training = work.mode == "train"
        outputs, _ = run_network(
            system.network,
            {system.network.input: images},
            product,
            parameters["digital"],
            state["statistics"],
            None,
            training,
        )
        return next(iter(outputs.values()))

    def loss_of(parameters):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output_of(parameters), labels))

    @jax.jit
    def step(parameters, moments):
        updates, moments = optimizer.update(jax.grad(loss_of)(parameters), moments)
        return optax.apply_updates(parameters, updates), moments

    predict = jax.jit(output_of)
    moments = optimizer.init(parameters)

    def train(steps: int) -> int:
        nonlocal parameters, moments
        for _ in range(steps):
            parameters, moments = step(parameters, moments)
        jax.block_until_ready(parameters)
        return steps

    def infer(steps: int) -> int:
        for _ in range(steps):
            outputs = predict(parameters)
        outputs.block_until_ready()
        return steps

    return train if work.mode == "train" else infer


if __name__ == "__main__":
    serve(prepare)
