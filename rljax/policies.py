"""A trained policy as a plain function."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import networks, rollout
from rljax.config import Config
from rljax.envs import host_envs, spaces
from rljax.envs.host_envs import HostEnv
from rljax.networks import blocks, distributions
from rljax.types import TrainState


def policy(config: Config, learner: TrainState, greedy: bool = False) -> Callable:
    """The learner's policy as a plain function `policy(obs, key=None, mask=None) -> action`; with a
    core `policy(obs, key, carry, mask=None, reward=0.0) -> (action, carry)`, where the first carry
    of an episode is `policy.initial_carry(B)`, with B = 1 for one observation.

    For an environment in JAX it takes one encoded observation [*obs_shape] or a batch
    [B, *obs_shape], float32 or in the dtype in which `envs.make` gives them, and returns one
    action, numbered from 0, or a batch. For an environment that
    Python steps it takes an observation as the environment returns it, or a batch [B, ...] if its
    space is a Box, and returns what the environment's `step` takes. The mask, [*mask_shape] or in
    gymnasium's form, says which actions are valid; by default all are. The reward [B], or a number,
    is that of the step before, for a core that takes it; by default 0.

    With the config's `frame_stack` an observation is a stack: in JAX as the environment gives it,
    else the last N observations as a sequence, the oldest first, such as the array [N, ...] that
    gymnasium's FrameStackObservation gives.

    `policy.distribution(obs, mask=None)` is the distribution over actions, such as a `Categorical`
    with `probs` or a `Gaussian` with `mean` and `log_std`, and `policy.value(obs)` the value: of
    one observation or of a batch, without its batch axis of one. With a core both take the carry as
    well, `policy.value(obs, carry)`.

    Args:
        learner: of one agent, such as a member of a vmapped state, trained with this config.
        greedy: the mode rather than a sample; sampling without a key is a ValueError.
    """
    env, network = rollout.make_env_and_network(config)
    spec, space = env.spec, env.spec.action_space

    @jax.jit
    def act(obs, key, mask, carry, reward):
        lead = obs.shape[: obs.ndim - len(spec.obs_shape)]
        obs = obs.reshape(-1, *spec.obs_shape)
        if mask is not None:
            mask = mask.reshape(-1, *space.mask_shape)
        if "last_reward" in config.core_inputs:
            carry = carry._replace(last_reward=jnp.broadcast_to(reward, obs.shape[:1]))
        noise = None if greedy else distributions.noise(space, key, obs.shape[:1])
        action, carry = rollout.choose(network, learner, obs, mask, noise, carry)
        return action.reshape(*lead, *space.shape), carry

    @jax.jit
    def look(obs, mask, carry):
        lead = obs.shape[: obs.ndim - len(spec.obs_shape)]
        obs = obs.reshape(-1, *spec.obs_shape)
        if mask is not None:
            mask = mask.reshape(-1, *space.mask_shape)
        parts = thoughts(network, learner, obs, mask, carry)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), parts)

    def act_on_host(obs, key, mask, carry, reward):
        encode, axes = host_envs.given(env)
        if axes is not None and np.ndim(obs) > axes:
            _check_rows(carry, len(obs))
            masks = [None] * len(obs) if mask is None else mask
            keys = [None] * len(obs) if greedy else jax.random.split(key, len(obs))
            carries = [jax.tree.map(lambda x, i=i: x[i][None], carry) for i in range(len(obs))]
            rewards = np.broadcast_to(reward, len(obs))
            rows = [act_on_host(*one) for one in zip(obs, keys, masks, carries, rewards)]
            actions, carries = zip(*rows)
            return np.stack(actions), jax.tree.map(lambda *x: jnp.concatenate(x), *carries)
        mask = None if mask is None else spaces.mask(space, mask)
        action, carry = act(encode(obs), key, mask, carry, reward)
        return env.decode(np.asarray(action)), carry

    def of_any(obs, key, mask, carry, reward):
        if key is None and not greedy:
            raise ValueError("key = None: only a greedy policy needs no key")
        if isinstance(env, HostEnv):
            return act_on_host(obs, key, mask, carry, reward)
        obs = encoded(obs)
        _check_rows(carry, math.prod(obs.shape[: obs.ndim - len(spec.obs_shape)]))
        return act(obs, key, mask, carry, reward)

    def encoded(obs):
        if isinstance(env, HostEnv):
            encode, axes = host_envs.given(env)
            is_batch = axes is not None and np.ndim(obs) > axes
            return np.stack([encode(one) for one in obs]) if is_batch else encode(obs)
        kept = getattr(spec.observation, "dtype", "float32")
        is_kept = getattr(obs, "dtype", None) == kept
        return jnp.asarray(obs, kept if is_kept else jnp.float32)

    def looked(obs, carry, mask=None):
        obs = encoded(obs)
        carry = _carry(carry) if network.make_core else ()
        _check_rows(carry, math.prod(obs.shape[: obs.ndim - len(spec.obs_shape)]))
        if mask is not None and isinstance(env, HostEnv):
            mask = spaces.mask(space, mask)
        return look(obs, mask, carry)

    def policy(obs, key=None, mask=None):
        return of_any(obs, key, mask, (), np.float32(0))[0]

    def with_core(obs, key=None, carry=None, mask=None, reward=0.0):
        return of_any(obs, key, mask, _carry(carry), np.float32(reward))

    with_core.initial_carry = lambda number=1: networks.initial_carry(network, number)
    made = with_core if network.make_core else policy
    if network.make_core:
        made.distribution = lambda obs, carry=None, mask=None: looked(obs, carry, mask)[0]
        made.value = lambda obs, carry=None: looked(obs, carry)[1]
    else:
        made.distribution = lambda obs, mask=None: looked(obs, (), mask)[0]
        made.value = lambda obs: looked(obs, ())[1]
    return made


def thoughts(
    network: networks.ActorCritic, learner: TrainState, obs: Any, mask: Any = None, carry: Any = ()
) -> tuple[Any, jax.Array]:
    """(the distribution over actions, the values [B]) for encoded observations [B, *obs_shape]."""
    distribution, _ = rollout.policy(network, learner, obs, mask, carry)
    inputs = blocks.inputs(network, learner.obs_moments, obs)
    return distribution, network.apply(learner.params, inputs, carry, method="critic")


def _carry(carry):
    if not isinstance(carry, networks.Carry):
        how = "give policy.initial_carry() at the first step, then what the policy returned"
        raise ValueError(f"carry = {carry!r}: the agent has a core; {how}")
    return carry


def _check_rows(carry, number):
    rows = {len(x) for x in jax.tree.leaves(carry)}
    if rows - {number}:
        what = f"carry of {max(rows)} rows: there are {number} observations"
        raise ValueError(f"{what}; episodes begin with policy.initial_carry({number})")
