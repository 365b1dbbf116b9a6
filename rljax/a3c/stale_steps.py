"""One step of simulated A3C's learner, on experience of older parameters."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import learner, optimizers
from rljax.a3c import corrections
from rljax.a3c.simulation import SimulationConfig
from rljax.config import Config
from rljax.networks import ActorCritic, blocks
from rljax.networks.replay import replay
from rljax.types import ActorState, BatchMetrics, BatchMoments, TrainState, Transition
from rljax.utils import pytrees


class Step(NamedTuple):
    """What a step gives."""

    learner: TrainState
    squares: Any  # the running mean of squared gradients, or ()
    actor: ActorState  # after the experience
    metrics: BatchMetrics
    measured: dict[str, jax.Array]  # the diagnostics, by name
    is_finite: jax.Array
    is_applied: jax.Array  # else the learner is as before, but for the schedule of its rate


def on_gradients(
    config: Config,
    options: SimulationConfig,
    network: ActorCritic,
    newest: TrainState,
    squares: Any,
    acting: TrainState,
    experience: tuple[ActorState, Transition],
    staleness: jax.Array,
) -> Step:
    """Applies the gradient of the parameters acted with to the newest.

    Args:
        squares: the running mean of squared gradients, or () where no correction needs it.
        acting: what was acted with, of which the optimiser's state is not used.
        experience: as `rollout.collect` gives it.
        staleness: versions between the two.
    """
    before, batch = experience
    actor, given = learner.compute_gradients(config, network, acting, before, batch)
    gradients = jax.lax.optimization_barrier(given.gradients)
    judged = _judged(options, given.metrics, staleness)
    measured, how = {}, config
    if options.diagnostics:
        measured = _compared(config, network, newest, acting, before, batch, gradients)
    pair = newest.params, acting.params
    kind = options.correction
    gradients, new = corrections.delay_compensated(kind, options, gradients, *pair, squares)
    squares = pytrees.where(judged[1], new, squares)
    if kind == "staleness_scaling":
        how = corrections.scaled(config, 1 / jnp.maximum(staleness, 1))
    moved = _applied(how, newest, gradients, given.moments, judged[1])
    return Step(moved, squares, actor, given.metrics, measured, *judged)


def on_data(
    config: Config,
    options: SimulationConfig,
    network: ActorCritic,
    newest: TrainState,
    squares: Any,
    acting: TrainState,
    experience: tuple[ActorState, Transition],
    staleness: jax.Array,
) -> Step:
    """Applies gradients of the newest parameters; arguments as for `on_gradients`."""
    before, batch = experience
    stale, batch = batch, batch._replace(recorded=None)  # of other parameters
    behaviour = _log_probs(network, acting, before, stale)
    proximal = _log_probs(network, newest, before, batch)
    size = corrections.effective_sample_size(corrections.ratios(proximal, behaviour))
    how, moved, first = config, newest, None
    if options.correction == "ess_scaling":
        how = corrections.scaled(config, jnp.sqrt(size))
    estimate = corrections.estimator(options.correction, behaviour, proximal, options.clip_range)
    for _ in range(options.data_epochs):
        # The epochs are one update, to the moments and to the learning rate's schedule.
        opt_state = optimizers.at_time_of(moved.opt_state, newest.opt_state)
        moved = moved._replace(opt_state=opt_state, updates=newest.updates)
        actor, given = learner.compute_gradients(
            config, network, moved, before, batch, estimate=estimate
        )
        gradients = jax.lax.optimization_barrier(given.gradients)
        judged = _judged(options, given.metrics, staleness)
        moments = BatchMoments(None, None) if first else given.moments
        first = first or (actor, given.metrics, gradients, judged)
        moved = _applied(how, moved, gradients, moments, judged[1])
    actor, metrics, gradients, judged = first
    measured = {}
    if options.diagnostics:
        old, _, _ = learner.loss_gradients(config, network, acting, stale, before.carry)
        measured = {"cosine": _cosine(old, gradients), "effective_sample_size": size}
    return Step(moved, squares, actor, metrics, measured, *judged)


def _judged(options, metrics, staleness):
    """(whether a gradient is finite, whether it is to be applied)."""
    is_finite = is_applied = jnp.isfinite(metrics.grad_norm + metrics.losses["loss"])
    if options.max_staleness is not None:
        is_applied = jnp.logical_and(is_finite, staleness <= options.max_staleness)
    # Else a CPU would find them anew for each parameter.
    return jax.lax.optimization_barrier((is_finite, is_applied))


def _applied(config, state, gradients, moments, is_applied):
    """The state after a gradient or, if that is not to be applied, after one that was rejected."""
    if config.optimizer == "adam":
        moved = learner.apply_gradients(config, state, gradients, moments)
        return pytrees.where(is_applied, moved, learner.reject_gradients(state))
    # RMSProp changes nothing by a gradient of zeros, without decay. To choose between the states
    # before and after takes a CPU a third of the time of a whole update.
    gradients = jax.tree.map(lambda x: jnp.where(is_applied, x, 0), gradients)
    kept = dict(rmsprop_decay=jnp.where(is_applied, config.rmsprop_decay, 1.0))
    rate = jnp.where(is_applied, config.learning_rate, 0.0)
    config = dataclasses.replace(config, learning_rate=rate, **kept)
    moved = learner.apply_gradients(config, state, gradients, moments)
    running = moved.obs_moments, moved.return_moments
    running = pytrees.where(is_applied, running, (state.obs_moments, state.return_moments))
    return moved._replace(obs_moments=running[0], return_moments=running[1])


def _compared(config, network, newest, acting, before, batch, gradients):
    """The diagnostics of a stale gradient."""
    fresh_batch = batch._replace(recorded=None)  # of other parameters
    fresh, _, _ = learner.loss_gradients(config, network, newest, fresh_batch, before.carry)
    now = _log_probs(network, newest, before, fresh_batch)
    ratios = corrections.ratios(now, _log_probs(network, acting, before, batch))
    size = corrections.effective_sample_size(ratios)
    return {"cosine": _cosine(gradients, fresh), "effective_sample_size": size}


def _cosine(a, b):
    """Of the angle between two pytrees; NaN if one is 0."""
    product = pytrees.total(jax.tree.map(jnp.multiply, a, b))
    return product / (optimizers.global_norm(a) * optimizers.global_norm(b))


def _log_probs(network, state, actor, batch):
    """[T, B] of the actions, under another policy."""
    num_steps, num_envs = batch.reward.shape
    shape = (num_steps * num_envs, *batch.obs.shape[2:])
    rows = blocks.rows(network, state.params, shape)
    replayed = replay(network, state.params, state.obs_moments, actor.carry, batch, rows=rows)
    actions = batch.action.reshape(num_steps * num_envs, *batch.action.shape[2:])
    return replayed.distribution.log_prob(actions).reshape(num_steps, num_envs)
