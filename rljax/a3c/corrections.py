"""What is done about staleness. With theta the newest parameters, theta' those acted with, and tau
the number of versions between them:

Stale gradients g = grad L(theta')

    staleness_scaling   the learning rate is divided by max(tau, 1)       (arXiv 1511.05950)
    dc_asgd_c           g + lambda g g (theta - theta'), by element       (arXiv 1609.08326)
    dc_asgd_a           lambda = lambda_0 / sqrt(m + 1e-7), with m a running mean of g g
                                                                          (arXiv 1609.08326)

Stale data, where the gradient is at theta: A are the advantages, rho = pi(a|s) / mu(a|s) the ratios
of the newest policy to the one that acted

    importance          A is multiplied by rho
    vtrace              targets and advantages by V-trace                 (arXiv 1802.01561)
    ppo_clip            min(rho A, clip(rho, 1 - eps, 1 + eps) A)         (arXiv 1707.06347)
    decoupled           w min(u A, clip(u, 1 - eps, 1 + eps) A), with u = pi / prox, w = prox / mu;
                        prox is the policy before the first of the gradient steps on these data
                                                                          (arXiv 2505.24298)
    ess_scaling         importance, and the learning rate is multiplied by sqrt(ESS), the effective
                        sample size as a share of the batch         (after arXiv 2602.17616)

The ratios are constants to the gradient: that of rho A log pi is that of pi / mu A.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from rljax import returns
from rljax.config import Config

LARGEST = 20.0  # of a log-ratio: its exponential is finite
EPSILON = 1e-7  # of dc_asgd_a


def delay_compensated(
    kind: str, options: Any, gradients: Any, newest: Any, stale: Any, squares: Any
) -> tuple[Any, Any]:
    """(the gradient, the running mean of squared gradients) after dc_asgd_c or dc_asgd_a, or both
    as they are with another kind of correction.

    Args:
        options: with `compensation` and `compensation_decay`.
        newest, stale: the parameters, like the gradient.
        squares: the running mean so far; () without dc_asgd_a.
    """
    by = options.compensation
    if kind not in ("dc_asgd_c", "dc_asgd_a"):
        return gradients, squares
    if kind == "dc_asgd_a":
        squares, by = adaptive(squares, gradients, options.compensation_decay, by)
    return compensated(gradients, newest, stale, by), squares


def compensated(gradients: Any, newest: Any, stale: Any, strength: Any) -> Any:
    """g + lambda g g (theta - theta'), pytrees like the parameters; `strength`, lambda, is a scalar
    or another such pytree."""
    if jax.tree.structure(strength) != jax.tree.structure(gradients):
        strength = jax.tree.map(lambda _: strength, gradients)
    return jax.tree.map(
        lambda g, new, old, by: g + by * g * g * (new - old), gradients, newest, stale, strength
    )


def adaptive(squares: Any, gradients: Any, decay: Any, strength: Any) -> tuple[Any, Any]:
    """(the running mean of squared gradients, lambda of each element) of dc_asgd_a."""
    squares = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g * g, squares, gradients)
    return squares, jax.tree.map(lambda m: strength * jax.lax.rsqrt(m + EPSILON), squares)


def scaled(config: Config, by: Any) -> Config:
    """With a learning rate that is multiplied."""
    return dataclasses.replace(config, learning_rate=config.learning_rate * by)


def ratios(log_probs: jax.Array, behaviour: jax.Array) -> jax.Array:
    """pi / mu, of log-probabilities of any shape."""
    chex.assert_equal_shape([log_probs, behaviour])
    return jnp.exp(jnp.clip(log_probs - behaviour, -LARGEST, LARGEST))


def effective_sample_size(ratios: jax.Array) -> jax.Array:
    """(sum rho)^2 / (N sum rho^2), in (0, 1] (Kish 1965)."""
    # Of ratios to the largest: squares do not overflow.
    scaled = ratios / jnp.max(ratios)
    return jnp.square(jnp.sum(scaled)) / (ratios.size * jnp.sum(jnp.square(scaled)))


def clipped(weights: jax.Array, advantages: jax.Array, clip_range: Any) -> jax.Array:
    """The ratios through which a gradient of min(rho A, clip(rho) A) flows; 0 elsewhere."""
    is_beyond = jnp.where(advantages > 0, weights > 1 + clip_range, weights < 1 - clip_range)
    return jnp.where(is_beyond, 0.0, weights)


def estimator(
    correction: str, behaviour: jax.Array, proximal: jax.Array, clip_range: Any
) -> Callable:
    """What `learner.loss_gradients` estimates advantages and targets of stale data with.

    Args:
        behaviour: [T, B] log-probabilities of the actions under the policy that acted.
        proximal: [T, B] under the policy before the first gradient step on these data.
    """

    def estimate(log_probs, rewards, values, next_values, terminated, truncated, config):
        rho = ratios(log_probs, behaviour)
        steps = rewards, values, next_values, terminated, truncated
        if correction == "vtrace":
            return vtrace(rho, *steps, config.gamma, config.gae_lambda)
        advantages, targets = returns.gae(*steps, config.gamma, config.gae_lambda)
        if correction == "ppo_clip":
            rho = clipped(rho, advantages, clip_range)
        elif correction == "decoupled":
            own = clipped(ratios(log_probs, proximal), advantages, clip_range)
            rho = ratios(proximal, behaviour) * own
        elif correction == "none":
            return advantages, targets
        return rho * advantages, targets

    return estimate


def vtrace(rho, rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """V-trace targets (arXiv 1802.01561, equation 1) and advantages, with both bounds at 1.

        delta_t = rho_t (r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)),   rho_t at most 1
        v_t - V(s_t) = delta_t + gamma lambda rho_t (1 - done_t) (v_{t+1} - V(s_{t+1}))
        A_t = rho_t (r_t + gamma (1 - terminated_t) q_t - V(s_t))

    with q_t = lambda v_{t+1} + (1 - lambda) V(s'_t) within an episode, and V(s'_t) at its end. With
    ratios of 1 it is `returns.gae`.

    Args:
        rho: [T, B] ratios; the others as for `returns.gae`.

    Returns:
        (advantages, targets), both [T, B].
    """
    chex.assert_equal_shape([rho, rewards, values, next_values, terminated, truncated])
    rho = jnp.minimum(rho, 1.0)
    goes_on = 1.0 - jnp.logical_or(terminated, truncated)
    next_values = jnp.where(terminated, 0.0, next_values)
    deltas = rho * (rewards + gamma * next_values - values)

    def backward(excess, step):
        delta, decay = step
        excess = delta + decay * excess
        return excess, excess

    steps = (deltas, gamma * gae_lambda * rho * goes_on)
    _, excess = jax.lax.scan(backward, jnp.zeros_like(deltas[0]), steps, reverse=True, unroll=16)
    # q_t is V(s'_t) plus lambda times what v_{t+1} has beyond it.
    beyond = jnp.concatenate([excess[1:], jnp.zeros_like(excess[:1])])
    following = next_values + gae_lambda * goes_on * beyond
    return rho * (rewards + gamma * following - values), values + excess
