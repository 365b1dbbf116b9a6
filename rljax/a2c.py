"""Advantage actor-critic, synchronous (arXiv 1602.01783; Wu et al. 2017).

All environments step together; their experience is one batch, for one gradient step. `init`,
`update` and `train` are pure functions, which the caller jits and vmaps:

    state, metrics = jax.jit(a2c.train)(config, key)

`chunks` runs the same updates from the host, a second or less at a time. Environments that Python
steps are trained by `chunks` alone (`rljax.a2c_host`).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax

from rljax import learner, rollout, rows
from rljax.config import Config, default_log_interval
from rljax.envs.host_envs import HostEnv
from rljax.rows import begin_row, row
from rljax.types import ActorState, AgentState, Metrics
from rljax.utils import seeds
from rljax.utils.compilation import jit_once
from rljax.utils.seeds import Steps


def init(config: Config, key: jax.Array) -> AgentState:
    """A fresh agent and fresh episodes.

    Raises:
        ValueError, TypeError: as `Config.validate`, `rollout.make_env_and_network` and
            `losses.make` do.
    """
    config.validate()
    env, network = rollout.make_env_and_network(config)
    key_learner, key_actor = jax.random.split(key)
    train_state = learner.init(config, network, env.spec, key_learner)
    zero_losses = learner.zero_losses(config, network, env.spec, train_state.params)
    empty = rows.empty(zero_losses, rollout.no_info(config))
    actor = rollout.init(env, network, config.num_envs, key_actor)
    return AgentState(train_state, actor, empty, empty)


def update(config: Config, state: AgentState, axis: str | None = None) -> AgentState:
    """One rollout and one gradient step, in environments in JAX.

    Args:
        axis: of a mesh over whose devices the environments are sharded, inside `jax.shard_map`: the
            state is then in parts, as `parts` says. The same but for rounding.

    Raises:
        ValueError: Python steps the environments.
    """
    env, network = rollout.make_env_and_network(config)
    if isinstance(env, HostEnv):
        raise ValueError(f"env = {config.env!r}: Python steps it: use a2c.chunks")
    actor, batch = rollout.collect(config, env, network, state.learner, state.actor, axis)
    return learn(config, network, state._replace(actor=actor), batch, axis)


def parts(of_agent: Any, of_env: Any) -> AgentState:
    """A pytree prefix of an `AgentState` that tells what is of each environment, [B, ...], from
    what is of the agent as a whole."""
    actor = ActorState(of_env, of_env, key=of_agent, episodes=of_env, carry=of_env)
    return AgentState(of_agent, actor, of_agent, of_agent)


def train(
    config: Config, key: jax.Array, log_interval: int | None = None
) -> tuple[AgentState, Metrics]:
    """A whole run; in environments in JAX a pure function.

    Args:
        log_interval: updates in a row of metrics; by default a hundredth of the run.

    Returns:
        (state, Metrics [R]): the last row may be of fewer updates. A run that diverged says so in
        `diverged_at`; it does not stop.

    Raises:
        ValueError, TypeError: as `init` does. Under `jax.jit` the floats have no values to check:
            call `config.validate()` before. Environments that Python steps cannot be jitted.
        EnvError: as `chunks` does.
    """
    log_interval = log_interval or default_log_interval(config)
    if not in_one_program(config):
        from rljax import a2c_host

        return a2c_host.train(config, key, log_interval)
    state = init(config, key)
    return rows.train(partial(update, config), state, config.num_updates, log_interval)


def in_one_program(config: Config) -> bool:
    """Whether all seeds are trained in one program, else one after another: where the environment
    is in JAX.

    Raises:
        ValueError, TypeError: as `envs.make` does.
    """
    env, _ = rollout.make_env_and_network(config)
    return not isinstance(env, HostEnv)


@jit_once
def init_seeds(config: Config, keys: jax.Array) -> AgentState:
    """Fresh agents [S], one for each key [S]."""
    return jax.vmap(init, in_axes=(None, 0))(config, keys)


def chunks(
    config: Config,
    keys: jax.Array | None,
    states: AgentState | None = None,
    *,
    log_interval: int | None = None,
    watch: Callable | None = None,
) -> Iterator[tuple[AgentState, Metrics]]:
    """A whole run of S seeds, in chunks of updates of half a second or so.

    Seeds are trained in one program or, where Python steps the environments, one after another; the
    latter begin new episodes here. The length of a chunk is an argument of the compiled program, so
    it changes no bit of training: the first chunk is one update, which takes the compilation; later
    ones follow the clock, and end where a row of metrics does at the latest.

    Args:
        keys: [S] one key per seed; not used where there are states.
        states: [S] agents to continue with, instead of fresh ones.
        log_interval: updates in a row of metrics; by default a hundredth of the run.
        watch: not called; A2C has no live numbers beside the metrics.

    Yields:
        (AgentState, Metrics) with leading axis [S]; the metrics, in NumPy, are of the updates
        since the last row ended, and of the seeds whose `updates` have advanced. Seeds are spread
        over the local devices. On an accelerator the next chunk deletes the states.

    Raises:
        ValueError, TypeError: as `init` does, when the first chunk is asked for.
        RefusedError: as `HostEnv.open` does.
        EnvError: an environment that Python steps failed, and a last chunk was given before; or a
            program, by what an environment in JAX calls, or for want of memory.
    """
    config.validate()
    log_interval = log_interval or default_log_interval(config)
    states = init_seeds(config, keys) if states is None else states
    if not in_one_program(config):
        from rljax import a2c_host

        yield from a2c_host.chunks(config, states, log_interval)
        return
    steps = Steps(update, row, begin_row, parts)
    yield from seeds.in_one_program(steps, (config,), states, log_interval)


def learn(config, network, state, batch, axis=None):
    """The state after the gradient step of a rollout."""
    actor, given = learner.compute_gradients(
        config, network, state.learner, state.actor, batch, axis
    )
    # Else XLA rounds otherwise for several devices than for one, at every size.
    gradients = jax.lax.optimization_barrier(given.gradients)
    moved = learner.apply_gradients(config, state.learner, gradients, given.moments)
    return AgentState(moved, actor, *rows.add(config, state, moved, given.metrics))
