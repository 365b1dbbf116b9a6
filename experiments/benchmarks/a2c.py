"""How fast A2C is in environments written in JAX: environment steps per second of one seed.

python experiments/benchmarks/a2c.py --envs CartPole-v1 --sizes 16x5 256x32

environment   random actions, auto-reset, nothing else
acting        and the policy
rollout       and the values: acting, then the critic on the whole batch
training      and the update
bootstrap     the share of training that values of true successors take, against taking the next
              row's value everywhere, which is wrong at truncations
compile       seconds to trace and compile the training loop, with no compilation cache
"""

import sys
import unittest.mock
from functools import partial
from time import perf_counter

import jax
import jax.numpy as jnp

from rljax import a2c, learner
from rljax.cli import benchmark
from rljax.config import Config
from rljax.utils import platform

ENVS, SIZES = ("CartPole-v1", "Breakout-MinAtar"), ("16x5", "64x16", "256x32", "2048x16")
SEED = 0
SPEEDS = dict.fromkeys(("environment", "acting", "rollout", "training"), ",.0f")
COLUMNS = {"env": "", "size": "", **SPEEDS, "bootstrap": ".1%", "compile": ".1f"}


def measure(how, where):
    with platform.computing_on(where.device) as device:
        jax.config.update("jax_enable_compilation_cache", False)
        rows = benchmark.table(COLUMNS, how.rows(Config(), partial(speeds, how)))
        return device, {"seed": SEED, "steps_per_second": rows}


def speeds(how, config):
    state = jax.jit(a2c.init)(config, jax.random.key(SEED))
    steps = {
        "environment": benchmark.stepping(config, state),
        "acting": benchmark.acting(config, state),
        "rollout": benchmark.acting(config, state, with_values=True),
    }
    begun = perf_counter()
    steps["training"] = benchmark.repeated(a2c.update, config, state)
    seconds = perf_counter() - begun
    with unittest.mock.patch.object(learner, "successor_values", next_row):
        steps["next row"] = benchmark.repeated(a2c.update, config, state)
    found = benchmark.speeds(steps, how.repeats, how.seconds)
    yield {**found, "bootstrap": 1 - found["training"] / found["next row"], "compile": seconds}


def next_row(value, values, final, truncated):
    """Values of the next row, and of the true successors in the last row alone."""
    last = jax.tree.map(lambda x: x[-1], final)
    return jnp.concatenate([values[1:], value(*last)[None]])


if __name__ == "__main__":
    how = benchmark.Speeds(ENVS, SIZES, repeats=5, seconds=1.0)
    sys.exit(benchmark.main(__doc__, measure, how, benchmark.Device()))
