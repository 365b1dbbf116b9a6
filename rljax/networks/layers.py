"""Dense layers, whose outputs acting records and the update reuses; their initialisation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dense(nn.Dense):
    """A dense layer whose output can be recorded when acting and reused in the update. Gradients
    flow through a reused output as through a computed one."""

    def __call__(self, x):
        recording = self.is_mutable_collection("recorded")
        known = () if recording else self.get_variable("recorded", "out", ())
        known = known[0] if len(known) == 1 else None  # a layer called twice has two
        own_product = self.dot_general is not None or self.dot_general_cls is not None
        if known is not None and known.shape[:-1] == x.shape[:-1] and not own_product:
            params = self.variables["params"]
            parts = x, params["kernel"], params.get("bias")
            x, kernel, bias = self.promote_dtype(*parts, dtype=self.dtype)
            return _known_dense(self.precision, x, kernel, bias, known)
        out = super().__call__(x)
        if not self.is_initializing():
            self.sow("recorded", "out", out)
        return out


def record(
    network: nn.Module, variables: Any, obs: jax.Array, *args: Any, method: str
) -> tuple[Any, Any]:
    """(result of `network.apply` on obs [B, ...] and further arguments of `method`, the outputs of
    its `Dense` layers for `reuse`: a pytree of arrays [B, ...]). Outputs whose first axis is not B
    are left out."""
    out, recorded = network.apply(variables, obs, *args, method=method, mutable=["recorded"])
    return out, jax.tree.map(lambda x: x if len(x) == len(obs) else None, recorded)


def reuse(variables: Any, recorded: Any) -> Any:
    """Variables with which `network.apply` reuses outputs recorded with the same parameters and
    observations, if there are any."""
    return variables if recorded is None else {**variables, **recorded}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _known_dense(precision, x, kernel, bias, out):
    """x @ kernel + bias (no bias if it is None), which is known to be `out`."""
    return out


def _known_dense_forward(precision, x, kernel, bias, out):
    return out, (x, kernel, bias)


def _known_dense_backward(precision, saved, gradient):
    x, kernel, bias = saved
    rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    to_x = jnp.matmul(columns, kernel.T, precision=precision).reshape(x.shape)
    to_kernel = jnp.matmul(rows.T, columns, precision=precision)
    to_bias = None if bias is None else jnp.sum(columns, axis=0)
    return to_x, to_kernel, to_bias, jnp.zeros_like(gradient)


_known_dense.defvjp(_known_dense_forward, _known_dense_backward)


def orthogonal(gain: float) -> Callable:
    """Initialiser: orthonormal columns, or rows if those are fewer, times a gain (Saxe et al. 2014,
    arXiv 1312.6120).

    Gram-Schmidt on a normal matrix gives the same distribution as the usual QR decomposition. XLA's
    takes several times as long to compile, and can hang on two CPU cores in a program that makes
    many networks at once.
    """

    def init(key, shape, dtype=jnp.float32):
        product = partial(jnp.matmul, precision="highest")  # a GPU's default is TF32
        rows, columns = shape
        long, short = max(shape), min(shape)

        def orthonormalize(i, q):
            before = jnp.where(jnp.arange(short)[None] < i, q, 0.0)
            column = q[:, i]
            for _ in range(2):  # the second time removes what rounding left
                column = column - product(before, product(before.T, column))
            return q.at[:, i].set(column / jnp.linalg.norm(column))

        q = jax.lax.fori_loop(0, short, orthonormalize, jax.random.normal(key, (long, short)))
        return (gain * (q if rows >= columns else q.T)).astype(dtype)

    return init


def dense(size: int, gain: float, name: str | None = None) -> Dense:
    """A dense layer of this size with orthogonal initial weights."""
    return Dense(size, kernel_init=orthogonal(gain), name=name)
