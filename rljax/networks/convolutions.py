"""Convolutions of images; on a CPU they are products of matrices."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp

from rljax.networks.products import product

IN_CACHE = 2**20
"""Bytes of a block's patches or products."""


def convolution(stride: int, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Of images [B, H, W, C] with a kernel [K * K * C, size], for each pixel of a K x K patch and
    each channel in turn.

    On a CPU it is products of matrices (`_dense_convolution`): inside a loop, where the update
    runs, the gradient of XLA's convolution is 30 times slower. On an H100, in turn, XLA's
    convolution makes 1.04 times the steps/s and takes 1,257 MiB instead of 2,058, as there are no
    nine copies of the image (Breakout-MinAtar 4096x16).
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


def _dense_convolution(number, stride, x, kernel):
    """As `convolution`, with a kernel `number` strides wide.

    Squares of stride x stride pixels become single ones of more channels; then the stride is 1.
    Either the patches of `number` x `number` of them are multiplied with the kernel or, where that
    is less to write and read, all of them are multiplied with all places of the kernel, and the
    products of a patch are summed. The gradient of 80 images in the Nature network takes 86 ms so
    on one core, in blocks of 16; with XLA's convolutions 195, all as patches 160 (gradients of
    their products as XLA makes them), and 58 in PyTorch.
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
        return product(None, jnp.concatenate(patches, axis=-1), kernel.reshape(-1, size))
    kernel = kernel.swapaxes(0, 1).reshape(x.shape[-1], -1)
    products = jax.lax.optimization_barrier(product(None, x, kernel))
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
