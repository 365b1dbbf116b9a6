"""The smallest config that trains, and the functions that tests call, compiled: operation by
operation each would be compiled as dozens of programs."""

import contextlib
from functools import partial

import jax

from rljax import Config, a2c, learner, rollout
from rljax.config import at_row_end, default_log_interval
from rljax.sweep import programs

CONFIG = Config(
    env="probes:RewardByAction", total_timesteps=320, num_envs=4, num_steps=4, hidden_sizes=(8,)
)

init = jax.jit(a2c.init)
init_seeds = jax.jit(jax.vmap(a2c.init, (None, 0)))
update = jax.jit(a2c.update)
train = jax.jit(a2c.train)

init_learner = jax.jit(learner.init, static_argnums=(1, 2))
loss_gradients = jax.jit(learner.loss_gradients, static_argnums=1)
apply_gradients = jax.jit(learner.apply_gradients)
init_actor = jax.jit(rollout.init, static_argnums=(0, 1, 2))
collect = jax.jit(rollout.collect, static_argnums=(1, 2))


@partial(jax.jit, static_argnums=(1, 2))
def init_learners(config, network, spec, keys):
    return jax.vmap(lambda key: learner.init(config, network, spec, key))(keys)


def is_row(config, metrics):
    """Whether metrics from `chunks` are a whole row, with rows of the usual length."""
    return at_row_end(config, int(metrics.updates[0]), default_log_interval(config))


@contextlib.contextmanager
def optimized():
    """XLA optimises as it does for users: else devices differ in last bits."""
    before = jax.config.read("jax_disable_most_optimizations")
    _forget_programs()
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        _forget_programs()


def _forget_programs():
    """Those of sweeps, which are kept as they were compiled."""
    for kept in (programs._begin, programs._init, programs._advancing):
        kept.cache_clear()
