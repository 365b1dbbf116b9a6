"""Learning from a batch of experience: init, compute_gradients, apply_gradients.

A2C composes them in one jitted update. In A3C workers compute gradients, and the parameter holder
applies them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from rljax import losses, networks, normalization, optimizers, returns, rollout
from rljax.config import Config
from rljax.envs.interface import EnvSpec
from rljax.networks import ActorCritic, blocks
from rljax.networks.replay import replay
from rljax.types import (
    ActorState,
    BatchGradients,
    BatchMetrics,
    BatchMoments,
    EpisodeStats,
    TrainState,
    Transition,
)
from rljax.utils import pytrees, sharding


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
    state: TrainState,
    actor: ActorState,
    batch: Transition,
    axis: str | None = None,
    estimate: Callable | None = None,
) -> tuple[ActorState, BatchGradients]:
    """The gradient, the metrics and the moments of a batch.

    Args:
        actor: its episodes and its carry are those before the batch.
        batch, estimate: as `loss_gradients` takes them.
        axis: of a mesh over whose devices environments are sharded, actor and batch with them;
            what is given is of all environments, but for the actor.

    Returns:
        (the actor with episodes and carry after the batch, BatchGradients).
    """
    grads, loss_metrics, carry = loss_gradients(
        config, network, state, batch, actor.carry, axis, estimate
    )
    moments, discounted_return = batch_moments(config, network, actor.episodes, batch, axis)
    episodes, finished = rollout.track(actor.episodes, batch)
    grads, (*finished, info) = sharding.total((grads, finished), axis)
    norm = optimizers.global_norm(grads)
    metrics = BatchMetrics(*finished, losses=loss_metrics, grad_norm=norm, info=info)
    episodes = episodes._replace(discounted_return=discounted_return)
    return actor._replace(episodes=episodes, carry=carry), BatchGradients(grads, moments, metrics)


def loss_gradients(
    config: Config,
    network: ActorCritic,
    state: TrainState,
    batch: Transition,
    carry: Any = (),
    axis: str | None = None,
    estimate: Callable | None = None,
) -> tuple[optax.Params, dict[str, jax.Array], Any]:
    """The gradient of the config's loss on a batch.

    The network runs once over the whole batch, as `replay` says: its values serve the loss and,
    held constant, the advantages. Values of true successors are those of the next row where the
    episode continues; `successor_values` computes the others.

    Args:
        batch: [T, B, ...], JAX or NumPy arrays, sampled with the policy of `state.params`, unless
            there is an `estimate`. `recorded` must come from the same parameters and moments, or be
            None. Observations are float32, or as an environment in JAX keeps them.
        carry: `cores.Carry` [B] at the first step; () without a core.
        axis: as for `compute_gradients`. Each device then has the whole batch's loss, and its own
            rows' share of the gradient: the gradient is the sum over the devices.
        estimate: (log-probabilities of the actions, rewards, values, next_values, terminated,
            truncated, all [T, B], config) -> (advantages, targets), instead of `returns.gae`; for
            experience of another policy.

    Returns:
        (gradients, a pytree like the parameters; the "loss" and what the loss function returned
        beside it, by name; the carry after the batch).

    Raises:
        ValueError, TypeError: as `losses.make` and `losses.check` do.
    """
    chex.assert_rank(batch.reward, 2)
    num_steps, num_envs = batch.reward.shape
    chex.assert_tree_shape_prefix(batch, (num_steps, num_envs))
    loss_function = losses.make(config.loss)
    batch = jax.tree.map(jnp.asarray, batch)
    rewards = normalization.scale(state.return_moments, batch.reward)
    actions, shape = _merge_time_and_batch(batch.action), batch.obs.shape
    batch_rows, cache_rows = (
        of(network, state.params, (num_steps * num_envs, *shape[2:]))
        for of in (blocks.rows, blocks.rows_in_cache)
    )

    def value(obs, carry):
        of = network, state.params, state.obs_moments
        return blocks.apply(*of, obs, carry=carry, method="critic", rows=batch_rows)

    def loss(params, rows):
        replayed = replay(network, params, state.obs_moments, carry, batch, rows=rows)
        distribution, flat_values, after, following = replayed
        values = jax.lax.stop_gradient(flat_values).reshape(num_steps, num_envs)
        cut = jnp.logical_and(batch.truncated, jnp.logical_not(batch.terminated))
        next_values = successor_values(value, values, (batch.final_obs, after), cut)
        steps = rewards, values, next_values, batch.terminated, batch.truncated
        if estimate is None:
            advantages, targets = returns.gae(*steps, config.gamma, config.gae_lambda)
        else:
            log_probs = jax.lax.stop_gradient(distribution.log_prob(actions))
            advantages, targets = estimate(log_probs.reshape(values.shape), *steps, config)
        rows = distribution, flat_values, actions, advantages.ravel(), targets.ravel()
        result = loss_function(*sharding.gathered(rows, axis), config)
        loss_value, metrics = losses.check(config.loss, result)
        return loss_value, (metrics, following)

    def of_rows(rows):
        return jax.value_and_grad(partial(loss, rows=rows), has_aux=True)(state.params)

    if cache_rows is None:
        (loss_value, (metrics, following)), grads = of_rows(batch_rows)
    else:
        (loss_value, (metrics, following)), grads = jax.lax.platform_dependent(
            cpu=partial(of_rows, cache_rows), default=partial(of_rows, batch_rows)
        )
    return grads, {"loss": loss_value, **metrics}, following


def zero_losses(
    config: Config, network: ActorCritic, spec: EnvSpec, params: optax.Params
) -> dict[str, jax.Array]:
    """Zeros, by the names of the metrics of the config's loss, which is only traced.

    Raises:
        ValueError, TypeError: as `loss_gradients` does.
    """
    loss_function, size = losses.make(config.loss), config.batch_size
    if config.heads == "q":
        raise ValueError("heads = 'q': this algorithm needs a policy; dqn has Q values alone")

    def metrics(params, obs, mask, numbers):
        carry = networks.initial_carry(network, size)
        distribution, values = network.apply(params, obs, mask, carry)
        actions = distribution.mode()
        result = loss_function(distribution, values, actions, numbers, numbers, config)
        return losses.check(config.loss, result)[1]

    obs, numbers = (jax.ShapeDtypeStruct(x, "float32") for x in ((size, *spec.obs_shape), (size,)))
    mask = None
    if spec.has_mask:
        mask = jax.ShapeDtypeStruct((size, *spec.action_space.mask_shape), bool)
    found = jax.eval_shape(metrics, params, obs, mask, numbers)
    return {"loss": jnp.float32(0), **{name: jnp.float32(0) for name in found}}


def successor_values(value, values, final, truncated):
    """The values V(s'_t) of the true successors, computed only where they are not known yet.

    The next row of `values` has them wherever the episode continues. Those of the last row and of
    the first truncated step in each environment are computed at once, or on a CPU, of images, those
    of truncated steps only if there are any; should an environment have
    been truncated twice before the last row, all are. At terminations the result is arbitrary (and
    finite): it is not to be used.

    Args:
        value: observations [B, *obs_shape] and carries [B, ...] -> values [B].
        values: [T, B] of the observations acted on.
        final: the true successors [T, B, *obs_shape], and what is carried to them, [T, B, ...].
        truncated: [T, B] bool: the episode was cut here and not terminated.

    Returns:
        [T, B].
    """
    num_steps, num_envs = values.shape
    wanted = truncated.at[-1].set(False)
    first = jnp.argmax(wanted, axis=0)  # where none is wanted, the first step
    at_cut = jax.tree.map(lambda x: x[first, jnp.arange(num_envs)], final)
    at_last = jax.tree.map(lambda x: x[-1], final)

    def evaluate_both(at_last, at_cut):
        both = jax.tree.map(lambda *x: jnp.concatenate(x), at_last, at_cut)
        return jnp.split(value(*both), 2)

    def evaluate_needed(at_last, at_cut):
        """Of images, each takes a CPU longer than the question does."""
        none = partial(jnp.zeros, num_envs)
        cut = jax.lax.cond(pytrees.anywhere(wanted), lambda: value(*at_cut), none)
        return [value(*at_last), cut]

    on_cpu = evaluate_needed if final[0].ndim > 3 else evaluate_both
    last, cut = jax.lax.platform_dependent(at_last, at_cut, cpu=on_cpu, default=evaluate_both)
    next_values = jnp.concatenate([values[1:], last[None]])
    is_first = jnp.logical_and(wanted, jnp.arange(num_steps)[:, None] == first[None])
    next_values = jnp.where(is_first, cut[None], next_values)
    others = jnp.logical_and(wanted, jnp.logical_not(is_first))

    def evaluate_all():
        all_values = value(*jax.tree.map(_merge_time_and_batch, final)).reshape(values.shape)
        return jnp.where(others, all_values, next_values)

    return jax.lax.cond(pytrees.anywhere(others), evaluate_all, lambda: next_values)


def apply_gradients(
    config: Config,
    state: TrainState,
    gradients: optax.Updates,
    moments: BatchMoments = BatchMoments(None, None),  # noqa: B008  a constant
) -> TrainState:
    """One step of the optimiser; merges the batch's moments into the running ones.

    Args:
        gradients: a pytree like the parameters, which may be one vector.
        moments: None where they are not kept.
    """
    updates, opt_state = optimizers.make(config).update(gradients, state.opt_state, state.params)
    return merge_moments(state, moments)._replace(
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        updates=state.updates + 1,
    )


def reject_gradients(state: TrainState) -> TrainState:
    """The state after a gradient that is not applied: the learning rate's schedule advances."""
    return state._replace(opt_state=optimizers.skip(state.opt_state), updates=state.updates + 1)


def merge_moments(state: TrainState, moments: BatchMoments) -> TrainState:
    """The running moments with those of a batch, which are None where they are not kept."""
    obs_moments, return_moments = state.obs_moments, state.return_moments
    if moments.obs is not None:
        obs_moments = normalization.merge(obs_moments, moments.obs)
    if moments.returns is not None:
        return_moments = normalization.merge(return_moments, moments.returns)
    return state._replace(obs_moments=obs_moments, return_moments=return_moments)


def batch_moments(
    config: Config,
    network: ActorCritic,
    episodes: EpisodeStats,
    batch: Transition,
    axis: str | None = None,
) -> tuple[BatchMoments, jax.Array]:
    """(moments of a batch [T, B, ...], [B] the discounted returns of the episodes in progress after
    it; `episodes` are those before it)."""
    obs, returns, discounted_return = None, None, episodes.discounted_return
    if config.normalize_observations:
        obs = _merge_time_and_batch(jnp.asarray(batch.obs))
        obs = normalization.measure(blocks.inputs(network, None, obs), axis)
    if config.normalize_rewards:
        done = jnp.logical_or(batch.terminated, batch.truncated)
        discounted_return, all_returns = normalization.discounted_returns(
            discounted_return, batch.reward, done, config.gamma
        )
        returns = normalization.measure(all_returns.ravel(), axis)
    return BatchMoments(obs, returns), discounted_return


def _merge_time_and_batch(x):
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
