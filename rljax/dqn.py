"""Double DQN with a replay buffer (Mnih et al. 2015, Nature 518; van Hasselt et al. 2016, arXiv
1509.06461), to compare actor-critics with.

All environments step together and explore epsilon-greedily; their transitions go to the buffer.
Each rollout is followed by gradient steps on `losses.double_dqn`, of transitions drawn uniformly:

    y = r + gamma (1 - terminated) Q_target(s', argmax_a Q(s', a))

As in `a2c`, `init`, `update` and `train` are pure functions, which the caller jits and vmaps, and
`chunks` runs the same updates from the host:

    state, metrics = jax.jit(dqn.train)(preset("dqn", "CartPole-v1"), DQNConfig(), key)

The buffer is part of the state, and so of every checkpoint. Environments that Python steps, masks
of valid actions and recurrent cores are refused.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import learner, losses, normalization, optimizers, rollout, rows, types
from rljax.config import Config, default_log_interval
from rljax.dqn_config import DQNConfig
from rljax.envs import Env
from rljax.envs.host_envs import HostEnv
from rljax.networks import ActorCritic, blocks
from rljax.networks.distributions import Categorical
from rljax.rows import begin_row, row
from rljax.types import ActorState, BatchMetrics, Metrics, TrainState
from rljax.utils import pytrees, seeds
from rljax.utils.compilation import jit_once
from rljax.utils.imports import check_installed
from rljax.utils.seeds import Steps

types.register(DQNConfig)


class DQNState(NamedTuple):
    """The whole state of a run."""

    learner: TrainState
    actor: ActorState
    row: Metrics
    """Sums over the updates since the last row of metrics."""
    row_error: Metrics
    """Their rounding errors so far."""
    target_params: Any
    """Parameters of the target network."""
    buffer: Any
    """flashbax's state, of `Replayed` transitions."""
    key: Any
    """Of the draws from the buffer."""


class Replayed(NamedTuple):
    """A transition, or several with leading axes, as the buffer keeps it."""

    obs: Any
    final_obs: Any
    """The true successor."""
    action: Any
    reward: Any
    """Unscaled."""
    terminated: Any


def init(config: Config, options: DQNConfig, key: jax.Array) -> DQNState:
    """A fresh agent, fresh episodes and an empty buffer.

    Raises:
        ValueError, TypeError: a setting or an option is wrong, or DQN does not support the
            environment, or flashbax is missing.
    """
    config.validate()
    options.validate()
    env, network = _made(config)
    key_learner, key_actor, key_buffer = jax.random.split(key, 3)
    train_state = learner.init(config, network, env.spec, key_learner)
    zeros = dict.fromkeys(("loss", "td_error", "q_mean", "epsilon"), jnp.float32(0))
    empty = rows.empty(zeros, rollout.no_info(config))
    actor = rollout.init(env, network, config.num_envs, key_actor)
    obs, zero = actor.obs[0], jnp.float32(0)
    one = Replayed(obs, obs, jnp.int32(0), zero, jnp.bool_(False))
    buffer = _buffer(options).init(pytrees.stack_alike(one))
    buffer = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), buffer)  # strong
    return DQNState(train_state, actor, empty, empty, train_state.params, buffer, key_buffer)


