"""Acting: experience from environments written in JAX, by a scan, and from others, by a loop."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import envs, networks
from rljax.config import Config
from rljax.envs import Env, interface
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import Step
from rljax.networks import ActorCritic, blocks, cores, distributions, layers
from rljax.types import ActorState, EpisodeStats, TrainState, Transition
from rljax.utils import pytrees, sharding


def make_env_and_network(config: Config) -> tuple[Env | HostEnv, ActorCritic]:
    """The environment and the network that a config names.

    Raises:
        ValueError, TypeError: as `envs.make` and `networks.make` do.
    """
    env = make_env(config)
    return env, networks.make(config, env.spec)


def make_env(config: Config) -> Env | HostEnv:
    """The environment that a config names.

    Raises:
        ValueError, TypeError: as `envs.make` does.
    """
    return envs.make(
        *(config.env, config.env_kwargs, config.env_params, config.num_envs, config.vectorization),
        *(config.wrappers, config.frame_stack, config.reset, config.log_info),
        *(config.reset_options, config.env_processes),
    )


def init(
    env: Env | HostEnv, network: ActorCritic, num_envs: int, key: jax.Array, first: Any = 0
) -> ActorState:
    """Fresh episodes in `num_envs` environments, whose indices count from `first`. Environments
    that Python steps have only a key: their episodes begin when they are opened."""
    if isinstance(env, HostEnv):
        return unopened(key)
    key, key_reset = jax.random.split(key)
    index = first + jnp.arange(num_envs, dtype=jnp.int32)
    env_state, obs = jax.vmap(env.reset)(jax.random.split(key_reset, num_envs), index)
    carry = networks.initial_carry(network, num_envs)
    return ActorState(env_state, obs, key, no_episodes(num_envs), carry)


def unopened(key: jax.Array) -> ActorState:
    """The state of environments that Python steps, before they are opened."""
    return ActorState((), (), key, EpisodeStats((), (), ()))


def no_episodes(num_envs: int) -> EpisodeStats:
    """Episodes that have just begun."""
    zeros = jnp.zeros(num_envs)
    return EpisodeStats(zeros, zeros.astype(jnp.int32), zeros)


def no_info(config: Config) -> jax.Array | None:
    """Sums of the numbers of `Config.log_info` over no episodes, [K]; None if there are none."""
    return jnp.zeros(len(config.log_info)) if config.log_info else None


def policy(
    network: ActorCritic,
    learner: TrainState,
    obs: jax.Array,
    mask: jax.Array | None = None,
    carry: Any = (),
) -> tuple[Any, Any]:
    """(the distribution over actions for observations [B, *obs_shape]; over those that the mask
    [B, *mask_shape] allows, if there is one, the carries of the cores after it, for
    `networks.cores.after`; () without a core)."""
    inputs = blocks.inputs(network, learner.obs_moments, obs)
    return network.apply(learner.params, inputs, mask, carry, method="actor")


def _recorded_policy(network, learner, obs, mask, carry):
    """(what `policy` gives, the outputs of the actor's layers for `layers.reuse`)."""
    inputs = blocks.inputs(network, learner.obs_moments, obs)
    return layers.record(network, learner.params, inputs, mask, carry, method="actor")


def act(
    network: ActorCritic,
    learner: TrainState,
    obs: jax.Array,
    mask: jax.Array | None,
    noise: jax.Array,
    t: jax.Array,
    first: Any = (),
    before: tuple = (),
    *,
    records: bool = False,
) -> tuple[tuple[jax.Array, ...], Any, Any]:
    """Samples actions for environments that Python steps, at step t of a rollout.

    Args:
        noise: [T, B, ...] of the rollout.
        first: the carry at the rollout's first step; () without a core.
        before: as `loop` gives it.
        records: whether to record the outputs of the actor's layers, as `layers.record` does.

    Returns:
        ((sampled actions [B, ...],), followed by the actions for the environments if they differ;
        the carry, for `loop`; what was recorded, or None).
    """
    carry = first
    if before:
        now = cores.resumed(network, *before)
        carry = jax.tree.map(lambda first, now: jnp.where(t == 0, first, now), first, now)
    recorded = None
    if records:
        (distribution, carries), recorded = _recorded_policy(network, learner, obs, mask, carry)
    else:
        distribution, carries = policy(network, learner, obs, mask, carry)
    action = distribution.sample(noise[t])
    env_action = distribution.to_env(action)
    carry = cores.after(network, carry, carries, action)
    return (action,) if env_action is action else (action, env_action), carry, recorded


def choose(
    network: ActorCritic,
    learner: TrainState,
    obs: jax.Array,
    mask: jax.Array | None,
    noise: jax.Array | None,
    carry: Any = (),
) -> tuple[jax.Array, Any]:
    """(actions for environments [B, ...], sampled with noise, or without it the mode; the carry,
    for `networks.cores.resumed`)."""
    distribution, carries = policy(network, learner, obs, mask, carry)
    action = distribution.mode() if noise is None else distribution.sample(noise)
    return distribution.to_env(action), cores.after(network, carry, carries, action)


def on_host(env: HostEnv, actions: tuple[jax.Array, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The actions of `act` in NumPy: (sampled actions, actions for the environments)."""
    arrays = [np.asarray(x) for x in actions]
    return arrays[0], arrays[-1].reshape(len(arrays[0]), *env.spec.action_space.shape)


def collect(
    config: Config,
    env: Env,
    network: ActorCritic,
    learner: TrainState,
    actor: ActorState,
    axis: str | None = None,
    explore: Callable = lambda distribution: distribution,
) -> tuple[ActorState, Transition]:
    """One rollout: `num_steps` steps of `num_envs` environments with the learner's policy.

    All random numbers are drawn before the loop. The outputs of the actor's layers are recorded for
    `learner.compute_gradients`, which also computes the values; unless they are so large that they
    are computed in `blocks`.

    Args:
        axis: of a mesh over whose devices the environments are sharded: the actor then has those
            of this device, B of `num_envs`, and the key of all.
        explore: the policy's distribution -> the one that actions are sampled from.

    Returns:
        (actor, Transition [T, B, ...]); the actor's episode statistics and its carry are still
        those before the rollout, for `learner.compute_gradients`.
    """
    key, key_action, key_env = jax.random.split(actor.key, 3)
    shape, num_envs = (config.num_steps, config.num_envs), len(actor.obs)
    noise = distributions.noise(env.spec.action_space, key_action, shape)
    own = partial(sharding.own, number=num_envs, axis=axis, at=1)
    env_state, randomness = env.draw(key_env, actor.env_state, shape, own)
    chance = pytrees.stack_alike((own(noise), randomness), axis=1)
    batch_size = num_envs * config.num_steps
    rows = blocks.rows(network, learner.params, (batch_size, *env.spec.obs_shape))

    def actor_of(obs, mask, carry):
        if rows is not None:
            of = network, learner.params, learner.obs_moments
            return blocks.apply(*of, obs, mask, carry=carry, method="actor", rows=rows), None
        return _recorded_policy(network, learner, obs, mask, carry)

    def step(now, chance):
        env_state, obs, carry = now
        noise, of_env = pytrees.unstack(chance)
        mask = jax.vmap(env.mask)(env_state)
        (distribution, carries), recorded = actor_of(obs, mask, carry)
        action = explore(distribution).sample(noise)
        env_action = distribution.to_env(action).reshape(num_envs, *env.spec.action_space.shape)
        env_state, answer = jax.vmap(env.step)(of_env, env_state, env_action)
        flags = (answer.terminated, answer.truncated)
        row = (obs, action, answer.reward, *flags, answer.final_obs)
        more = dict(mask=mask, info=answer.info, score=answer.score)
        transition = pytrees.stack_alike(Transition(*row, **more))
        carry = cores.after(network, carry, carries, action)
        carry = cores.resumed(network, carry, answer.reward, jnp.logical_or(*flags))
        return (env_state, answer.obs, carry), (transition, recorded)

    def scan(now, chance, unroll):
        return jax.lax.scan(step, now, chance, unroll=unroll)

    # A GPU launches kernels at the beginning and end of each iteration: with 4 steps in one, an
    # update of CartPole 4096x16 launches 203 and not 243; on an H100, in turn, 65536x16 makes 1.02
    # times the steps/s. On a CPU unrolling makes 0.78 times (16x5).
    (env_state, obs, _), (batch, recorded) = jax.lax.platform_dependent(
        (env_state, actor.obs, actor.carry),
        chance,
        cpu=partial(scan, unroll=1),
        default=partial(scan, unroll=4),
    )
    batch = pytrees.unstack(batch, axis=1)._replace(recorded=recorded)
    return actor._replace(env_state=env_state, obs=obs, key=key), batch


def loop(
    act: Callable[..., tuple[tuple[np.ndarray, np.ndarray], Any]],
    step: Callable[[np.ndarray], Step],
    obs: np.ndarray,
    mask: np.ndarray | None,
    num_steps: int,
    first: Any = (),
) -> tuple[np.ndarray, np.ndarray | None, Transition]:
    """One rollout in environments that Python steps; `collect` does the same for those in JAX.

    Args:
        act: (t, obs [B, *obs_shape], mask [B, *mask_shape] or None, before) -> ((sampled actions,
            actions for the environments), carry). With a core `before` is (the carry that the step
            before gave, its reward [B] and whether it ended the episode, bool [B]), at the first
            step (`first`, zeros, zeros); without one it is ().
        step: actions -> Step, with auto-reset.
        obs, mask: to act on first.
        num_steps: T.
        first: the carry at the first step; () without a core.

    Returns:
        (obs and mask to act on next, Transition [T, B, ...]), in NumPy.
    """
    columns, before = None, ()
    if first:
        before = first, np.zeros(len(obs), np.float32), np.zeros(len(obs), bool)
    for t in range(num_steps):
        (action, env_action), carry = act(t, obs, mask, before)
        answer = step(env_action)
        row = (obs, action, answer.reward, answer.terminated, answer.truncated, answer.final_obs)
        row = (*row, mask, None, answer.info, answer.score, answer.over)  # as in `Transition`
        if columns is None:  # a list takes half the time of `jax.tree.map`
            empty = [x if x is None else np.empty((num_steps, *x.shape), x.dtype) for x in row]
            columns = Transition(*empty)
            given = [i for i, x in enumerate(row) if x is not None]
        for i in given:
            columns[i][t] = row[i]
        obs, mask = answer.obs, answer.mask
        if first:
            before = carry, answer.reward, answer.terminated | answer.truncated
    return obs, mask, columns


def track(episodes: EpisodeStats, batch: Transition) -> tuple[EpisodeStats, tuple]:
    """Updates the statistics of episodes with a rollout, by masked sums over it.

    In each environment, rewards (or scores) up to the end of the last finished episode belong to
    finished episodes, later ones to the episode in progress.

    Returns:
        (episodes, (number, sum of returns, sum of lengths, sums [K] of what `batch.info` holds at
        the last step, or None) of the episodes that ended).
    """
    num_steps = batch.reward.shape[0]
    done = interface.over(batch)
    steps = jnp.arange(1, num_steps + 1, dtype=jnp.int32)[:, None]
    end = jnp.max(jnp.where(done, steps, 0), axis=0)  # steps up to the last end, or 0
    ended = end > 0
    score = interface.score(batch)
    before = jnp.sum(jnp.where(steps <= end[None], score, 0.0), axis=0)
    after = jnp.sum(jnp.where(steps > end[None], score, 0.0), axis=0)
    returns, lengths, discounted = episodes
    finished = (
        jnp.sum(done, dtype=jnp.float32),
        jnp.sum(jnp.where(ended, returns + before, 0.0)),
        jnp.sum(jnp.where(ended, lengths + end, 0), dtype=jnp.float32),
        jax.tree.map(lambda x: jnp.sum(jnp.where(done[..., None], x, 0.0), (0, 1)), batch.info),
    )
    under_way = EpisodeStats(
        jnp.where(ended, 0.0, returns) + after,
        jnp.where(ended, 0, lengths) + num_steps - end,
        discounted,
    )
    return under_way, finished
