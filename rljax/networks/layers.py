"""Dense layers, whose outputs acting records and the update reuses; their initialisation."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks import convolutions, products


class Dense(nn.Dense):
    """A dense layer whose output can be recorded when acting and reused in the update."""

    def __call__(self, x):
        known = recorded_output(self)
        own_product = (
            self.dot_general not in (None, products.fast_dot_general) or self.dot_general_cls
        )
        if known is not None and known.shape[:-1] == x.shape[:-1] and not own_product:
            params = self.variables["params"]
            parts = x, params["kernel"], params.get("bias")
            parts = self.promote_dtype(*parts, dtype=self.dtype)
            return _reused(partial(products.affine, self.precision), *parts, known)
        return record_output(self, super().__call__(x))


class Conv(nn.Module):
    """A convolution of images [B, H, W, C] with square kernels, without padding, and with
    orthogonal initial weights; its output is recorded and reused as that of `Dense`."""

    size: int  # channels of its output
    gain: float
    width: int = 3  # of the kernel, a multiple of the stride
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        if self.width % self.stride:
            raise ValueError(f"width = {self.width}: must be a multiple of stride = {self.stride}")
        shape = self.width**2 * x.shape[-1], self.size
        kernel = self.param("kernel", orthogonal(self.gain), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.size,))
        known = recorded_output(self)
        convolution = partial(convolutions.convolution, self.stride)
        if known is not None and known.shape[:-3] == x.shape[:-3]:
            return _reused(convolution, x, kernel, bias, known)
        return record_output(self, convolution(x, kernel, bias))


def activate(module: nn.Module, name: str, function: Callable, x: jax.Array) -> jax.Array:
    """function(x), of each number of [B, ...]. Of tanh and ReLU, whose derivatives follow from
    their outputs, the output is recorded and reused as that of `Dense`; `name` is its name in the
    module."""
    derivative = _DERIVATIVES.get(function)
    if derivative is None:
        return function(x)
    known = recorded_output(module, name)
    if known is not None and known.shape == x.shape:
        return _activated(function, derivative, x, known)
    return record_output(module, function(x), name)


_DERIVATIVES = {nn.tanh: lambda out: 1.0 - jnp.square(out), nn.relu: lambda out: out > 0}


def record(
    network: nn.Module, variables: Any, obs: jax.Array, *args: Any, method: str
) -> tuple[Any, Any]:
    """(result of `network.apply` on obs [B, ...] and further arguments of `method`, the outputs of
    its `Dense` and `Conv` layers for `reuse`: a pytree of arrays [B, ...]). Those whose first axis
    is not B are left out."""
    out, recorded = network.apply(variables, obs, *args, method=method, mutable=["recorded"])
    return out, jax.tree.map(lambda x: x if len(x) == len(obs) else None, recorded)


def reuse(variables: Any, recorded: Any) -> Any:
    """Variables with which `network.apply` reuses outputs recorded with the same parameters and
    observations, if there are any."""
    if recorded is None:
        return variables
    # A vector, of `actor_critic.Raveled`, has a name beside what was recorded.
    named = variables if isinstance(variables, Mapping) else {"raveled": variables}
    return {**named, **recorded}


def _known(function, *args):
    """function(*args[:-1]), which is known to be the last. A GPU computes it anew: on an H100, in
    turn, that makes 1.11 times the steps/s of writing and reading it (CartPole 65536x16). On a CPU,
    reusing it makes 1.06 times as many (16x5)."""
    known = lambda *args: args[-1]  # noqa: E731
    anew = lambda *args: function(*args[:-1])  # noqa: E731
    return jax.lax.platform_dependent(*args, cpu=known, default=anew)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _reused(function, x, kernel, bias, out):
    """function(x, kernel, bias), which is known to be `out`. Gradients flow through it as through a
    computed one."""
    return _known(function, x, kernel, bias, out)


def _reused_forward(function, x, kernel, bias, out):
    return _reused(function, x, kernel, bias, out), (x, kernel, bias)


def _reused_backward(function, inputs, gradient):
    return *jax.vjp(function, *inputs)[1](gradient), jnp.zeros_like(gradient)


_reused.defvjp(_reused_forward, _reused_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _activated(function, derivative, x, out):
    """function(x), which is known to be `out`, and its derivative there, `derivative(out)`."""
    return _known(function, x, out)


def _activated_forward(function, derivative, x, out):
    out = _activated(function, derivative, x, out)
    return out, out


def _activated_backward(function, derivative, out, gradient):
    return gradient * derivative(out), jnp.zeros_like(gradient)


_activated.defvjp(_activated_forward, _activated_backward)


def recorded_output(layer: nn.Module, name: str = "out") -> Any:
    """What acting recorded of a layer, or None. A layer called twice has two outputs."""
    recording = layer.is_mutable_collection("recorded")
    known = () if recording else layer.get_variable("recorded", name, ())
    return known[0] if len(known) == 1 else None


def record_output(layer: nn.Module, out: Any, name: str = "out") -> Any:
    """A layer's output, arrays [B, ...], which `record` gives if that is what runs the network."""
    if not layer.is_initializing():
        layer.sow("recorded", name, out)
    return out


def orthogonal(gain: float) -> Callable:
    """Initialiser: orthonormal columns, or rows if those are fewer, times a gain (Saxe et al. 2014,
    arXiv 1312.6120).

    Gram-Schmidt on a normal matrix gives the same distribution as the usual QR decomposition. XLA's
    takes several times as long to compile, and can hang on a CPU where there are as many at once as
    threads (`platform.cpu_devices`).
    """

    def init(key, shape, dtype=jnp.float32):
        return (gain * _orthonormal(key, shape)).astype(dtype)

    return init


@partial(jax.jit, static_argnums=1)  # Flax traces an initialiser at each call of its layer
def _orthonormal(key, shape):
    product = partial(jnp.matmul, precision="highest")  # a GPU's default is TF32
    rows, columns = shape
    long, short = max(shape), min(shape)

    def without(before, x):
        for _ in range(2):  # the second time removes what rounding left
            x = x - product(before, product(before.T, x))
        return x

    def orthonormalize(i, q):
        before = jnp.where(jnp.arange(q.shape[1])[None] < i, q, 0.0)
        column = without(before, q[:, i])
        return q.at[:, i].set(column / jnp.linalg.norm(column))

    # Each column reads all of its block: in one block, 3136 x 512 took 15 s instead of 1.
    done, drawn = [], jax.random.normal(key, (long, short))
    for start in range(0, short, 128):
        block = drawn[:, start : start + 128]
        block = without(jnp.concatenate(done, axis=1), block) if done else block
        done.append(jax.lax.fori_loop(0, block.shape[1], orthonormalize, block))
    q = jnp.concatenate(done, axis=1)
    return q if rows >= columns else q.T


def dense(size: int, gain: float, name: str | None = None) -> Dense:
    """A dense layer of this size with orthogonal initial weights, its gradient in the form that a
    CPU is fast at. It has no forward-mode derivative, which `Dense` has."""
    return Dense(
        size, kernel_init=orthogonal(gain), name=name, dot_general=products.fast_dot_general
    )
