"""Losses of a user's own, as a config names them."""

import jax.numpy as jnp

from rljax.losses import actor_critic


def with_kurtosis(distribution, values, actions, advantages, targets, config):
    """The usual one, with a metric more and without another."""
    loss, metrics = actor_critic(distribution, values, actions, advantages, targets, config)
    del metrics["explained_variance"]
    return loss, {**metrics, "largest_value": jnp.max(values), "number": 3}


def bare(distribution, values, actions, advantages, targets, config):
    """Policy gradient alone, in a batch's own sum, and no metrics."""
    return -jnp.mean(distribution.log_prob(actions) * advantages), {}


def no_tuple(distribution, values, *rest):
    return jnp.mean(values)


def a_vector(distribution, values, *rest):
    return values, {}


def a_vector_of_metrics(distribution, values, *rest):
    return jnp.mean(values), {"values": values}


def a_taken_name(distribution, values, *rest):
    return jnp.mean(values), {"episodic_return": jnp.mean(values)}


def no_name(distribution, values, *rest):
    return jnp.mean(values), {"my metric": jnp.mean(values)}


NO_FUNCTION = 3


def not_a_number_at_times(distribution, values, actions, advantages, targets, config):
    """The usual one, but NaN where the first action of the batch is 0 and the second is not."""
    loss, metrics = actor_critic(distribution, values, actions, advantages, targets, config)
    is_now = jnp.logical_and(actions[0] == 0, actions[1] != 0)
    return jnp.where(is_now, jnp.nan, loss), metrics
