"""Optax chains from a config."""

import jax
import jax.numpy as jnp
import optax

from rljax import types  # noqa: F401  makes Config a pytree
from rljax.config import Config
from rljax.utils import pytrees


def make(config: Config) -> optax.GradientTransformation:
    """Global-norm clipping, the optimiser, and the learning rate's schedule.

    The flavours of RMSProp, with n the running mean of squared gradients g:

        rmsprop_tf      n starts at 1,  step g / sqrt(n + eps)    TensorFlow 1, OpenAI baselines
        rmsprop_torch   n starts at 0,  step g / (sqrt(n) + eps)  PyTorch, Stable-Baselines3
        rmsprop_a3c     n starts at 0,  step g / sqrt(n + eps)    arXiv 1602.01783, equations 8, 9

    It keeps no state of its own, so that it can be made anew inside any jitted function.
    """
    return optax.chain(
        _clip_by_global_norm(config.max_grad_norm),
        _direction(config),
        optax.scale_by_learning_rate(lambda updates: learning_rate(config, updates)),
    )


def skip(opt_state: optax.OptState) -> optax.OptState:
    """The state of `make`'s optimiser after a gradient that was rejected: the schedule advances."""
    *others, schedule = opt_state
    return (*others, schedule._replace(count=schedule.count + 1))


def at_time_of(opt_state: optax.OptState, before: optax.OptState) -> optax.OptState:
    """The state of `make`'s optimiser with the schedule of another."""
    return (*opt_state[:-1], before[-1])


def learning_rate(config: Config, updates):
    """The learning rate after a number of updates: constant, or in a straight line to 0."""
    if not config.anneal_lr:
        return config.learning_rate
    return config.learning_rate * (1.0 - updates / config.num_updates)


def _direction(config):
    eps = config.optimizer_eps
    if config.optimizer == "adam":
        return optax.scale_by_adam(eps=eps)
    return optax.scale_by_rms(
        decay=config.rmsprop_decay,
        eps=eps,
        initial_scale=1.0 if config.optimizer == "rmsprop_tf" else 0.0,
        eps_in_sqrt=config.optimizer != "rmsprop_torch",
    )


def global_norm(tree) -> jax.Array:
    """The norm of all numbers of a pytree."""
    return jnp.sqrt(pytrees.total(jax.tree.map(jnp.square, tree)))


def _clip_by_global_norm(limit):
    """optax's, with `global_norm`."""

    def update(grads, state, params=None):
        del params
        factor = jnp.minimum(1.0, limit / global_norm(grads))
        return jax.tree.map(lambda grad: factor * grad, grads), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
