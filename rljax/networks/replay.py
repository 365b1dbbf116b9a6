"""What acting computed, once more over a whole rollout, for the gradient."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rljax.networks import blocks, cells, cores, layers
from rljax.networks.actor_critic import ActorCritic, Raveled
from rljax.types import Moments, Transition


class Replayed(NamedTuple):
    """Of a rollout [T, B], of N = T * B rows."""

    distribution: Any  # [N] over actions
    values: jax.Array  # [N]
    after: Any  # `cores.Carry` [T, B, ...] after each step, also where that ended an episode
    carry: Any  # `cores.Carry` [B] to act on next


def replay(
    network: ActorCritic | Raveled,
    params: Any,
    moments: Moments | None,
    carry: Any,
    batch: Transition,
    *,
    rows: int | None,
) -> Replayed:
    """Distributions and values of a rollout, reusing what it recorded. The gradient flows through
    all of its steps; what was carried to its first is constant.

    Args:
        carry: `cores.Carry` [B] at the first step.
        batch: [T, B, ...].
        rows: as for `blocks.apply`, in which the torsos compute.
    """
    num_steps, num_envs = batch.reward.shape
    merge = partial(jax.tree.map, lambda x: x.reshape(num_steps * num_envs, *x.shape[2:]))
    split = partial(jax.tree.map, lambda x: x.reshape(num_steps, num_envs, *x.shape[1:]))
    obs, mask, recorded = merge((batch.obs, batch.mask, batch.recorded))
    apply = partial(blocks.apply, network, params, moments, obs, recorded=recorded, rows=rows)
    if not network.make_core:
        return Replayed(*apply(mask=mask), (), ())
    features = split(apply(method="torsos"))
    done = jnp.logical_or(batch.terminated, batch.truncated)
    carry = jax.lax.stop_gradient(carry)
    # What is carried beside the cores follows from the step before alone, and begins as zeros.
    after = cores.after(network, carry, (), *merge((batch.action, batch.reward)))
    before = cells.before(carry._replace(cores=()), split(after), done)
    variables = layers.reuse(params, recorded)
    extras = split(cores.extras(merge(before)))
    outputs, carries = network.apply(
        variables, features, extras, carry.cores, done, method="unroll"
    )
    after = split(after)._replace(cores=carries)
    last = jax.tree.map(lambda x: x[-1], after)
    carry = cores.unless_ended(network, last, done[-1])
    distribution, values = network.apply(variables, merge(outputs), mask, method="heads")
    return Replayed(distribution, values, *jax.lax.stop_gradient((after, carry)))
