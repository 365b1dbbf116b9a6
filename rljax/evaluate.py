"""Trained policies: as plain functions, and judged over full episodes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax import distributions, rollout
from rljax.config import Config
from rljax.types import LearnerState

MAX_EPISODE_STEPS = 100_000
"""An episode that has not ended by itself after so many steps is ended."""

_EVALUATION = 2**32 - 1  # folded into a key; `split` would need as many children to reach it


class Evaluation(NamedTuple):
    """Full episodes; every field is [N], or [S, N] for S learners."""

    returns: Any
    lengths: Any
    finished: Any
    """bool: the episode ended by itself, within MAX_EPISODE_STEPS."""


def policy(config: Config, learner: LearnerState, greedy: bool = False) -> Callable:
    """The learner's policy as a plain function `policy(obs, key) -> action`.

    It takes one observation [*obs_shape] or a batch [B, *obs_shape] and gives what the
    environment takes, one action or a batch.

    Args:
        config: the one that the learner was trained with.
        learner: of one agent; take one member of a vmapped state by indexing its leaves.
        greedy: the distribution's mode rather than a sample. The key is then not used.
    """
    env, network = rollout.make_agent(config)
    space = env.spec.action_space

    @jax.jit
    def act(obs, key):
        obs = jnp.asarray(obs, jnp.float32)
        batch = obs.reshape(-1, *env.spec.obs_shape)
        noise = distributions.noise(space, key, batch.shape[:1])
        action = _act(network, learner, batch, None if greedy else noise)
        lead = obs.shape[: obs.ndim - len(env.spec.obs_shape)]
        return action.reshape(*lead, *space.shape)

    return act


def evaluation_keys(keys: jax.Array, updates: int) -> jax.Array:
    """Keys for an evaluation after so many updates, apart from all that training draws.

    Args:
        keys: [S] the keys that training started from.
    """
    apart = jax.vmap(lambda key: jax.random.fold_in(key, _EVALUATION))(keys)
    return jax.vmap(lambda key: jax.random.fold_in(key, updates))(apart)


def evaluate(
    config: Config, learners: LearnerState, keys: jax.Array, num_episodes: int, greedy: bool
) -> Evaluation:
    """Full episodes with each of S learners, on environments of their own.

    Without bias toward short episodes: each of N environments plays one episode, and all N
    count, whenever they end. (The first N episodes to end among fewer environments would be the
    short ones.)

    Args:
        learners: the leaves are [S, ...].
        keys: [S] one per learner, apart from the keys of training.
        num_episodes: N.
        greedy: the distribution's mode rather than samples.

    Returns:
        Evaluation [S, N], in NumPy.
    """
    return jax.device_get(_evaluate(config, learners, keys, num_episodes, greedy))


@partial(jax.jit, static_argnames=("num_episodes", "greedy"))
def _evaluate(config, learners, keys, num_episodes, greedy):
    env, network = rollout.make_agent(config)
    play = partial(_play, env, network, num_episodes, greedy)
    return jax.vmap(play)(learners, keys)


def _play(env, network, num_episodes, greedy, learner, key):
    key, key_reset = jax.random.split(key)
    env_state, obs = jax.vmap(env.reset)(jax.random.split(key_reset, num_episodes))

    def step(carry):
        env_state, obs, key, played, steps = carry
        key, key_action, key_env = jax.random.split(key, 3)
        noise = distributions.noise(env.spec.action_space, key_action, (num_episodes,))
        action = _act(network, learner, obs, None if greedy else noise)
        action = action.reshape(num_episodes, *env.spec.action_space.shape)
        draws = jax.vmap(env.draw)(jax.random.split(key_env, num_episodes))
        env_state, answer = jax.vmap(env.step)(draws, env_state, action)
        playing = jnp.logical_not(played.finished)
        played = Evaluation(
            returns=played.returns + jnp.where(playing, answer.reward, 0.0),
            lengths=played.lengths + playing,
            finished=played.finished | answer.terminated | answer.truncated,
        )
        return env_state, answer.obs, key, played, steps + 1

    def goes_on(carry):
        *_, played, steps = carry
        return jnp.logical_not(jnp.all(played.finished)) & (steps < MAX_EPISODE_STEPS)

    zeros = jnp.zeros(num_episodes)
    played = Evaluation(zeros, zeros.astype(jnp.int32), zeros.astype(bool))
    *_, played, _ = jax.lax.while_loop(goes_on, step, (env_state, obs, key, played, jnp.int32(0)))
    return played


def _act(network, learner, obs, noise):
    """What the environment takes, [B, ...]: sampled with noise, else the mode."""
    distribution = rollout.policy(network, learner, obs)
    action = distribution.mode() if noise is None else distribution.sample(noise)
    return distribution.to_env(action)
