"""How a step finds its gradients: backward, or forward only, by directional derivatives along random tangents.

With the loss f, parameters theta and m tangents u_i of independent signs, +1 or -1 (their variance is the least):

    weights      c_i = <grad f, u_i>, one jvp each      g = 1/m sum_i c_i u_i                    unbiased
    projected    the same c; rows of U are the u_i      g = U^T (U U^T)^-1 c                     the gradient, projected
    activities   tangents u_ilb on the outputs of each
                 layer l and sample b; c_ib is what     g_l = 1/m sum_i sum_b c_ib x_lb u_ilb^T  unbiased
                 they change that sample's loss by

The variance of `weights` grows with the number of weights, that of `activities` with the number of outputs, over the
samples of a batch. Sources: Baydin et al. (arXiv 2202.08587) for `weights`, arXiv 2410.17764 for the projection, Ren et
al. (ICLR 2023) for `activities`.

Tangents pass a layer by the rule that a backward pass transposes (`runtime.crossbar.layer`): the arrays are read once,
forward, and beside them the digital copy is multiplied. Nothing is passed back from layer to layer. `weights` and
`projected` keep nothing of a layer once the next one is computed; `activities` keeps each layer's input until the loss
is known.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.errors import CimcError
from cimc.options import Backward, Gradient
from runtime.crossbar.keys import derive
from runtime.network.run import Values
from runtime.network.scan import Product
from runtime.system.state import System

BESIDE = 1 << 20  # number of a key below that of a tangent, which numbers the layers as they are computed

# By group (weight: crossbar weights; digital) and name.
Parameters = dict[str, dict[str, Array]]
# Loss, statistics and gradients.
Found = tuple[Array, Values, Parameters]


class ForwardPass(NamedTuple):
    """The forward pass of a batch, in parts.

    system: of the network. product: computes crossbar layers with these parameters. run: the network with these
    parameters and that product; its logits by output, and the statistics. loss: of the logits. samples: in the batch.
    """

    system: System
    product: Callable[[Parameters], Product]
    run: Callable[[Parameters, Product], tuple[Values, Values]]
    loss: Callable[[Values], Array]
    samples: int


def check_gradient(gradient: Gradient, backward: Backward, system: System) -> None:
    """Raises CimcError where gradients of this kind are not defined for the network or with the other options."""
    if gradient is Gradient.backward:
        return
    if backward is Backward.analog:
        raise CimcError(f"--gradient {gradient} has no backward pass that --backward analog could read; leave one out")
    if gradient is not Gradient.activities:
        return
    for node in system.network.nodes:
        if node.body is not None:
            raise CimcError(
                f"--gradient activities does not know loops such as {node.operator} '{node.name}'; use --gradient "
                "weights or projected"
            )
        if node.operator == "BatchNormalization":
            raise CimcError(
                f"--gradient activities needs samples that do not see each other, and {node.operator} '{node.name}' "
                "takes its statistics from all of a batch; use --gradient weights or projected"
            )


def find_gradients(
    gradient: Gradient, tangents: int, forward: ForwardPass, parameters: Parameters, key: Array
) -> Found:
    """Loss, statistics and gradients at these parameters.

    Args:
        gradient: how they are found.
        tangents: how many a step; backward needs none.
        forward: the forward pass.
        parameters: of the network.
        key: for the tangents.

    Raises:
        CimcError: activities, and a layer's outputs are not those of one sample after the other.
    """

    def loss_of(parameters: Parameters) -> tuple[Array, Values]:
        outputs, statistics = forward.run(parameters, forward.product(parameters))
        return forward.loss(outputs), statistics

    if gradient is Gradient.backward:
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(parameters)
        return loss, statistics, gradients
    keys = jax.random.split(key, tangents)
    if gradient is Gradient.activities:
        return _along_activities(forward, parameters, keys)
    return _along_parameters(loss_of, parameters, keys, projected=gradient is Gradient.projected)


def signs(key: Array, shape: tuple[int, ...]) -> Array:
    """Independent signs, -1.0 or +1.0 with equal probability."""
    return 1.0 - 2.0 * (jax.random.bits(key, shape, jnp.uint32) >> 31).astype(jnp.float32)


def _like(parameters: Any, key: Array) -> Any:
    """A tangent of these parameters."""
    leaves, structure = jax.tree.flatten(parameters)
    return jax.tree.unflatten(structure, [signs(derive(key, n), leaf.shape) for n, leaf in enumerate(leaves)])


def _along_parameters(
    loss_of: Callable[[Parameters], tuple[Array, Values]], parameters: Parameters, keys: Array, *, projected: bool
) -> Found:
    def along(key: Array) -> tuple[Array, Values, Array, Parameters]:
        tangent = _like(parameters, key)
        loss, change, statistics = jax.jvp(loss_of, (parameters,), (tangent,), has_aux=True)
        return loss, statistics, change, tangent

    # The loss does not depend on the tangent: the arrays are read once for all of them.
    loss, statistics, changes, tangents = jax.vmap(along, out_axes=(None, None, 0, 0))(keys)
    shares = changes / len(keys)
    if projected:
        rows = [leaf.reshape(len(keys), -1) for leaf in jax.tree.leaves(tangents)]
        # More tangents than parameters, or equal ones, leave the product singular: then the least solution.
        shares = jnp.linalg.pinv(sum(row @ row.T for row in rows), hermitian=True) @ changes
    return loss, statistics, jax.tree.map(lambda tangent: jnp.tensordot(shares, tangent, 1), tangents)


@jax.custom_jvp
def _nudged(y: Array, direction: Array, by: Array) -> Array:
    """y, which moves along the direction when `by`, that stands at 0, does: y does not depend on the direction."""
    return y


@_nudged.defjvp
def _move(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    return primals[0], tangents[0] + primals[1] * tangents[2]


def _along_activities(forward: ForwardPass, parameters: Parameters, keys: Array) -> Found:
    """Parameters outside of the layers' products, such as gains, have tangents of their own beside."""
    biases = forward.system.bias_names
    within = set(biases.values())
    beside = {name: value for name, value in parameters["digital"].items() if name not in within}
    calls: list[tuple[str, tuple[int, ...]]] = []  # layer and shape of its output, in the order of the network

    def run(by: Array, others: Values, key: Array) -> tuple[Values, tuple[Values, list[Array]]]:
        trial = {**parameters, "digital": {**parameters["digital"], **others}}
        product, inputs = forward.product(trial), []
        calls.clear()

        def nudged(name: str, x: Array, read_key: Array | None) -> Array:
            y = product(name, x, read_key)
            if (forward.system.crossbars[name].window is None and y.ndim > 2) or y.shape[-1] != forward.samples:
                raise CimcError(
                    f"--gradient activities needs a vector or an image of each sample in every layer, and {name} has "
                    "more; use --gradient weights or projected"
                )
            direction = _directions(key[None], len(calls), y.shape)[0]
            calls.append((name, y.shape))
            inputs.append(x)
            return _nudged(y, direction, by)

        outputs, statistics = forward.run(trial, nudged)
        return outputs, (statistics, inputs)

    def along(key: Array) -> tuple[Values, Values, Values, list[Array], Values]:
        tangent = _like(beside, derive(key, BESIDE))
        start, moves = (jnp.float32(0), beside), (jnp.float32(1), tangent)
        outputs, changes, (statistics, inputs) = jax.jvp(partial(run, key=key), start, moves, has_aux=True)
        return outputs, statistics, changes, inputs, tangent

    outputs, statistics, changes, inputs, tangents = jax.vmap(along, out_axes=(None, None, 0, None, 0))(keys)
    loss, slopes = jax.value_and_grad(forward.loss)(outputs)
    # [tangents, samples]: by how much each sample's loss changes.
    each = sum(
        jnp.sum((slopes[name] * change).reshape(len(keys), forward.samples, -1), axis=2)
        for name, change in changes.items()
    )
    gradients = jax.tree.map(jnp.zeros_like, parameters)
    total = jnp.sum(each, axis=1) / len(keys)
    for name, tangent in tangents.items():
        gradients["digital"][name] = jnp.tensordot(total, tangent, 1)
    for number, ((name, shape), x) in enumerate(zip(calls, inputs, strict=True)):
        if name not in parameters["weight"]:  # frozen
            continue
        y_bar = jnp.einsum("i...b,ib->...b", _directions(keys, number, shape), each / len(keys))
        for group, found in _of_layer(forward, parameters, name, x, y_bar).items():
            for parameter, gradient in found.items():
                gradients[group][parameter] += gradient
    return loss, statistics, gradients


def _directions(keys: Array, call: int, shape: tuple[int, ...]) -> Array:
    """The tangents on the output of the layer that is computed as number `call`: [tangents, *shape]."""
    return jax.vmap(lambda key: signs(derive(key, call), shape))(keys)


def _of_layer(forward: ForwardPass, parameters: Parameters, name: str, x: Array, y_bar: Array) -> Parameters:
    """Gradients of a layer's weights and bias alone, from its input and the gradient of its output."""
    own: Parameters = {"weight": {name: parameters["weight"][name]}, "digital": {}}
    bias = forward.system.bias_names.get(name)
    if bias in parameters["digital"]:
        own["digital"][bias] = parameters["digital"][bias]

    def layer(own: Parameters) -> Array:
        return forward.product({group: {**parameters[group], **own[group]} for group in parameters})(name, x, None)

    (found,) = jax.vjp(layer, own)[1](y_bar)
    return found
