"""Recurrent cores, between torsos and heads, and what an agent carries from step to step.

A core is any linen `RNNCellBase`: (carry, inputs [B, F]) -> (carry, outputs [B, H]).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.config import Config
from rljax.envs import spaces
from rljax.envs.spaces import ActionSpace, Box
from rljax.networks import cells
from rljax.utils.lookup import load_attribute, unknown


class Carry(NamedTuple):
    """What an agent with a core carries, [B, ...]. An agent without one carries ()."""

    cores: tuple
    """Of each core what its cell carries: the actor's and the critic's, or that of a shared one."""
    last_action: Any = ()
    """[B, A] as `encoded`, zeros at the first step of an episode; () if the core does not take
    it."""
    last_reward: Any = ()
    """[B] zeros at the first step of an episode; () if the core does not take it."""


def choose(config: Config) -> Callable[[], nn.Module] | None:
    """A function that makes the core named in a config; None if it has none.

    Raises:
        ValueError: an unknown name.
        TypeError: an object that is no linen RNN cell.
    """
    core: Any = config.core
    if core == "none":
        return None
    if core in cells.KINDS:
        return partial(cells.Cell, core, config.core_size, config.forget_bias)
    if isinstance(core, str):
        if ":" not in core:
            raise ValueError(unknown("core", core, ["none", *cells.KINDS]))
        core = load_attribute(core)
    if isinstance(core, type) and issubclass(core, nn.RNNCellBase):
        return core
    if isinstance(core, nn.RNNCellBase):
        return core.clone
    told = config.core if isinstance(config.core, str) else type(core).__name__
    raise TypeError(f"core = {told!r}: must be a flax.linen RNN cell")


def initial(network: Any, num_envs: int) -> Carry | tuple:
    """What environments [B] carry at the first step of an episode; () without a core.

    Args:
        network: an `ActorCritic`, or one that is `Raveled`.

    Raises:
        TypeError: the core's `initialize_carry` gives no pytree of arrays [B, ...].
    """
    if not network.make_core:
        return ()
    core = network.make_core()
    shape = num_envs, 1  # a cell asks for the rows alone
    carries = core.initialize_carry(jax.random.key(0), shape)
    for leaf in jax.tree.leaves(carries):
        if jnp.shape(leaf)[:1] != (num_envs,):
            came = jnp.shape(leaf) if hasattr(leaf, "shape") else type(leaf).__name__
            what = f"must give arrays of {num_envs} rows, not {came}"
            raise TypeError(f"core {type(core).__name__}.initialize_carry{shape}: {what}")
    first = Carry((carries,) * (1 if network.shared_torso else 2))
    if "last_action" in network.core_inputs:
        size = spaces.width(network.action_space)
        first = first._replace(last_action=jnp.zeros((num_envs, size)))
    if "last_reward" in network.core_inputs:
        first = first._replace(last_reward=jnp.zeros(num_envs))
    return first


def after(
    network: Any, carry: Carry | tuple, cores: tuple, action: jax.Array, reward: Any = None
) -> Carry | tuple:
    """What environments [B] carry after a step, unless it ended the episode (`unless_ended`).

    Args:
        carry: before the step.
        cores: the cores' carries after it.
        action, reward: of the step, as a `Transition` has them; without a reward, `resumed` is
            given it.
    """
    if not carry:
        return ()
    carry = carry._replace(cores=cores)
    if "last_action" in network.core_inputs:
        carry = carry._replace(last_action=encoded(network.action_space, action))
    if "last_reward" in network.core_inputs and reward is not None:
        carry = carry._replace(last_reward=reward)
    return carry


def resumed(network: Any, carry: Carry | tuple, reward: jax.Array, done: jax.Array) -> Any:
    """What is carried to the next step, where reward and done, [B], of the step before were not
    known yet to `after`."""
    if carry and "last_reward" in network.core_inputs:
        carry = carry._replace(last_reward=reward)
    return unless_ended(network, carry, done)


def unless_ended(network: Any, carry: Carry | tuple, done: jax.Array) -> Carry | tuple:
    """The carry, or `initial` in environments whose episode has ended: done, bool [B]."""
    return cells.reset(done, initial(network, len(done)), carry)


def unroll(core: nn.Module, carry: Any, inputs: jax.Array, done: jax.Array) -> tuple[Any, Any]:
    """`cells.Cell.unroll` of any cell, step by step."""
    if isinstance(core, cells.Cell):
        return core.unroll(carry, inputs, done)
    first = core.initialize_carry(jax.random.key(0), (inputs.shape[1], 1))

    def step(core, carry, row):
        inputs, done = row
        carry, out = core(carry, inputs)
        return cells.reset(done, first, carry), (carry, out)

    scan = nn.scan(step, variable_broadcast=True, split_rngs={})
    return scan(core, carry, (inputs, done))[1]


def encoded(space: ActionSpace, action: jax.Array) -> jax.Array:
    """[B, A] a sampled action as a core takes it: one-hot, or as it is if it is continuous."""
    if isinstance(space, Box):
        return action.reshape(len(action), -1)
    rows = action.reshape(len(action), -1, 1)
    counts = space.mask_shape
    hot = rows == jnp.arange(counts[-1])[None, None]
    return hot.reshape(len(action), -1).astype(jnp.float32)


def extras(carry: Carry) -> list[jax.Array]:
    """What a core takes beside the torso's features, each [B, F]."""
    columns = (carry.last_action, carry.last_reward)
    return [x.reshape(len(x), -1) for x in columns if not isinstance(x, tuple)]
