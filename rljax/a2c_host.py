"""A2C in environments that Python steps: one jitted call of the policy for each step of all
environments, and one jitted update for each rollout.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import a2c, learner, networks, rollout, rows
from rljax.config import FLOAT_FIELDS, Config, at_row_end
from rljax.envs import host_envs
from rljax.envs.interface import EnvSpec
from rljax.networks import distributions
from rljax.types import ActorState, AgentState, Metrics
from rljax.utils import forkserver, pytrees, seeds, sharding
from rljax.utils.compilation import jit_in_order

LARGE = 2**17
"""Parameters of a large network, which is not passed as a vector."""


def chunks(
    config: Config, states: AgentState, log_interval: int
) -> Iterator[tuple[AgentState, Metrics]]:
    """`a2c.chunks` of seeds one after another."""

    def chunks_of_one(state):
        return _chunks(config, state, log_interval)

    yield from seeds.one_after_another(states, config.num_updates, chunks_of_one)


def train(config: Config, key: jax.Array, log_interval: int) -> tuple[AgentState, Metrics]:
    """`a2c.train`.

    Raises:
        ValueError: it is called under `jax.jit`.
    """
    if isinstance(key, jax.core.Tracer):
        raise ValueError(f"env = {config.env!r}: Python steps it; it cannot be jitted")
    state, rows = None, []
    for state, metrics in _chunks(config, a2c.init(config, key), log_interval):  # noqa: B007
        if at_row_end(config, int(metrics.updates), log_interval):
            rows.append(metrics)
    return state, seeds.stack(rows)


class _Programs(NamedTuple):
    """What is jitted. The whole state is two vectors between the calls, as passing dozens of arrays
    takes as long as what they compute; the parameters are one vector within them too, so that the
    optimiser is a few operations. A large state is itself, as copying it takes longer."""

    begin: Callable
    """AgentState -> (its vectors, the key's data, noise for the first rollout)."""
    blank: Callable | None
    """(vectors, noise, t, obs, mask, before) -> zeros [T, B, ...] in the place of what acting
    records; None if it records nothing."""
    act: Callable
    """(vectors, noise, t, obs, mask, before, recorded) -> (actions, carry, recorded) as
    `rollout.act` gives them; what is recorded at step t is written into `recorded` [T, B, ...]."""
    learn: Callable
    """(the config's floats, vectors, the key's data, rollout, recorded) -> (vectors, the next key's
    data, noise for the next rollout)."""
    look: Callable
    """(vectors, the key's data, whether a row ends) -> (AgentState without episodes, Metrics,
    vectors)."""


@lru_cache(maxsize=8)
def _programs(config: Config, spec: EnvSpec) -> _Programs:
    """For a config without its floats, so that runs share what is compiled."""
    network = networks.make(config, spec)
    _, config_of = pytrees.settings(config)

    def fresh(key):
        actor = _actor(config, network, ())
        train_state = learner.init(config, network, spec, key)
        zero_losses = learner.zero_losses(config, network, spec, train_state.params)
        empty = rows.empty(zero_losses, rollout.no_info(config))
        return AgentState(train_state, actor, empty, empty)

    # Of images a CPU reuses what acting computed; of vectors, handing it over takes longer.
    records = len(spec.obs_shape) > 1 and sharding.on_cpu()
    whole = jax.eval_shape(fresh, jax.random.key(0))
    network, raveled, unraveled = _vectors(network, whole.learner)
    like = whole._replace(learner=jax.eval_shape(raveled, whole.learner))
    is_large = pytrees.size(whole.learner.params) > LARGE
    by_kind = (lambda state: state) if is_large else pytrees.by_kind

    def state_of(vectors):
        return vectors if is_large else pytrees.of_kinds(vectors, like)

    def begin(state):
        key = jax.random.key_data(state.actor.key)
        actor = state.actor._replace(key=())
        return by_kind(state._replace(learner=raveled(state.learner), actor=actor)), *draw(key)

    def draw(key):
        key, key_action = jax.random.split(jax.random.wrap_key_data(key))
        shape = (config.num_steps, config.num_envs)
        return jax.random.key_data(key), distributions.noise(spec.action_space, key_action, shape)

    def act_once(vectors, noise, t, obs, mask, before):
        state = state_of(vectors)
        how = noise, t, state.actor.carry, before
        return rollout.act(network, state.learner, obs, mask, *how, records=records)

    def blank(*given):
        *_, recorded = jax.eval_shape(act_once, *given)
        return jax.tree.map(lambda x: jnp.zeros((config.num_steps, *x.shape), x.dtype), recorded)

    def act(vectors, noise, t, obs, mask, before, recorded):
        actions, carry, now = act_once(vectors, noise, t, obs, mask, before)
        put = partial(jax.lax.dynamic_update_index_in_dim, index=t, axis=0)
        return actions, carry, jax.tree.map(put, recorded, now)

    def learn(floats, vectors, key, batch, recorded):
        batch = batch._replace(recorded=recorded)
        state = a2c.learn(config_of(floats), network, state_of(vectors), batch)
        return by_kind(state), *draw(key)

    def look(vectors, key, ends_row):
        state = state_of(vectors)
        following = a2c.begin_row(state, ends_row)
        actor = rollout.unopened(jax.random.wrap_key_data(key))
        unopened = following._replace(learner=unraveled(state.learner), actor=actor)
        return unopened, a2c.row(state), by_kind(following)

    # Two threads beat one in the same updates as two devices do.
    is_short = config.batch_size * pytrees.size(whole.learner.params) < seeds.LARGE
    jit = jit_in_order if is_short else jax.jit
    act = jit(act, donate_argnames="recorded")  # which is written where it is
    begin, blank, learn, look = map(jit, (begin, blank, learn, look))
    return _Programs(begin, blank if records else None, act, learn, look)


def _actor(config, network, key):
    """Fresh episodes, in environments that have just been opened."""
    carry = networks.initial_carry(network, config.num_envs)
    return ActorState((), (), key, rollout.no_episodes(config.num_envs), carry)


def _vectors(network, learner):
    """(a network whose parameters are one vector, a function that puts such vectors in the place of
    pytrees like the parameters, its inverse) for a learner's shapes. Parameters that are many, or
    not all float32, stay as they are."""
    structure, is_large = jax.tree.structure(learner.params), pytrees.size(learner.params) > LARGE
    if is_large or any(leaf.dtype != np.float32 for leaf in jax.tree.leaves(learner.params)):
        return network, lambda learner: learner, lambda learner: learner

    def is_like_params(tree):
        return jax.tree.structure(tree) == structure

    def change(function, kinds, trees):
        return jax.tree.map(
            lambda kind, x: function(x, kind) if is_like_params(kind) else x,
            *(kinds, trees),
            is_leaf=is_like_params,
        )

    raveled = networks.Raveled(network, learner.params)
    return (
        raveled,
        partial(change, lambda x, _: pytrees.ravel(x), learner),
        partial(change, pytrees.unravel, learner),
    )


def _chunks(config, state, log_interval):
    """The chunks of one seed."""
    env, network = rollout.make_env_and_network(config)
    floats, _ = pytrees.settings(config)
    without_floats = dataclasses.replace(config, **dict.fromkeys(FLOAT_FIELDS, 0.0))
    programs = _programs(without_floats, env.spec)

    # As arrays of JAX's they are passed in a fraction of the time.
    floats, *numbers = map(jnp.asarray, (floats, *np.arange(config.num_steps, dtype=np.int32)))

    def update(vectors, key, noise, recorded, obs, mask):
        """One rollout and one gradient step, of which only the actions are waited for."""

        def act(t, *seen):
            nonlocal recorded
            given = vectors, noise, numbers[t], *seen
            if programs.blank and recorded is None:
                recorded = programs.blank(*given)
            actions, carry, recorded = programs.act(*given, recorded)
            return rollout.on_host(env, actions), carry

        obs, mask, batch = rollout.loop(act, running.step, obs, mask, config.num_steps, first)
        return *programs.learn(floats, vectors, key, batch, recorded), recorded, obs, mask

    def look(ends_row):
        nonlocal now
        state, metrics, vectors = programs.look(*now[:2], ends_row)
        now = vectors, *now[1:]
        return state, jax.device_get(metrics)

    key, key_reset = jax.random.split(state.actor.key)
    env_seeds = host_envs.seeds(key_reset, config.num_envs)
    with env.open(env_seeds) as running:
        begun = running.reset(env_seeds)
        actor = _actor(config, network, key)
        first = jax.tree.map(jnp.asarray, actor.carry)
        now = *programs.begin(state._replace(actor=actor)), None, *begun
        done, end = int(state.learner.updates), -math.inf  # the first chunk is one update
        given = done
        while done < config.num_updates:
            try:
                now, done = update(*now), done + 1
            except forkserver.EnvError:
                state, metrics = look(ends_row=False)
                if done > given or metrics.diverged_at:
                    yield state, metrics  # what was learnt is not lost
                if metrics.diverged_at:  # parameters of NaN are to blame
                    return
                raise
            ends_row = at_row_end(config, done, log_interval)
            if ends_row or time.perf_counter() >= end:
                yield look(ends_row)
                given, end = done, time.perf_counter() + seeds.CHUNK_SECONDS
