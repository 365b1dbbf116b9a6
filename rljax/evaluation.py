"""Trained policies evaluated over full episodes; `policy` makes one a plain function."""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import host_evaluation, networks, rollout
from rljax.config import MAX_EPISODE_STEPS, Config
from rljax.envs import interface
from rljax.envs.host_envs import HostEnv
from rljax.host_evaluation import Watch
from rljax.networks import cores, distributions
from rljax.policies import policy  # noqa: F401  where users look for it
from rljax.runs import checkpoints
from rljax.types import Moments, TrainState
from rljax.utils import pytrees, seeds, sharding
from rljax.utils.forkserver import EnvError

MAX_ENVS = 16  # by default the most environments that Python steps in an evaluation
CHUNK_STEPS = 500  # steps of an evaluation in one call of its program
FRESH = 2**32 - 1
"""For `evaluation_keys`: pass as `updates` for episodes that no evaluation during training had."""
_EVALUATION = 2**32 - 1  # folded into a key; `split` would need as many children to reach it
_SETTINGS = (
    *("env", "env_kwargs", "env_params", "reset_options", "wrappers", "frame_stack", "log_info"),
    *("network", "channels", "hidden_sizes"),
    *("activation", "shared_torso", "heads", "action_bounds", "core", "core_size", "core_inputs"),
)


class Evaluation(NamedTuple):
    """Full episodes; every field is [N], or [S, N] for S learners."""

    returns: Any
    lengths: Any
    finished: Any  # bool: the episode ended by itself, and was not cut
    info: Any = None  # float32 [..., K] the numbers of `Config.log_info` where it did; or None


def learners(config: Config, state: Mapping) -> TrainState:
    """The learners in a state from `runs.load`, trained with this config. What only training needs
    is left out.

    Raises:
        ValueError: the parameters are not those of the config's network; the message names the
            first one that differs.
    """
    env, network = rollout.make_env_and_network(config)
    saved = state["learner"]
    updates, moments = saved["updates"], saved.get("obs_moments")
    init = partial(networks.init, config, network, env.spec)
    like = jax.eval_shape(init, jax.random.key(0))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(updates), *x.shape), x.dtype), like)
    params = checkpoints.restore(dict(pytrees.named_leaves(saved["params"])), like)
    return TrainState(params, (), updates, Moments(**moments) if moments else None, None)


def evaluation_keys(keys: jax.Array, updates: int | np.ndarray) -> jax.Array:
    """Keys [S] for an evaluation, apart from those of training.

    Args:
        keys: [S] that training started from.
        updates: so far, of all seeds or [S] of each; or `FRESH`.
    """
    apart = jax.vmap(lambda key: jax.random.fold_in(key, _EVALUATION))(keys)
    return jax.vmap(jax.random.fold_in)(apart, np.broadcast_to(np.uint32(updates), keys.shape))


def evaluate(
    config: Config,
    learners: TrainState,
    keys: jax.Array,
    num_episodes: int,
    greedy: bool,
    *,
    num_envs: int | None = None,
    max_steps: int = MAX_EPISODE_STEPS,
    watch: Watch = lambda ended, episodes, steps: None,
) -> Evaluation:
    """Full episodes with each of S learners, on environments of their own.

    Exactly N episodes begin and all N count, whenever they end: the first N to end would be the
    short ones. In JAX each has an environment of its own; environments that Python steps are
    reused, a bounded number of them (`host_evaluation`).

    Args:
        learners: the leaves are [S, ...].
        keys: [S] one per learner, apart from the keys of training.
        num_episodes: N.
        greedy: the distribution's mode rather than samples.
        num_envs: the most environments that Python steps; by default the config's, up to MAX_ENVS.
        max_steps: an episode that has not ended after this number of steps is cut.
        watch: called before the first step and then between steps with (episodes that have ended,
            all episodes, steps so far); an exception that it raises ends the evaluation.

    Returns:
        Evaluation [S, N], in NumPy.

    Raises:
        EnvError: an environment could not be made or failed, or a compiled program failed.
        ValueError: `num_episodes`, `num_envs` or `max_steps` is below 1.
    """
    num_envs = min(config.num_envs, MAX_ENVS) if num_envs is None else num_envs
    numbers = dict(num_episodes=num_episodes, num_envs=num_envs, max_steps=max_steps)
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} = {value}: must be at least 1")
    shared = settings(config)
    learners = learners._replace(opt_state=(), return_moments=None)
    try:
        in_process = dict(num_envs=num_envs, vectorization="sync")
        env = rollout.make_env(dataclasses.replace(config, **in_process))
    except (ValueError, TypeError) as error:  # it could be made for training
        raise EnvError(f"in an evaluation: {error}") from error
    if isinstance(env, HostEnv):
        how = num_episodes, greedy, max_steps, watch
        return Evaluation(*host_evaluation.run(shared, env, learners, keys, *how))
    number = len(keys)
    mesh = sharding.mesh(number)
    begin_all, advance = _programs(mesh, num_episodes, greedy)
    watch(0, number * num_episodes, 0)
    learners, keys = sharding.placed((learners, keys), mesh)
    progress = begin_all(shared, keys)
    while True:
        with sharding.failures_named(f"env = {config.env!r}, in an evaluation"):
            progress = advance(shared, learners, progress, np.int32(max_steps))
            result, steps = jax.device_get((progress.result, progress.steps))
        result = seeds.take(result, slice(number))
        watch(int(result.finished.sum()), result.finished.size, int(result.lengths.sum()))
        if result.finished.all() or steps.max() >= max_steps:
            return result


