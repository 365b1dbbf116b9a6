"""The network on observations as rollouts keep them; in blocks where its layers give out much.

In a block's turn its observations become float32, the layers compute it, and the backward pass
computes it once more, but for what was recorded: in memory, or in a CPU's cache, are the layers'
outputs of one block alone (Chen et al. 2016, arXiv 1604.06174).
"""

import math
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from rljax import normalization
from rljax.envs import encoding
from rljax.networks import layers
from rljax.networks.actor_critic import ActorCritic, Raveled
from rljax.types import Moments

LARGE = 4 * 2**30
"""Bytes of the layers' outputs for a batch of one agent, above which there are blocks. Without them
an update of 64x64x3 images needs 1.4 times as many bytes on an H100, by XLA's analysis, and 3.2 on
a CPU. Blocks compute the forward pass twice; on two CPU cores an update then took 0.87 to 1.02 of
the time, and smaller batches run the same program as before there were blocks."""
BLOCK = 512 * 2**20
"""Bytes of the layers' outputs for a block, at most. An update of 32,768 such images then needs 1.6
GiB on an H100 and 2.6 on a CPU, of which 1.1 are observations."""
LARGE_FOR_CACHE = 16 * 2**20
"""As LARGE, for the cache of a CPU's core. On two cores, blocks then make 1.33 times the steps/s
(CartPole 2048x16 sharded over both, Breakout-MinAtar 256x32), at half the bytes 1.04 times, at a
quarter 0.95."""
BLOCK_FOR_CACHE = 2 * 2**20
FEWEST_IN_CACHE = 32  # rows of a block: fewer make products small


def inputs(network: ActorCritic | Raveled, moments: Moments | None, obs: jax.Array) -> jax.Array:
    """What the network takes for an environment's observations [..., *obs_shape]: float32, scaled,
    and normalised if there are moments."""
    return normalization.standardize(moments, encoding.as_float32(network.scale, obs))


def rows(network: ActorCritic | Raveled, params: Any, shape: tuple[int, ...]) -> int | None:
    """The observations of a block, a power of two, for a batch of this shape [N, *obs_shape]; None
    if the outputs of all layers for it, its own float32 included, are at most LARGE bytes."""
    return _rows(network, params, shape, LARGE, BLOCK)


def rows_in_cache(
    network: ActorCritic | Raveled, params: Any, shape: tuple[int, ...]
) -> int | None:
    """As `rows`, for a CPU's cache."""
    return _rows(network, params, shape, LARGE_FOR_CACHE, BLOCK_FOR_CACHE, FEWEST_IN_CACHE)


def _rows(network, params, shape, large, block, fewest=1):
    number, *obs_shape = shape
    if isinstance(network, Raveled):
        network, params = network.network, network.shapes
    leaves, structure = jax.tree.flatten(params)
    kinds = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    plain = network.clone(log_std_init=0.0)  # which can be traced, and serves `init` alone
    method = "torsos" if network.make_core else None  # cores compute one time step at once
    each = _bytes_each(plain, structure, kinds, tuple(obs_shape), method)
    most = max(fewest, block // each)
    return 1 << most.bit_length() - 1 if number * each > large else None


@lru_cache(maxsize=8)  # for acting and for the loss, which are traced one after the other
def _bytes_each(network, structure, kinds, obs_shape, method):
    """Of the layers' outputs for one observation."""
    one = jax.ShapeDtypeStruct((1, *obs_shape), "float32")

    def outputs(params, obs):
        how = dict(capture_intermediates=True, mutable=["intermediates"])
        leaves = jax.tree.leaves(network.apply(params, obs, method=method, **how)[1])
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    found = [one, *jax.eval_shape(outputs, structure.unflatten(kinds), one)]
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in found)


def apply(
    network: ActorCritic | Raveled,
    params: Any,
    moments: Moments | None,
    obs: jax.Array,
    mask: jax.Array | None = None,
    recorded: Any = None,
    carry: Any = (),
    *,
    method: str | None = None,
    rows: int | None,
) -> Any:
    """`network.apply` on the `inputs` of observations [N, *obs_shape], reusing what `layers.record`
    gave of them, in blocks of `rows` if those are fewer than N. What it returns, [N, ...], does not
    depend on `rows`, but for rounding."""

    def whole(params, obs, mask, recorded, carry):
        others = {} if mask is None else {"mask": mask}
        others |= {"carry": carry} if carry else {}
        variables = layers.reuse(params, recorded)
        return network.apply(variables, inputs(network, moments, obs), **others, method=method)

    if rows is None or len(obs) <= rows:
        return whole(params, obs, mask, recorded, carry)
    number, rest = divmod(len(obs), rows)

    @partial(jax.checkpoint, static_argnums=2)  # of its slices, too, which would be kept
    def block(params, start, size):
        take = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size)  # noqa: E731
        return whole(params, *jax.tree.map(take, (obs, mask, recorded, carry)))

    starts = rows * jnp.arange(number)
    _, out = jax.lax.scan(lambda _, start: (None, block(params, start, rows)), None, starts)
    out = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)
    if rest:
        last = block(params, rows * number, rest)
        out = jax.tree.map(lambda *parts: jnp.concatenate(parts), out, last)
    return out
