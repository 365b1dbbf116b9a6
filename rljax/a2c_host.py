"""A2C in environments that Python steps: one jitted call of the policy for each step of all
environments, and one jitted update for each rollout.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np

from rljax import a2c, learner, networks, rollout
from rljax.config import FLOAT_FIELDS, Config, at_row_end
from rljax.envs import host_envs
from rljax.envs.interface import EnvSpec
from rljax.networks import distributions
from rljax.types import ActorState, AgentState, Metrics
from rljax.utils import forkserver, pytrees, seeds


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
    """What is jitted. The whole state is one vector between the calls, as passing dozens of arrays
    takes as long as what they compute."""

    begin: Callable
    """AgentState -> (its vector, noise for a rollout)."""
    act: Callable
    """(vector, noise, t, obs, mask) -> actions as `rollout.act` gives them."""
    learn: Callable
    """(the config's floats, vector, rollout) -> (vector, noise for the next rollout)."""
    look: Callable
    """(vector, whether a row ends) -> (AgentState without episodes, Metrics, vector)."""


@lru_cache(maxsize=8)
def _programs(config: Config, spec: EnvSpec) -> _Programs:
    """For a config without its floats, so that runs share what is compiled."""
    network = networks.make(config, spec)
    _, config_of = pytrees.settings(config)

    def fresh(key):
        actor = ActorState((), (), key, rollout.no_episodes(config.num_envs))
        train_state = learner.init(config, network, spec, key)
        empty = a2c.empty_row(learner.zero_losses(config, network, spec, train_state.params))
        return AgentState(train_state, actor, empty, empty)

    like = jax.eval_shape(fresh, jax.random.key(0))
    plain_like = jax.eval_shape(pytrees.plain, like)

    def state_of(vector):
        return pytrees.typed(pytrees.unpack(vector, plain_like), like)

    def vector_of(state):
        return pytrees.pack(pytrees.plain(state))

    def begin(state):
        key, key_action = jax.random.split(state.actor.key)
        shape = (config.num_steps, config.num_envs)
        noise = distributions.noise(spec.action_space, key_action, shape)
        return vector_of(state._replace(actor=state.actor._replace(key=key))), noise

    def act(vector, noise, t, obs, mask):
        return rollout.act(network, state_of(vector).learner, obs, mask, noise[t])

    def learn(floats, vector, batch):
        return begin(a2c.learn(config_of(floats), network, state_of(vector), batch))

    def look(vector, ends_row):
        state = state_of(vector)
        following = a2c.begin_row(state, ends_row)
        unopened = following._replace(actor=rollout.unopened(state.actor.key))
        return unopened, a2c.row(state), vector_of(following)

    return _Programs(*map(jax.jit, (begin, act, learn, look)))


def _chunks(config, state, log_interval):
    """The chunks of one seed."""
    env, _ = rollout.make_env_and_network(config)
    floats, _ = pytrees.settings(config)
    without_floats = dataclasses.replace(config, **dict.fromkeys(FLOAT_FIELDS, 0.0))
    programs = _programs(without_floats, env.spec)

    def update(vector, noise, obs, mask):
        """One rollout and one gradient step, of which only the actions are waited for."""

        def act(t, obs, mask):
            return rollout.on_host(env, programs.act(vector, noise, np.int32(t), obs, mask))

        obs, mask, batch = rollout.loop(act, running.step, obs, mask, config.num_steps)
        return *programs.learn(floats, vector, batch), obs, mask

    def look(ends_row):
        nonlocal now
        state, metrics, vector = programs.look(now[0], ends_row)
        now = vector, *now[1:]
        return state, jax.device_get(metrics)

    key, key_reset = jax.random.split(state.actor.key)
    env_seeds = host_envs.seeds(key_reset, config.num_envs)
    with env.open(env_seeds) as running:
        first = running.reset(env_seeds)
        actor = ActorState((), (), key, rollout.no_episodes(config.num_envs))
        now = (*programs.begin(state._replace(actor=actor)), *first)
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
