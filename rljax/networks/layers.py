"""Dense layers, whose outputs acting records and the update reuses; their initialisation."""

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dense(nn.Dense):
    """A dense layer whose output can be recorded when acting and reused in the update."""

    def __call__(self, x):
        known = recorded_output(self)
        own_product = self.dot_general not in (None, fast_dot_general) or self.dot_general_cls
        if known is not None and known.shape[:-1] == x.shape[:-1] and not own_product:
            params = self.variables["params"]
            parts = x, params["kernel"], params.get("bias")
            parts = self.promote_dtype(*parts, dtype=self.dtype)
            return _reused(partial(affine, self.precision), *parts, known)
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
        convolution = partial(_convolution, self.stride)
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


def fast_dot_general(x, kernel, dimension_numbers, precision=None, **_):
    """`jax.lax.dot_general`, as a dense layer calls it, with the gradient in the form that a CPU is
    fast at."""
    return _product(precision, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(precision, x, kernel):
    """[..., I] @ [I, O]."""
    return jnp.matmul(x, kernel, precision=precision)


def _product_forward(precision, x, kernel):
    return _product(precision, x, kernel), (x, kernel)


def _product_backward(precision, saved, gradient):
    x, kernel = saved
    rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    return jnp.matmul(gradient, kernel.T, precision=precision), of_kernel(rows, columns, precision)


_product.defvjp(_product_forward, _product_backward)


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
    out = _product(precision, x, kernel)
    return out if bias is None else out + jnp.broadcast_to(bias, out.shape)


def _convolution(stride, x, kernel, bias):
    """Of images [B, H, W, C] with a kernel [K * K * C, size], for each pixel of a K x K patch and
    each channel in turn.

    On a CPU it is dense layers (`_convolution_on_cpu`): inside a loop, where the update runs, the
    gradient of XLA's convolution is 30 times slower. On an H100, in turn, XLA's convolution makes
    1.04 times the steps/s and takes 1,257 MiB instead of 2,058, as there are no nine copies of the
    image (Breakout-MinAtar 4096x16).
    """
    width = math.isqrt(len(kernel) // x.shape[-1])

    def of_images(x, kernel):
        kernel = kernel.reshape(width, width, x.shape[-1], kernel.shape[-1])
        how = dict(window_strides=(stride, stride), padding="VALID")
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, **how, dimension_numbers=axes)

    on_cpu = partial(_convolution_on_cpu, width // stride, stride)
    out = jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=of_images)
    return out + jnp.broadcast_to(bias, out.shape)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _convolution_on_cpu(number, stride, x, kernel):
    """`_dense_convolution`, its gradient in blocks of images that fit a CPU's cache."""
    return _dense_convolution(number, stride, x, kernel)


def _convolution_forward(number, stride, x, kernel):
    return _dense_convolution(number, stride, x, kernel), (x, kernel)


def _convolution_backward(number, stride, saved, gradient):
    x, kernel = saved
    pixels = x.shape[1] // stride * (x.shape[2] // stride)
    channels = min(kernel.shape[1], x.shape[3] * stride**2)
    rows = max(1, IN_CACHE // (4 * pixels * number**2 * channels))

    def of_block(x, gradient):
        return jax.vjp(partial(_dense_convolution, number, stride), x, kernel)[1](gradient)

    whole = len(x) - len(x) % rows
    if whole <= rows:
        return of_block(x, gradient)

    def step(of_kernel, block):
        of_x, more = of_block(*block)
        return of_kernel + more, of_x

    blocks = [y[:whole].reshape(-1, rows, *y.shape[1:]) for y in (x, gradient)]
    of_kernel, of_x = jax.lax.scan(step, jnp.zeros_like(kernel), blocks)
    of_x = of_x.reshape(whole, *x.shape[1:])
    if whole < len(x):
        of_rest, more = of_block(x[whole:], gradient[whole:])
        of_x, of_kernel = jnp.concatenate([of_x, of_rest]), of_kernel + more
    return of_x, of_kernel


_convolution_on_cpu.defvjp(_convolution_forward, _convolution_backward)
IN_CACHE = 2**20
"""Bytes of a block's patches or products."""


def _dense_convolution(number, stride, x, kernel):
    """As `_convolution`, with a kernel `number` strides wide.

    Squares of stride x stride pixels become single ones of more channels; then the stride is 1.
    Either the patches of `number` x `number` of them are multiplied with the kernel or, where that
    is less to write and read, all of them are multiplied with all places of the kernel, and the
    products of a patch are summed. The gradient of 80 images in the Nature network takes 86 ms so
    on one core, with XLA's convolutions 195, all as patches 160 (gradients of their products as XLA
    makes them), and 58 in PyTorch.
    """
    size, channels = kernel.shape[-1], x.shape[-1]
    height, width = (length // stride - number + 1 for length in x.shape[1:3])
    rows, columns = height + number - 1, width + number - 1
    if stride > 1:
        x = x[:, : rows * stride, : columns * stride]
        x = jnp.moveaxis(x.reshape(len(x), rows, stride, columns, stride, channels), 2, 3)
        x = jax.lax.optimization_barrier(x.reshape(len(x), rows, columns, -1))
        kernel = kernel.reshape(number, stride, number, stride, channels, size)
        kernel = jnp.moveaxis(kernel, 1, 2)
    kernel = kernel.reshape(number**2, x.shape[-1], size)
    if size >= x.shape[-1]:
        places = itertools.product(range(number), repeat=2)
        patches = [x[:, i : i + height, j : j + width] for i, j in places]
        return _product(None, jnp.concatenate(patches, axis=-1), kernel.reshape(-1, size))
    kernel = kernel.swapaxes(0, 1).reshape(x.shape[-1], -1)
    products = jax.lax.optimization_barrier(_product(None, x, kernel))
    return _sum_of_places(number, products)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_places(number, products):
    """[B, H, W, O] the sums, over the places of a kernel `number` wide, of their products
    [B, H + number - 1, W + number - 1, number * number * O] at the pixels of a patch."""
    height, width = (length - number + 1 for length in products.shape[1:3])
    products = products.reshape(*products.shape[:-1], number**2, -1)
    places = enumerate(itertools.product(range(number), repeat=2))
    return sum(products[:, i : i + height, j : j + width, k] for k, (i, j) in places)


def _sum_of_places_forward(number, products):
    return _sum_of_places(number, products), None


def _sum_of_places_backward(number, _, gradient):
    """Written at once, and not as a sum of one padded gradient for each place."""
    places = itertools.product(range(number), repeat=2)
    others = number - 1
    pads = [((0, 0), (i, others - i), (j, others - j), (0, 0)) for i, j in places]
    return (jnp.concatenate([jnp.pad(gradient, pad) for pad in pads], axis=-1),)


_sum_of_places.defvjp(_sum_of_places_forward, _sum_of_places_backward)


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
    return Dense(size, kernel_init=orthogonal(gain), name=name, dot_general=fast_dot_general)
