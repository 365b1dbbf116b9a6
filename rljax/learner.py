"""Learning from a batch of experience: init, contribute, apply, observe.

A2C composes them in one jitted update. In A3C a worker calls `contribute`, for its gradients and
figures, and the holder of the parameters `apply` and `observe`.
"""

import chex
import jax
import jax.numpy as jnp
import optax

from rljax import losses, networks, normalization, optimizers, returns, rollout
from rljax.config import Config
from rljax.envs.interface import EnvSpec
from rljax.networks import ActorCritic, layers
from rljax.types import (
    BatchGradients,
    BatchMetrics,
    BatchMoments,
    EpisodeStats,
    TrainState,
    Transition,
)


def init(config: Config, network: ActorCritic, spec: EnvSpec, key: jax.Array) -> TrainState:
    """Fresh parameters, optimiser state and moments.

    Raises:
        ValueError: as `networks.init` does.
    """
    params = networks.init(config, network, spec, key)
    return TrainState(
        params=params,
        opt_state=optimizers.make(config).init(params),
        updates=jnp.int32(0),
        obs_moments=normalization.init(spec.obs_shape) if config.normalize_observations else None,
        return_moments=normalization.init(()) if config.normalize_rewards else None,
    )


def compute_gradients(
    config: Config,
    network: ActorCritic,
    learner: TrainState,
    episodes: EpisodeStats,
    batch: Transition,
) -> tuple[EpisodeStats, BatchGradients]:
    """All that a batch gives, without changing the learner.

    Args:
        episodes: the episodes under way before the batch.
        batch: as `gradients` takes it.

    Returns:
        (the episodes under way after the batch, Contribution).
    """
    grads, terms = loss_gradients(config, network, learner, batch)
    increments, discounted_return = _measure(config, episodes, batch)
    episodes, finished = rollout.track(episodes, batch)
    figures = BatchMetrics(*finished, *terms, grad_norm=optax.tree.norm(grads))
    episodes = episodes._replace(discounted_return=discounted_return)
    return episodes, BatchGradients(grads, increments, figures)


def loss_gradients(
    config: Config, network: ActorCritic, learner: TrainState, batch: Transition
) -> tuple[optax.Params, losses.LossTerms]:
    """The gradient of the actor-critic loss on a batch.

    The network runs once over the whole batch: its values serve the loss and, held constant, the
    advantages. Values of true successors are those of the next row wherever the episode goes on;
    `successor_values` computes the others.

    Args:
        batch: [T, B, ...], JAX or NumPy arrays, drawn with the policy of `learner.params`. What it
            has recorded must be of just these parameters and moments; None is always right.

    Returns:
        (gradients, a pytree like the parameters; LossTerms).
    """
    chex.assert_rank(batch.reward, 2)
    num_steps, num_envs = batch.reward.shape
    chex.assert_tree_shape_prefix(batch, (num_steps, num_envs))
    batch = jax.tree.map(jnp.asarray, batch)
    obs = normalization.standardize(learner.obs_moments, batch.obs)
    final_obs = normalization.standardize(learner.obs_moments, batch.final_obs)
    rewards = normalization.scale(learner.return_moments, batch.reward)
    obs, actions, mask, recorded = jax.tree.map(
        _merge_time_and_batch, (obs, batch.action, batch.mask, batch.recorded)
    )

    def value(obs):
        return network.apply(learner.params, obs, method="critic")

    def loss(params):
        distribution, flat_values = network.apply(layers.reuse(params, recorded), obs, mask)
        values = jax.lax.stop_gradient(flat_values).reshape(num_steps, num_envs)
        cut = jnp.logical_and(batch.truncated, jnp.logical_not(batch.terminated))
        next_values = successor_values(value, values, final_obs, cut)
        advantages, targets = returns.gae(
            rewards,
            values,
            next_values,
            batch.terminated,
            batch.truncated,
            config.gamma,
            config.gae_lambda,
        )
        return losses.actor_critic(
            distribution, flat_values, actions, advantages.ravel(), targets.ravel(), config
        )

    return jax.grad(loss, has_aux=True)(learner.params)


def successor_values(value, values, final_obs, truncated):
    """The values V(s'_t) of the true successors, computed only where they are not known yet.

    The next row of `values` has them wherever the episode goes on. Those of the last row and of
    truncated steps are computed, the latter one for each environment at a time until none is left,
    which is seldom more than once, if at all. At terminations the result is arbitrary (and
    finite): it is not to be used.

    Args:
        value: observations [B, *obs_shape] -> values [B].
        values: [T, B] of the observations acted on.
        final_obs: [T, B, *obs_shape] the true successors.
        truncated: [T, B] bool: the episode was cut here and not terminated.

    Returns:
        [T, B].
    """
    num_envs = values.shape[1]
    envs = jnp.arange(num_envs)
    next_values = jnp.concatenate([values[1:], value(final_obs[-1])[None]])

    def evaluate(state):
        wanted, next_values = state
        steps = jnp.argmax(wanted, axis=0)  # the first one wanted; where none is, the first step
        found = jnp.where(
            wanted[steps, envs], value(final_obs[steps, envs]), next_values[steps, envs]
        )
        return wanted.at[steps, envs].set(False), next_values.at[steps, envs].set(found)

    wanted = truncated.at[-1].set(False)
    _, next_values = jax.lax.while_loop(
        lambda state: jnp.any(state[0]), evaluate, (wanted, next_values)
    )
    return next_values


def apply(config: Config, learner: TrainState, gradients: optax.Updates) -> TrainState:
    """One step of the optimiser. Parameters and gradients may be any pytree, one vector too."""
    updates, opt_state = optimizers.make(config).update(
        gradients, learner.opt_state, learner.params
    )
    return learner._replace(
        params=optax.apply_updates(learner.params, updates),
        opt_state=opt_state,
        updates=learner.updates + 1,
    )


def observe(learner: TrainState, increments: BatchMoments) -> TrainState:
    """Adds a batch's increments to the running moments, where there are any."""
    obs_moments, return_moments = learner.obs_moments, learner.return_moments
    if increments.obs is not None:
        obs_moments = normalization.merge(obs_moments, increments.obs)
    if increments.returns is not None:
        return_moments = normalization.merge(return_moments, increments.returns)
    return learner._replace(obs_moments=obs_moments, return_moments=return_moments)


def _measure(config, episodes, batch):
    """(Increments, [B] the discounted returns of the episodes under way after the batch)."""
    obs, returns, discounted_return = None, None, episodes.discounted_return
    if config.normalize_observations:
        obs = normalization.measure(_merge_time_and_batch(batch.obs))
    if config.normalize_rewards:
        done = jnp.logical_or(batch.terminated, batch.truncated)
        discounted_return, all_returns = normalization.discounted_returns(
            discounted_return, batch.reward, done, config.gamma
        )
        returns = normalization.measure(all_returns.ravel())
    return BatchMoments(obs, returns), discounted_return


def _merge_time_and_batch(x):
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