def settings(config: Config) -> Config:
    """Those that an evaluation depends on, alone, so that runs that differ in others share its
    programs."""
    return Config(**{name: getattr(config, name) for name in _SETTINGS})


class Progress(NamedTuple):
    """Of N episodes, or [S, N]."""

    env_state: Any
    obs: Any
    carry: Any
    key: Any
    result: Evaluation
    steps: Any


@lru_cache(maxsize=8)
def _programs(mesh, num_episodes, greedy):
    """(config, keys) -> progress; (config, learners, progress, max_steps) -> progress."""
    begin_all = partial(begin, num_episodes=num_episodes)
    advance = partial(_advance, greedy=greedy)
    whole, parts = sharding.WHOLE, sharding.SHARDED
    begin_all = sharding.spread(begin_all, mesh, (whole, parts), parts)
    return begin_all, sharding.spread(advance, mesh, (whole, parts, parts, whole), parts)


def begin(config: Config, keys: jax.Array, num_episodes: int) -> Progress:
    """N episodes that have just begun for each of the keys [S], in environments in JAX."""
    env, network = rollout.make_env_and_network(config)

    def begin_one(key):
        key, key_reset = jax.random.split(key)
        index = jnp.arange(num_episodes, dtype=jnp.int32)
        env_state, obs = jax.vmap(env.mdp.reset)(jax.random.split(key_reset, num_episodes), index)
        zeros = jnp.zeros(num_episodes)
        info = jnp.zeros((num_episodes, len(config.log_info))) if config.log_info else None
        result = Evaluation(zeros, zeros.astype(jnp.int32), zeros.astype(bool), info)
        carry = networks.initial_carry(network, num_episodes)
        return Progress(env_state, obs, carry, key, result, jnp.int32(0))

    return jax.vmap(begin_one)(keys)


def _advance(config, learners, progress, max_steps, greedy):
    """CHUNK_STEPS steps of an evaluation, short enough for Ctrl-C."""
    env, network = rollout.make_env_and_network(config)

    def finish(learner, progress):
        end = jnp.minimum(progress.steps + CHUNK_STEPS, max_steps)
        return jax.lax.while_loop(
            lambda now: jnp.logical_not(jnp.all(now.result.finished)) & (now.steps < end),
            partial(step, env, network, learner, greedy),
            progress,
        )

    progress = jax.vmap(finish)(learners, progress)
    # One count for all, that of the member that needs the most steps.
    return progress._replace(steps=jnp.full_like(progress.steps, jnp.max(progress.steps)))


def step(env: Any, network: Any, learner: TrainState, greedy: bool, now: Progress) -> Progress:
    """A step of the N episodes of one learner; those that have ended stay as they are."""
    num_episodes = len(now.obs)
    key, key_action, key_env = jax.random.split(now.key, 3)
    noise = distributions.noise(env.spec.action_space, key_action, (num_episodes,))
    mask = jax.vmap(env.mdp.mask)(now.env_state)
    noise = None if greedy else noise
    action, carry = rollout.choose(network, learner, now.obs, mask, noise, now.carry)
    action = action.reshape(num_episodes, *env.spec.action_space.shape)
    keys = jax.random.split(jax.random.split(key_env)[0], num_episodes)
    env_state, answer = jax.vmap(env.mdp.step)(keys, now.env_state, action)
    still = jnp.logical_not(now.result.finished)
    done = interface.over(answer)
    ends = (still & done)[:, None]
    kept = partial(jax.tree.map, lambda before, now: jnp.where(ends, now, before))
    result = Evaluation(
        returns=now.result.returns + jnp.where(still, interface.score(answer), 0.0),
        lengths=now.result.lengths + still,
        finished=now.result.finished | done,
        info=kept(now.result.info, answer.info),
    )
    carry = cores.resumed(network, carry, answer.reward, done)
    return Progress(env_state, answer.obs, carry, key, result, now.steps + 1)
