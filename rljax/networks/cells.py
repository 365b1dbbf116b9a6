"""The recurrent cells LSTM and GRU, which take a whole rollout in few, large operations.

A step of a cell is the products of its inputs and of its last output with two matrices, and then
element by element the gates. Over a rollout the products of the inputs are one, and so is each
gradient of a matrix, after the loop and not added up in it; and what acting recorded is not
computed again. Other cells, `flax.linen`'s or a user's, are unrolled step by step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.networks import layers, products
from rljax.networks.layers import orthogonal


class Kind(NamedTuple):
    """What makes a cell of size H an LSTM or a GRU."""

    columns: int  # of the matrices, in multiples of H
    carried: int  # arrays [B, H], of which the last is the output
    bias: bool  # whether the recurrent product has one
    join: Callable
    """(product of the inputs, recurrent product) -> what the gates are computed of: a tuple of
    arrays; linear."""
    gates: Callable
    """(what `join` gives, the carry) -> the carry after the step; element by element."""


def _join_of_lstm(x, r):
    return (x + r,)


def _lstm(z, carry):
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000."""
    i, f, g, o = jnp.split(z[0], 4, axis=-1)
    c = _sigmoid(f) * carry[0] + _sigmoid(i) * jnp.tanh(g)
    return c, _sigmoid(o) * jnp.tanh(c)


def _sigmoid(x):
    return 0.5 * jnp.tanh(0.5 * x) + 0.5  # on a CPU 1.2 times as fast as XLA's own


def _join_of_gru(x, r):
    (of_x, x_n), (of_r, r_n) = (jnp.split(a, [a.shape[-1] * 2 // 3], axis=-1) for a in (x, r))
    return of_x + of_r, x_n, r_n


def _gru(z, carry):
    """Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the recurrent product."""
    r, u = jnp.split(_sigmoid(z[0]), 2, axis=-1)
    return ((1.0 - u) * jnp.tanh(z[1] + r * z[2]) + u * carry[0],)


KINDS = {
    "lstm": Kind(4, 2, False, _join_of_lstm, _lstm),
    "gru": Kind(3, 1, True, _join_of_gru, _gru),
}


class Cell(nn.RNNCellBase):
    """A cell of one of `KINDS`. What it carries, `Kind.carried` arrays [B, H], begins at 0."""

    kind: str
    size: int
    forget_bias: float  # initial bias of the second gate, which keeps what is carried

    def setup(self):
        columns, size = KINDS[self.kind].columns, self.size

        def bias(key, shape, dtype):
            return jnp.zeros(shape, dtype).at[size : 2 * size].set(self.forget_bias)

        make = partial(nn.Dense, columns * size, dot_general=products.fast_dot_general)
        self.inputs = make(kernel_init=orthogonal(columns**0.5), bias_init=bias)
        init = _of_each_gate(orthogonal(1.0))
        self.recurrent = make(kernel_init=init, use_bias=KINDS[self.kind].bias)

    def __call__(self, carry, x):
        """(the carry after the step, outputs [B, H]) for inputs [B, F]."""
        kind = KINDS[self.kind]
        z = kind.join(self.inputs(x), self.recurrent(carry[-1]))
        after = kind.gates(z, carry)
        layers.record_output(self, (z, after))
        return after, after[-1]

    def unroll(self, carry, x, done):
        """A rollout: (the carries after each step, outputs [T, B, H]) for inputs [T, B, F], the
        carry [B, H] before the first step, which is reset after steps that are done, bool [T, B].
        """
        known = layers.recorded_output(self)
        if known is not None:
            known = jax.tree.map(lambda a: a.reshape(*done.shape, -1), known)
        weights, x = self.recurrent.variables["params"], self.inputs(x)
        after = _unroll(KINDS[self.kind], x, weights, carry, done, known)
        return after, after[-1]

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        zeros = jnp.zeros((*input_shape[:-1], self.size))
        return (zeros,) * KINDS[self.kind].carried

    @property
    def num_feature_axes(self):
        return 1


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _unroll(kind, x, weights, first, done, known):
    return _unroll_forward(kind, x, weights, first, done, known)[0]


def _unroll_forward(kind, x, weights, first, done, known):
    if known is None:

        def step(carry, row):
            x, done = row
            z = kind.join(
                x, products.affine(None, carry[-1], weights["kernel"], weights.get("bias"))
            )
            after = kind.gates(z, carry)
            return _to_zeros(done, after), (z, after)

        _, (z, after) = jax.lax.scan(step, first, (x, done))
    else:
        z, after = known
    return after, (z, after, weights, first, done)


def _unroll_backward(kind, saved, gradient):
    z, after, weights, first, done = saved
    kernel = weights["kernel"]
    carried = before(first, after, done)
    split = _split(kind, kernel, done.shape[1:])
    back = jax.lax.optimization_barrier(kernel.T)  # as in `layers`

    def step(gradient, row):
        z, carried, done, of_after = row
        gradient = jax.tree.map(jnp.add, _to_zeros(done, gradient), of_after)
        gradient_z, gradient = jax.vjp(kind.gates, z, carried)[1](gradient)
        *others, of_output = gradient
        of_output = of_output + split(gradient_z)[1] @ back
        return (*others, of_output), gradient_z

    end = jax.tree.map(jnp.zeros_like, first)
    rows = z, carried, done, gradient
    of_first, gradient_z = jax.lax.scan(step, end, rows, reverse=True)
    to_inputs, to_recurrent = _split(kind, kernel, done.shape)(gradient_z)
    merged = [a.reshape(-1, a.shape[-1]) for a in (carried[-1], to_recurrent)]
    of_weights = {"kernel": products.of_kernel(*merged), "bias": merged[1].sum(axis=0)}
    return to_inputs, {name: of_weights[name] for name in weights}, of_first, None, None


_unroll.defvjp(_unroll_forward, _unroll_backward)


def _split(kind, kernel, shape):
    """The transpose of `kind.join`: the gradients of what it joined, [*shape, ...] each."""
    product = jax.ShapeDtypeStruct((*shape, kernel.shape[1]), kernel.dtype)
    return jax.linear_transpose(kind.join, product, product)


def reset(done: jax.Array, first: Any, carry: Any) -> Any:
    """What is carried, [..., *], or `first` where done, bool [...], of one episode or of many."""

    def chosen(first, now):
        ended = done.reshape(*done.shape, *[1] * (now.ndim - done.ndim))
        return jnp.where(ended, first.astype(now.dtype), now)

    return jax.tree.map(chosen, first, carry)


def before(first: Any, after: Any, done: jax.Array) -> Any:
    """What is carried to each step of a rollout, [T, B, ...], of what is carried after each,
    [T, B, ...], and to the first, [B, ...]. It begins an episode as zeros."""
    kept = _to_zeros(done, after)
    return jax.tree.map(lambda first, x: jnp.concatenate([first[None], x[:-1]]), first, kept)


def _to_zeros(done, carry):
    return reset(done, jax.tree.map(jnp.zeros_like, carry), carry)


def _of_each_gate(init):
    def init_all(key, shape, dtype=jnp.float32):
        rows, columns = shape
        keys = jax.random.split(key, columns // rows)
        return jnp.concatenate([init(key, (rows, rows), dtype) for key in keys], axis=1)

    return init_all
