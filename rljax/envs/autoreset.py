"""Auto-reset: environments in JAX whose next episode begins in the step that ends one.

The first state of the next episode is drawn before the step, in case the episode ends there: anew
for every step, or "cached". Cached, each environment has one first state at hand, which is drawn
anew once in about `STEPS_PER_RESET` of its steps or in a rollout, whichever is longer, whether it
was used or not: episodes that end within that time of one another begin alike. Where a state holds
the random key of later steps, as jumanji's does, they also have the same chance later. Each
environment has its own, so that a batch is as diverse as ever, and a first state that was used in
an episode longer than that is never used again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.envs.interface import MDP, EnvSpec, Step
from rljax.utils.pytrees import anywhere

STEPS_PER_RESET = 128  # a reset that takes 30 steps (Craftax) then costs a quarter of a step


class Env(NamedTuple):
    """One environment with auto-reset, as pure functions; all but `draw` for `vmap`."""

    spec: EnvSpec
    reset: Callable[[jax.Array, Any], tuple[Any, jax.Array]]  # as `MDP.reset`
    draw: Callable[..., tuple[Any, Any]]
    """(key, states [B, ...], (T, B), own=keys -> keys) -> (states, the random part of T steps
    [T, B]): of each its key, and the first state of the next episode where that is not cached.
    They do not depend on what happens, so that a rollout makes those of all its steps at once,
    outside its loop; `own` takes a device's share of the steps' keys."""
    step: Callable[[Any, Any, jax.Array], tuple[Any, Step]]
    """(what `draw` gives for a step, state, action) -> (state, Step)."""
    mask: Callable[[Any], jax.Array | None]  # as `MDP.mask`
    mdp: MDP  # without auto-reset; it has states of its own


class Kept(NamedTuple):
    """A state with what resets need."""

    state: Any  # of the MDP
    index: Any  # int32, of the environment in its batch
    following: Any = ()  # the cached (state, obs) of the next episode's beginning, or ()
    rollouts: Any = ()  # int32 number so far, of all environments alike, where they are cached


def make(mdp: MDP, reset: str = "auto") -> Env:
    """An environment with auto-reset.

    Args:
        reset: "fresh", "cached", or "auto": cached where a reset takes longer than a step.

    Raises:
        ValueError: cached resets of an environment that resets itself.
    """
    if reset == "cached" and mdp.resets_itself:
        raise ValueError(f"reset = 'cached': {mdp.spec.name!r} resets itself in its step")
    if reset == "cached" or (reset == "auto" and mdp.costly_reset and not mdp.resets_itself):
        return _cached(mdp)
    return _fresh(mdp)


def _fresh(mdp):
    def reset(key, index=0):
        state, obs = mdp.reset(key, index)
        return (Kept(state, jnp.int32(index)) if mdp.by_index else state), obs

    def draw(key, states, shape, own=lambda keys: keys):
        if mdp.resets_itself:
            return states, own(jax.random.split(key, shape))
        keys_step, keys_reset = (own(jax.random.split(k, shape)) for k in jax.random.split(key))
        index = states.index if mdp.by_index else jnp.zeros(keys_reset.shape[1], jnp.int32)
        resets = jax.vmap(jax.vmap(mdp.reset), in_axes=(0, None))(keys_reset, index)
        return states, (keys_step, resets)

    def step(randomness, state, action):
        key, following = (randomness, None) if mdp.resets_itself else randomness
        after, answer = _stepped(mdp, key, plain(state), action, following)
        return (state._replace(state=after) if mdp.by_index else after), answer

    def plain(state):
        return state.state if mdp.by_index else state

    return Env(mdp.spec, reset, draw, step, lambda state: mdp.mask(plain(state)), mdp)


def _cached(mdp):
    def reset(key, index=0):
        key, key_following = jax.random.split(key)
        state, obs = mdp.reset(key, index)
        following = mdp.reset(key_following, index)
        return Kept(state, jnp.int32(index), following, jnp.int32(0)), obs

    def draw(key, states, shape, own=lambda keys: keys):
        key_step, key_reset = jax.random.split(key)
        period = -(-STEPS_PER_RESET // shape[0])
        keys = own(jax.random.split(key_reset, (1, shape[1])))[0]
        order = own(jnp.arange(shape[1], dtype=jnp.int32)[None])[0]
        states = _renewed(mdp, keys, states, order, period)
        return states._replace(rollouts=states.rollouts + 1), own(jax.random.split(key_step, shape))

    def step(key, state, action):
        after, answer = _stepped(mdp, key, state.state, action, state.following)
        return state._replace(state=after), answer

    return Env(mdp.spec, reset, draw, step, lambda state: mdp.mask(state.state), mdp)


def _renewed(mdp, keys, states, order, period):
    """The states [B] with new first states for those environments whose turn it is, by their order
    [B] among those of all devices: for each every so many rollouts, its period."""
    num_envs = len(order)
    due = (states.rollouts + order) % period == 0

    def renew(following):
        rows = jnp.nonzero(due, size=-(-num_envs // period), fill_value=num_envs)[0]
        of_rows = keys.at[rows].get(mode="clip"), states.index.at[rows].get(mode="clip")
        fresh = jax.vmap(mdp.reset)(*of_rows)
        return jax.tree.map(lambda x, new: x.at[rows].set(new, mode="drop"), following, fresh)

    following = jax.lax.cond(anywhere(due), renew, lambda following: following, states.following)
    return states._replace(following=following)


def _stepped(mdp, key, state, action, following):
    """A step that begins the next episode, unless the environment has done so, where one ends."""
    after, answer = mdp.step(key, state, action)
    if following is not None:
        done = jnp.logical_or(answer.terminated, answer.truncated)
        after, obs = mdp.ops.where(done, following, (after, answer.obs))
        answer = answer._replace(obs=obs)
    return after, answer._replace(mask=mdp.mask(after))
