"""Losses, by name or as functions of one's own.

    loss(distribution, values, actions, advantages, targets, config) -> (loss, metrics)

The arguments are those of `actor_critic`. `metrics` is a dict of scalars, each a column of
metrics.csv.
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from rljax.utils.lookup import load_function, unknown

TAKEN = frozenset(
    "seed env_steps updates wall_seconds episodes episodic_return episodic_length loss grad_norm"
    " learning_rate steps_per_second diverged_at staleness_mean staleness_max"
    " trial agent point diverged eval_return".split()
)
"""Names of metrics that a loss cannot use."""


def make(loss: Any) -> Callable:
    """The function of `Config.loss`: a name of `LOSSES`, "package.module:attribute", or itself.

    Raises:
        ValueError: there is no such loss.
        TypeError: it is no function.
    """
    if isinstance(loss, str) and ":" not in loss:
        if loss not in LOSSES:
            raise ValueError(f"{unknown('loss', loss, list(LOSSES))} (or package.module:attribute)")
        return LOSSES[loss]
    return load_function("loss", loss)


def check(name: Any, result: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a loss function returned: (loss, metrics), float32 scalars.

    Raises:
        TypeError: it is something else, or a metric has a name of `TAKEN`.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise TypeError(f"loss = {name!r}: must return (loss, dict of scalars), not {result!r}")
    loss, metrics = result
    for key, x in {"the loss": loss, **metrics}.items():
        if key != "the loss" and not (isinstance(key, str) and key.isidentifier()):
            raise TypeError(f"loss = {name!r}: a metric's name must be an identifier, not {key!r}")
        if key in TAKEN:
            raise TypeError(f"loss = {name!r}: the metric {key!r} must have another name")
        if jnp.shape(x) or not jnp.issubdtype(jnp.result_type(x), jnp.number):
            shape = list(jnp.shape(x))
            raise TypeError(f"loss = {name!r}: {key} must be a scalar number, not of shape {shape}")
    return loss, {key: jnp.asarray(x, jnp.float32) for key, x in metrics.items()}


def actor_critic(distribution, values, actions, advantages, targets, config):
    """Policy gradient, squared value error and entropy bonus (arXiv 1602.01783, section 4).

        L = mean(-log pi(a|s) A) + vf_coef mean(0.5 (target - V(s))^2) - ent_coef mean(H(pi))

    or with sums for means if `config.loss_reduction` is "sum". No gradient flows into advantages
    and targets.

    Args:
        distribution: over actions, one per row of the batch.
        values, advantages, targets: [N] float32.
        actions: [N] or [N, A], as the distribution sampled them.

    Returns:
        (loss, its parts by name), scalars.
    """
    chex.assert_rank(values, 1)
    chex.assert_equal_shape([values, advantages, targets])
    advantages, targets = jax.lax.stop_gradient((advantages, targets))
    errors = targets - values
    if config.normalize_advantage:
        advantages = (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-8)
    reduce = jnp.mean if config.loss_reduction == "mean" else jnp.sum
    policy_loss = -reduce(distribution.log_prob(actions) * advantages)
    value_loss = reduce(0.5 * jnp.square(errors))
    entropy = distribution.entropy()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * reduce(entropy)
    explained = 1.0 - jnp.var(errors) / (jnp.var(targets) + 1e-8)
    return loss, {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": jnp.mean(entropy),
        "explained_variance": explained,
    }


def double_dqn(q, next_q, next_target_q, actions, rewards, terminated, gamma):
    """Double Q-learning (van Hasselt et al. 2016, arXiv 1509.06461, equation 4), with Huber's loss
    for the errors that Mnih et al. 2015 (Nature 518) clip to [-1, 1], as SB3 has it:

        y = r + gamma (1 - terminated) Q_target(s', argmax_a Q(s', a))
        L = mean(huber(y - Q(s, a))),  huber(x) = x^2 / 2 if |x| <= 1 else |x| - 1/2

    s' is the true successor: where an episode was truncated its value counts. No gradient flows
    into y.

    Args:
        q, next_q: [N, A] Q of the observations and of their successors.
        next_target_q: [N, A] the target network's, of the successors.
        actions: int32 [N].
        rewards: [N].
        terminated: bool [N].

    Returns:
        (loss, metrics by name), scalars.
    """
    chex.assert_equal_shape([q, next_q, next_target_q])
    chex.assert_equal_shape([actions, rewards, terminated])
    best = jnp.argmax(next_q, axis=-1)
    following = jnp.take_along_axis(next_target_q, best[:, None], axis=-1)[:, 0]
    targets = rewards + gamma * jnp.where(terminated, 0.0, following)
    taken = jnp.take_along_axis(q, actions[:, None], axis=-1)[:, 0]
    errors = jnp.abs(jax.lax.stop_gradient(targets) - taken)
    loss = jnp.mean(jnp.where(errors <= 1.0, 0.5 * jnp.square(errors), errors - 0.5))
    return loss, {"td_error": jnp.mean(errors), "q_mean": jnp.mean(taken)}


LOSSES = {"actor_critic": actor_critic}
