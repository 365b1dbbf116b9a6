"""Running moments of observations and of discounted returns."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from rljax.types import Moments

CLIP = 10.0
"""Normalised observations and scaled rewards are clipped to [-CLIP, CLIP]."""
EPSILON = 1e-8  # added to their variances


def init(shape: tuple[int, ...]) -> Moments:
    """Mean 0 and variance 1, with a weight that the first batch outweighs."""
    zeros = jnp.zeros(shape)
    return Moments(jnp.float32(1e-4), zeros, jnp.ones(shape), zeros, zeros)


def measure(batch: jax.Array, axis: str | None = None) -> Moments:
    """The moments of a batch [N, *shape] alone; of a batch that is sharded over the devices along a
    mesh's axis, those of the whole."""
    own = Moments(jnp.float32(batch.shape[0]), jnp.mean(batch, axis=0), jnp.var(batch, axis=0))
    if axis is None:
        return own
    mean = jax.lax.pmean(own.mean, axis)
    var = jax.lax.pmean(own.var + jnp.square(own.mean - mean), axis)
    return Moments(own.count * jax.lax.axis_size(axis), mean, var)


def merge(moments: Moments, more: Moments) -> Moments:
    """The moments of both together (Chan et al. 1979, pairwise update). With w the share of the
    samples that are new, and d the distance of their mean:

        mean += w d
        var  += w (var_new - var + (1 - w) d^2)

    After millions of batches an increment is smaller than float32 can add: the rounding error of a
    sum is kept, and corrected in the next one (Kahan 1965).

    Args:
        moments: with `mean_error` and `var_error`, as `init` gives them.
        more: as `measure` gives them.
    """
    count = moments.count + more.count
    weight = more.count / count
    delta = more.mean - moments.mean
    spread = more.var - moments.var + (1.0 - weight) * jnp.square(delta)
    mean, mean_error = add(moments.mean, moments.mean_error, weight * delta)
    var, var_error = add(moments.var, moments.var_error, weight * spread)
    return Moments(count, mean, var, mean_error, var_error)


def add(total: Any, error: Any, more: Any) -> tuple[Any, Any]:
    """Compensated summation (Kahan 1965) of arrays, or of pytrees of them.

    Args:
        error: the rounding error of `total` so far: what it has too much.

    Returns:
        (total, error), with `more` added.
    """
    more = optax.tree.sub(more, error)
    summed = optax.tree.add(total, more)
    return summed, optax.tree.sub(optax.tree.sub(summed, total), more)


def standardize(moments: Moments | None, obs: jax.Array) -> jax.Array:
    """Observations [..., *shape] to mean 0 and variance 1; unchanged without moments."""
    if moments is None:
        return obs
    lead = (1,) * (obs.ndim - moments.mean.ndim)
    mean, var = (x.reshape(lead + x.shape) for x in (moments.mean, moments.var))
    return jnp.clip((obs - mean) * jax.lax.rsqrt(var + EPSILON), -CLIP, CLIP)


def scale(moments: Moments | None, rewards: jax.Array) -> jax.Array:
    """Rewards divided by the standard deviation of the discounted return; or unchanged."""
    if moments is None:
        return rewards
    return jnp.clip(rewards * jax.lax.rsqrt(moments.var + EPSILON), -CLIP, CLIP)


def discounted_returns(start, rewards, done, gamma):
    """Running discounted sums of past rewards, reset at the end of an episode.

    Args:
        start: [B] the sums before the first step.
        rewards, done: [T, B].

    Returns:
        ([B] the sums after the last step, [T, B] the sums at every step).
    """

    def step(total, reward_and_done):
        reward, done = reward_and_done
        total = gamma * total + reward
        return jnp.where(done, 0.0, total), total

    return jax.lax.scan(step, start, (rewards, done))
