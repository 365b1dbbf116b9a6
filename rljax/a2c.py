"""Advantage actor-critic, synchronous (arXiv 1602.01783; Wu et al. 2017).

All environments step together; their experience is one batch, for one gradient step. `init`,
`update` and `train` are pure functions, to be jitted and vmapped by who calls them:

    state, metrics = jax.jit(a2c.train)(config, key)

`chunks` runs the same updates from the host, a second or less at a time. Environments that Python
steps (gymnasium's) are trained by `chunks`, with one jitted call of the policy for each step of all
environments and one jitted update for each rollout.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rljax import learner, networks, normalization, optimizers, rollout
from rljax.config import FLOAT_FIELDS, Config
from rljax.envs import host_envs
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import EnvSpec
from rljax.networks import distributions
from rljax.types import ActorState, AgentState, Metrics
from rljax.utils import forkserver, pytrees, sharding

CHUNK_SECONDS = 0.5
"""What a chunk should take: short enough for a display and Ctrl-C."""


def init(config: Config, key: jax.Array) -> AgentState:
    """A fresh agent and fresh episodes.

    Raises:
        ValueError, TypeError: as `Config.validate` and `rollout.make_agent` do.
    """
    config.validate()
    env, network = rollout.make_env_and_network(config)
    key_learner, key_actor = jax.random.split(key)
    return AgentState(
        learner=learner.init(config, network, env.spec, key_learner),
        actor=rollout.init(env, config.num_envs, key_actor),
        sums=_no_metrics(),
        sums_error=_no_metrics(),
    )


def update(config: Config, state: AgentState) -> tuple[AgentState, Metrics]:
    """One rollout and one gradient step, in environments in JAX.

    Returns:
        (state, Metrics of this update).

    Raises:
        ValueError: the environments are stepped by Python.
    """
    agent = rollout.make_env_and_network(config)
    if isinstance(agent[0], HostEnv):
        raise ValueError(f"env = {config.env!r}: it is stepped by Python: use a2c.chunks")
    state, sums = _update(config, agent, state)
    return state, row(state._replace(sums=sums))


def train(config: Config, key: jax.Array) -> tuple[AgentState, Metrics]:
    """A whole run; in environments in JAX a pure function.

    Returns:
        (state, Metrics [R]): one row for every `config.log_interval` updates, at most a hundred.
        A run that diverged says so in `diverged_at`; it does not stop.

    Raises:
        ValueError, TypeError: as `init` does. Under `jax.jit` the floats have no values to check:
            call `config.validate()` before. Environments stepped by Python cannot be jitted.
        EnvError: as `chunks` does.
    """
    agent = rollout.make_env_and_network(config)
    if isinstance(agent[0], HostEnv):
        return _train_on_host(config, key)
    state = init(config, key)
    whole, rest = divmod(config.num_updates, config.log_interval)
    rows = jnp.array([config.log_interval] * whole + [rest] * (rest > 0), jnp.int32)

    def advance(state, num_updates):
        state = _advance(config, agent, state, num_updates)
        return state, row(state)

    return jax.lax.scan(advance, state, rows)


def row(state: AgentState) -> Metrics:
    """Metrics of the row under way."""
    sums, episodes = state.sums, state.sums.episodes
    means = jax.tree.map(lambda x: x / sums.updates, sums)
    return means._replace(
        updates=state.learner.updates,
        episodes=episodes,
        episodic_return=sums.episodic_return / episodes,  # 0 / 0 is the NaN that says none ended
        episodic_length=sums.episodic_length / episodes,
        diverged_at=sums.diverged_at,
    )


@jax.jit
def init_seeds(config: Config, keys: jax.Array) -> AgentState:
    """Fresh agents [S], one for each key [S]."""
    return jax.vmap(init, in_axes=(None, 0))(config, keys)


def chunks(
    config: Config, keys: jax.Array | None, states: AgentState | None = None
) -> Iterator[tuple[AgentState, Metrics]]:
    """A whole run of S seeds at once, in chunks of updates of half a second or so. Environments
    stepped by Python take a single seed, and begin new episodes here.

    The length of a chunk is an argument of one compiled program, so it changes no bit of
    training, however it is chosen: the first chunk is one update, which takes the compilation;
    later ones follow the clock and end where a row of metrics does at the latest. A chunk ends a
    row if `is_row(config, metrics)`.

    Args:
        keys: [S] one key per seed; not used where there are states.
        states: [S] agents to go on with, instead of fresh ones.

    Yields:
        (AgentState, Metrics) with leading axis [S]; the metrics, in NumPy, are of the updates
        since the last row ended.

    Raises:
        ValueError, TypeError: as `init` does, when the first chunk is asked for.
        RefusedError: as `HostEnv.open` does.
        EnvError: an environment that Python steps failed, and a last chunk was given before; or a
            program, by what an environment in JAX calls, or for want of memory.
    """
    config.validate()
    if states is None:
        states = init_seeds(config, keys)
    env, _ = rollout.make_env_and_network(config)
    if isinstance(env, HostEnv):
        yield from _host_chunks(config, env, states)
        return
    done = int(np.asarray(states.learner.updates)[0])
    length = 1
    while done < config.num_updates:
        to_row = config.log_interval - done % config.log_interval
        length = min(length, to_row, config.num_updates - done)
        start = time.perf_counter()
        with sharding.failures_named(f"env = {config.env!r}, in the updates after {done:,}"):
            states, metrics = _advance_all(config, states, np.int32(length))
            metrics = jax.device_get(metrics)
        seconds = time.perf_counter() - start
        done += length
        yield states, metrics
        length = max(1, int(CHUNK_SECONDS * length / seconds))


def is_row(config: Config, metrics: Metrics) -> bool:
    """Whether metrics from `chunks` are a whole row: always at the same updates of a run."""
    return config.ends_row(int(metrics.updates[0]))


@jax.jit
def begin_row(states: AgentState) -> tuple[AgentState, Metrics]:
    """Ends a row of metrics here and begins another: for a run [S] that goes on with another
    `config.log_interval`.

    Returns:
        (states, Metrics of the row so far).
    """
    sums, error = jax.tree.map(jnp.zeros_like, (states.sums, states.sums_error))
    return states._replace(sums=sums, sums_error=error), jax.vmap(row)(states)


@jax.jit
def _advance_all(config, states, num_updates):
    agent = rollout.make_env_and_network(config)

    def advance(state):
        state = _advance(config, agent, state, num_updates)
        return state, row(state)

    return jax.vmap(advance)(states)


def _advance(config, agent, state, num_updates):
    """So many updates; the number is traced."""
    return jax.lax.fori_loop(
        0, num_updates, lambda _, state: _update(config, agent, state)[0], state
    )


def _update(config, agent, state):
    """(state, sums of this update's figures)."""
    env, network = agent
    actor, batch = rollout.collect(config, env, network, state.learner, state.actor)
    return _learn(config, network, state._replace(actor=actor), batch)


def _learn(config, network, state, batch):
    """(state, sums of this update's figures), from a rollout."""
    actor = state.actor
    episodes, given = learner.compute_gradients(
        config, network, state.learner, actor.episodes, batch
    )
    moved = learner.apply(config, state.learner, given.gradients)
    moved = learner.observe(moved, given.increments)
    is_finite = _is_finite(given.figures, moved.params)
    sums = Metrics(
        updates=jnp.int32(1),
        **given.figures._asdict(),
        learning_rate=optimizers.learning_rate(config, state.learner.updates),
        diverged_at=jnp.where(is_finite, 0, moved.updates),
    )
    actor = actor._replace(episodes=episodes)
    begins_row = state.learner.updates % config.log_interval == 0
    return AgentState(moved, actor, *_add_to_row(state, sums, begins_row)), sums


def _is_finite(figures, params):
    """One sum is enough: an infinity or a NaN stays in it."""
    return jnp.isfinite(figures.grad_norm + figures.policy_loss + optax.tree.sum(params))


def _add_to_row(state, sums, begins_row):
    """(sums, their errors) of the row under way, which can be of millions of updates."""
    before, error = jax.tree.map(
        lambda x: jnp.where(begins_row, 0, x).astype(x.dtype), (state.sums, state.sums_error)
    )
    total, error = normalization.add(before, error, sums)
    first = jnp.where(state.sums.diverged_at > 0, state.sums.diverged_at, sums.diverged_at)
    return total._replace(diverged_at=first), error


def _no_metrics():
    integers = {"updates", "diverged_at"}
    fields = [name for name in Metrics._fields if not name.startswith("staleness")]  # A3C's
    return Metrics(**{f: jnp.int32(0) if f in integers else jnp.float32(0) for f in fields})


class _HostPrograms(NamedTuple):
    """What is jitted of training in environments that Python steps. The whole state is one vector
    between the calls, which take and give dozens of arrays no faster than they compute."""

    begin: Callable
    """AgentState -> (its vector, noise for a rollout)."""
    act: Callable
    """(vector, noise, t, obs, mask) -> actions as `rollout.act` gives them."""
    learn: Callable
    """(the config's floats, vector, rollout) -> (vector, noise for the next rollout)."""
    end: Callable
    """vector -> (AgentState [1] without episodes, Metrics [1] of the row so far)."""


@lru_cache(maxsize=8)
def _host_programs(config: Config, spec: EnvSpec) -> _HostPrograms:
    """For a config without its floats, so that runs share what is compiled."""
    network = networks.make(config, spec)
    _, config_of = pytrees.settings(config)

    def fresh(key):
        actor = ActorState((), (), key, rollout.no_episodes(config.num_envs))
        learning = learner.init(config, network, spec, key)
        return AgentState(learning, actor, _no_metrics(), _no_metrics())

    like = jax.eval_shape(fresh, jax.random.key(0))
    plain_like = jax.eval_shape(pytrees.plain, like)

    def state_of(vector):
        return pytrees.typed(pytrees.unpack(vector, plain_like), like)

    def begin(state):
        key, key_action = jax.random.split(state.actor.key)
        shape = (config.num_steps, config.num_envs)
        noise = distributions.noise(spec.action_space, key_action, shape)
        state = state._replace(actor=state.actor._replace(key=key))
        return pytrees.pack(pytrees.plain(state)), noise

    def act(vector, noise, t, obs, mask):
        return rollout.act(network, state_of(vector).learner, obs, mask, noise[t])

    def learn(floats, vector, batch):
        return begin(_learn(config_of(floats), network, state_of(vector), batch)[0])

    def end(vector):
        state = state_of(vector)
        ended = state._replace(actor=rollout.unopened(state.actor.key))
        return jax.tree.map(lambda x: x[None], (ended, row(state)))

    return _HostPrograms(*map(jax.jit, (begin, act, learn, end)))


def _host_chunks(config, env, states):
    """`chunks` in environments that Python steps."""
    num_seeds = len(states.learner.updates)
    if num_seeds != 1:
        raise ValueError(f"{num_seeds} seeds: environments stepped by Python take one at a time")
    state = jax.tree.map(lambda x: x[0], states)
    floats, _ = pytrees.settings(config)
    without_floats = dataclasses.replace(config, **dict.fromkeys(FLOAT_FIELDS, 0.0))
    programs = _host_programs(without_floats, env.spec)

    def update(vector, noise, obs, mask):
        """One rollout and one gradient step, of which only the actions are waited for."""

        def act(t, obs, mask):
            return rollout.on_host(env, programs.act(vector, noise, np.int32(t), obs, mask))

        obs, mask, batch = rollout.loop(act, running.step, obs, mask, config.num_steps)
        return *programs.learn(floats, vector, batch), obs, mask

    key, key_reset = jax.random.split(state.actor.key)
    seeds = host_envs.seeds(key_reset, config.num_envs)
    with env.open(seeds) as running:
        first = running.reset(seeds)
        actor = ActorState((), (), key, rollout.no_episodes(config.num_envs))
        now = (*programs.begin(state._replace(actor=actor)), *first)
        done, end = int(state.learner.updates), -math.inf  # the first chunk is one update
        given = done
        while done < config.num_updates:
            try:
                now, done = update(*now), done + 1
            except forkserver.EnvError:
                states, metrics = programs.end(now[0])
                diverged = metrics.diverged_at[0]
                if done > given or diverged:
                    yield states, jax.device_get(metrics)  # what was learnt is not lost
                if diverged:  # parameters of NaN are to blame
                    return
                raise
            if config.ends_row(done) or time.perf_counter() >= end:
                states, metrics = programs.end(now[0])
                yield states, jax.device_get(metrics)
                given, end = done, time.perf_counter() + CHUNK_SECONDS


def _train_on_host(config, key):
    """`train` in environments that Python steps."""
    if isinstance(key, jax.core.Tracer):
        raise ValueError(f"env = {config.env!r}: it is stepped by Python and cannot be jitted")
    state, rows = None, []
    for states, metrics in chunks(config, key[None]):
        state = jax.tree.map(lambda x: x[0], states)
        if is_row(config, metrics):
            rows.append(metrics)
    return state, jax.tree.map(lambda *x: np.concatenate(x), *rows)
