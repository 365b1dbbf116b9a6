"""How fast A2C is in environments written in JAX: environment steps per second of one seed.

python experiments/benchmarks/a2c.py
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
from time import perf_counter

import jax
import jax.numpy as jnp

from rljax import a2c, learner
from rljax.cli import benchmark
from rljax.config import Config
from rljax.utils import platform

ENVS = ("CartPole-v1", "Breakout-MinAtar")
SIZES = ("16x5", "64x16", "256x32", "2048x16")
SEED = 0
SPEEDS = dict.fromkeys(("environment", "acting", "rollout", "training"), ",.0f")
COLUMNS = {"env": "", "size": "", **SPEEDS, "bootstrap": ".1%", "compile": ".1f"}


def measure(how, where):
    with platform.computing_on(where.device) as device:
        jax.config.update("jax_enable_compilation_cache", False)
        configs = how.configs(Config())
        rows = benchmark.table(COLUMNS, (speeds(config, how) for config in configs))
        return device, {"seed": SEED, "steps_per_second": rows}


def speeds(config, how):
    state = jax.jit(a2c.init)(config, jax.random.key(SEED))
    programs = {
        "environment": benchmark.environment_program(config, state),
        "acting": benchmark.rollout_program(config, state),
        "rollout": benchmark.rollout_program(config, state, with_values=True),
    }
    begun = perf_counter()
    programs["training"] = benchmark.training_program(config, state)
    compile_seconds = perf_counter() - begun
    with unittest.mock.patch.object(learner, "successor_values", next_row):
        programs["next row"] = benchmark.training_program(config, state)
    found = benchmark.in_turn(programs, config.batch_size, how)
    bootstrap = 1 - found["training"] / found["next row"]
    return {**benchmark.labels(config), **found, "bootstrap": bootstrap, "compile": compile_seconds}


def next_row(value, values, final_obs, truncated):
    """Values of the next row, and of the true successors in the last row alone."""
    return jnp.concatenate([values[1:], value(final_obs[-1])[None]])


if __name__ == "__main__":
    how = benchmark.Speeds(ENVS, SIZES, repeats=5, seconds=1.0)
    sys.exit(benchmark.main(__doc__, measure, how, benchmark.Device()))