def update(
    config: Config, options: DQNConfig, state: DQNState, axis: str | None = None
) -> DQNState:
    """One rollout, and the gradient steps that follow it.

    Args:
        axis: None; environments are not sharded.

    Raises:
        ValueError: as `init` does.
    """
    env, network = _made(config)
    updates, chance = state.learner.updates + 1, epsilon(config, options, state.learner.updates)
    explore = partial(epsilon_greedy, chance)
    acting = config, env, network, state.learner, state.actor, axis
    actor, batch = rollout.collect(*acting, explore=explore)
    moments, discounted = learner.batch_moments(config, network, actor.episodes, batch)
    episodes, (*finished, info) = rollout.track(actor.episodes, batch)
    actor = actor._replace(episodes=episodes._replace(discounted_return=discounted))

    key, key_sample = jax.random.split(state.key)
    replayed, sample = _replay(options, state.buffer, batch, key_sample)
    before = learner.merge_moments(state.learner, moments)
    moved, (loss_metrics, norm) = _learn(
        config, options, network, before, state.target_params, sample
    )
    has_started = updates >= _first_update(config, options)
    moved = pytrees.where(has_started, moved, before)._replace(updates=updates)
    is_due = updates % max(1, options.target_interval // config.batch_size) == 0
    target_params = pytrees.where(is_due, moved.params, state.target_params)

    metrics = BatchMetrics(*finished, loss_metrics | {"epsilon": chance}, norm, info)
    sums = rows.add(config, state, moved, metrics)
    return DQNState(moved, actor, *sums, target_params, replayed, key)


def epsilon(config: Config, options: DQNConfig, updates: Any) -> jax.Array:
    """The probability of a random action in the rollout after a number of updates: 1 until learning
    starts, and in a straight line from 1 to `exploration_final` from the start of the run on."""
    share = updates / config.num_updates / options.exploration_fraction
    line = 1.0 + jnp.minimum(share, 1.0) * (options.exploration_final - 1.0)
    return jnp.where(updates < _first_update(config, options), 1.0, line)


def epsilon_greedy(epsilon: jax.Array, greedy: Categorical) -> Categorical:
    """A greedy policy [..., A] that takes, with probability epsilon, any action instead."""
    number = greedy.logits.shape[-1]
    return Categorical(jnp.log((1.0 - epsilon) * greedy.probs + epsilon / number))


def train(
    config: Config, options: DQNConfig, key: jax.Array, log_interval: int | None = None
) -> tuple[DQNState, Metrics]:
    """A whole run, a pure function; arguments and results are those of `a2c.train`."""
    state = init(config, options, key)
    log_interval = log_interval or default_log_interval(config)
    return rows.train(partial(update, config, options), state, config.num_updates, log_interval)


def in_one_program(config: Config) -> bool:
    """True: all seeds are trained in one program. Raises as `init` does."""
    _made(config)
    return True


@jit_once
def init_seeds(config: Config, options: DQNConfig, keys: jax.Array) -> DQNState:
    """Fresh agents [S], one for each key [S]."""
    return jax.vmap(init, in_axes=(None, None, 0))(config, options, keys)


def chunks(
    config: Config,
    options: DQNConfig,
    keys: jax.Array | None,
    states: DQNState | None = None,
    *,
    log_interval: int | None = None,
    watch: Callable | None = None,
) -> Iterator[tuple[DQNState, Metrics]]:
    """A whole run of S seeds in one program, in chunks of updates of half a second or so; arguments
    and what it yields are those of `a2c.chunks`."""
    config.validate()
    options.validate()
    log_interval = log_interval or default_log_interval(config)
    states = init_seeds(config, options, keys) if states is None else states
    steps = Steps(update, row, begin_row)
    yield from seeds.in_one_program(steps, (config, options), states, log_interval)


def summary(states: DQNState) -> dict:
    """The bytes of a seed's replay buffer, in memory and in each checkpoint."""
    buffers = sum(x.nbytes for x in jax.tree.leaves(states.buffer))
    return {"replay_buffer_bytes": buffers // len(states.learner.updates)}


def _first_update(config, options):
    """The updates so far after the first that learns. Environment steps can be above int32."""
    return -(-options.learning_starts // config.batch_size)


def _made(config: Config) -> tuple[Env, ActorCritic]:
    """The environment and the network, or a ValueError that says what DQN does not support."""
    if config.heads != "q":
        raise ValueError(f"heads = {config.heads!r}: DQN has Q values alone: set heads = 'q'")
    if config.core != "none":
        raise ValueError(f"core = {config.core!r}: DQN has no recurrent core; a2c and a3c have")
    env, network = rollout.make_env_and_network(config)
    if isinstance(env, HostEnv):
        what = "Python steps it, and DQN steps environments in JAX alone; a2c and a3c can"
        raise ValueError(f"env = {config.env!r}: {what}")
    if env.spec.has_mask:
        what = "DQN cannot mask invalid actions; a2c and a3c can"
        raise ValueError(f"env = {config.env!r}: {what}")
    return env, network


def _buffer(options):
    check_installed("algorithm = 'dqn'", "dqn", "flashbax")
    import flashbax  # an extra, needed here alone

    return flashbax.make_item_buffer(
        max_length=options.buffer_size,
        min_length=1,
        sample_batch_size=options.gradient_steps * options.replay_batch_size,
        add_sequences=True,
        add_batches=True,
    )


def _replay(options, state, batch, key):
    """(the buffer's state with the transitions of a rollout [T, B, ...], a sample from it)."""
    buffer = _buffer(options)
    fresh = Replayed(*(getattr(batch, name) for name in Replayed._fields))
    fresh = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), fresh)
    # As two arrays instead of five: XLA on a CPU pays for each that is written and read.
    state = buffer.add(state, pytrees.stack_alike(fresh, axis=2))
    with jax.numpy_rank_promotion("allow"):  # flashbax adds a vector to a matrix
        return state, buffer.sample(state, key).experience


def _learn(config, options, network, state, target_params, sample):
    """(the learner after the gradient steps, means over these of (losses by name, norm of the
    gradient)), of a sample [gradient_steps * replay_batch_size, ...] from the buffer."""
    sample = jax.tree.map(lambda x: x.reshape(options.gradient_steps, -1, *x.shape[1:]), sample)
    # The schedule counts updates, and an update has one learning rate.
    rate = optimizers.learning_rate(config, state.updates)
    constant = dataclasses.replace(config, learning_rate=rate, anneal_lr=False)

    def q_values(params, obs):
        inputs = blocks.inputs(network, state.obs_moments, obs)
        return network.apply(params, inputs, method="q_values")

    def step(state, rows):
        batch = pytrees.unstack(rows, axis=1)
        rewards = normalization.scale(state.return_moments, batch.reward)

        def loss(params):
            return losses.double_dqn(
                q_values(params, batch.obs),
                jax.lax.stop_gradient(q_values(params, batch.final_obs)),
                q_values(target_params, batch.final_obs),
                *(batch.action, rewards, batch.terminated, config.gamma),
            )

        (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        moved = learner.apply_gradients(constant, state, grads)
        return moved, ({"loss": value, **metrics}, optimizers.global_norm(grads))

    state, measured = jax.lax.scan(step, state, sample)
    return state, jax.tree.map(jnp.mean, measured)
