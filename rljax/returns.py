"""Advantages and value targets."""

import chex
import jax
import jax.numpy as jnp


def gae(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """Generalised advantage estimation (arXiv 1506.02438, equation 16).

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t = delta_t + gamma lambda (1 - terminated_t) (1 - truncated_t) A_{t+1}

    With lambda = 1 these are n-step advantages. A termination is worth nothing further; a
    truncation is worth the value of its true successor s'_t, the observation from before the
    reset; at both the recursion is cut. A step that is both is a termination.

    Args:
        rewards, values: [T, B] float32.
        next_values: [T, B] float32, the values V(s'_t) of the true successors.
        terminated, truncated: [T, B] bool.
        gamma, gae_lambda: scalars.

    Returns:
        (advantages, targets), both [T, B]; targets = advantages + values.
    """
    chex.assert_rank(rewards, 2)
    chex.assert_equal_shape([rewards, values, next_values, terminated, truncated])
    deltas = rewards + gamma * jnp.where(terminated, 0.0, next_values) - values
    decay = gamma * gae_lambda * (1.0 - jnp.logical_or(terminated, truncated))

    def backward(advantage, step):
        delta, decay = step
        advantage = delta + decay * advantage
        return advantage, advantage

    start = jnp.zeros_like(deltas[0])
    # Unrolled, it is a few launches on a GPU instead of three for each step.
    steps = (deltas, decay)
    _, advantages = jax.lax.scan(backward, start, steps, reverse=True, unroll=16)
    return advantages, advantages + values
