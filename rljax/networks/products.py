"""Products of matrices, whose gradients are in the form that a CPU is fast at."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def fast_dot_general(x, kernel, dimension_numbers, precision=None, **_):
    """`jax.lax.dot_general`, as a dense layer calls it, with the gradient in the form that a CPU is
    fast at."""
    return product(precision, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(precision: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., I] @ [I, O], with its gradient in the form that a CPU is fast at."""
    return jnp.matmul(x, kernel, precision=precision)


def _product_forward(precision, x, kernel):
    return product(precision, x, kernel), (x, kernel)


def _product_backward(precision, saved, gradient):
    x, kernel = saved
    rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return jnp.matmul(gradient, kernel.T, precision=precision), of_kernel(rows, columns, precision)


product.defvjp(_product_forward, _product_backward)


def of_kernel(rows: jax.Array, columns: jax.Array, precision: Any = None) -> jax.Array:
    """[I, O] the gradient of a kernel, for inputs [N, I] and gradients of their products [N, O].

    On a CPU, XLA hands a product to its fast kernels only if neither matrix is transposed, and they
    take as long for one column as for 16. So the matrix of inputs is transposed first (of [80, 4]
    and [80, 64]: 0.8 us instead of 12.4; of [8192, 64] twice: 870 instead of 1,010), and few
    outputs are taken one by one (of [8192, 64] and [8192, 2]: 59 us instead of 650).
    """
    matmul = partial(jnp.matmul, precision=precision)

    def by_column(rows, columns):
        products = [matmul(columns[:, i], rows) for i in range(columns.shape[1])]
        return jnp.stack(products, axis=1)

    def transposed(rows, columns):
        return matmul(jax.lax.optimization_barrier(rows.T), columns)

    def usual(rows, columns):
        return matmul(rows.T, columns)

    on_cpu = by_column if columns.shape[1] <= 8 else transposed
    return jax.lax.platform_dependent(rows, columns, cpu=on_cpu, default=usual)


def affine(precision: Any, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """What a dense layer gives for inputs [..., I]: [..., O]."""
    out = product(precision, x, kernel)
    return out if bias is None else out + jnp.broadcast_to(bias, out.shape)
