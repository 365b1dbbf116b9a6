"""Running moments of observations and of discounted returns."""

import jax
import jax.numpy as jnp

from rljax.types import Moments

CLIP = 10.0
"""Normalised observations and scaled rewards are clipped to [-CLIP, CLIP]."""


def init(shape: tuple[int, ...]) -> Moments:
    """Mean 0 and variance 1, with a weight that the first batch outweighs."""
    return Moments(jnp.float32(1e-4), jnp.zeros(shape), jnp.ones(shape))


def measure(batch: jax.Array) -> Moments:
    """The moments of a batch [N, *shape] alone."""
    return Moments(jnp.float32(batch.shape[0]), jnp.mean(batch, axis=0), jnp.var(batch, axis=0))


def merge(moments: Moments, more: Moments) -> Moments:
    """The moments of both together (Chan et al. 1979, pairwise update)."""
    total = moments.count + more.count
    delta = more.mean - moments.mean
    squares = moments.var * moments.count + more.var * more.count
    squares = squares + jnp.square(delta) * moments.count * more.count / total
    return Moments(total, moments.mean + delta * more.count / total, squares / total)


def standardize(moments: Moments | None, obs: jax.Array) -> jax.Array:
    """Observations [..., *shape] to mean 0 and variance 1; unchanged without moments."""
    if moments is None:
        return obs
    lead = (1,) * (obs.ndim - moments.mean.ndim)
    mean, var = (x.reshape(lead + x.shape) for x in (moments.mean, moments.var))
    return jnp.clip((obs - mean) * jax.lax.rsqrt(var + 1e-8), -CLIP, CLIP)


def scale(moments: Moments | None, rewards: jax.Array) -> jax.Array:
    """Rewards divided by the standard deviation of the discounted return; or unchanged."""
    if moments is None:
        return rewards
    return jnp.clip(rewards * jax.lax.rsqrt(moments.var + 1e-8), -CLIP, CLIP)


def discounted_returns(start, rewards, done, gamma):
    """Running sums of rewards, the older the more discounted, begun anew at an episode's end.

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
