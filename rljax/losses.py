"""The actor-critic loss."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp


class LossTerms(NamedTuple):
    """The parts of a loss, for the record."""

    policy_loss: Any
    value_loss: Any
    entropy: Any
    explained_variance: Any


def actor_critic(distribution, values, actions, advantages, targets, config):
    """Policy gradient, squared value error and entropy bonus (arXiv 1602.01783, section 4).

        L = mean(-log pi(a|s) A) + vf_coef mean(0.5 (target - V(s))^2) - ent_coef mean(H(pi))

    or with sums for means if `config.loss_reduction` is "sum". Advantages and targets are
    constants: no gradient flows into them.

    Args:
        distribution: over actions, one per row of the batch.
        values, advantages, targets: [N] float32.
        actions: [N] or [N, A], as the distribution drew them.
        config: for `vf_coef`, `ent_coef`, `normalize_advantage` and `loss_reduction`.

    Returns:
        (loss, LossTerms), scalars.
    """
    chex.assert_rank(values, 1)
    chex.assert_equal_shape([values, advantages, targets])
    advantages, targets = jax.lax.stop_gradient((advantages, targets))
    errors = targets - values
    weights = advantages
    if config.normalize_advantage:
        weights = (weights - jnp.mean(weights)) / (jnp.std(weights) + 1e-8)
    reduce = jnp.mean if config.loss_reduction == "mean" else jnp.sum
    policy_loss = -reduce(distribution.log_prob(actions) * weights)
    value_loss = reduce(0.5 * jnp.square(errors))
    entropy = distribution.entropy()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * reduce(entropy)
    explained = 1.0 - jnp.var(errors) / (jnp.var(targets) + 1e-8)
    return loss, LossTerms(policy_loss, value_loss, jnp.mean(entropy), explained)
