"""A third algorithm: A2C that moves every parameter by the same distance."""

import jax
import jax.numpy as jnp

from rljax import a2c
from rljax.config import default_log_interval
from rljax.utils import seeds

init, init_seeds, row, begin_row = a2c.init, a2c.init_seeds, a2c.row, a2c.begin_row


def update(config, state, axis=None):
    moved = a2c.update(config, state, axis)
    params = jax.tree.map(
        lambda new, old: old + config.learning_rate * jnp.sign(new - old),
        moved.learner.params,
        state.learner.params,
    )
    return moved._replace(learner=moved.learner._replace(params=params))


def in_one_program(config):
    return True


def chunks(config, keys, states=None, *, log_interval=None, watch=None):
    states = init_seeds(config, keys) if states is None else states
    steps = seeds.Steps(update, row, begin_row, a2c.parts)
    interval = default_log_interval(config)
    yield from seeds.in_one_program(steps, (config,), states, log_interval or interval)
