"""How fast A2C is in environments that Python steps: environment steps per second of one seed.

python experiments/benchmarks/host.py --envs gymnasium/LunarLander-v3 --sizes 16x8

environment   random actions, auto-reset, nothing else
training      `a2c.chunks`
share         of the training's time that the environments take
open          seconds until all environments are open
"""

import contextlib
import dataclasses
import itertools
import sys
from functools import partial
from time import perf_counter
from typing import Literal

import jax
import numpy as np

from rljax import a2c, rollout
from rljax.cli import benchmark
from rljax.config import Config
from rljax.utils import platform

ENVS, SIZES, WAYS = ("gymnasium/CartPole-v1",), ("4x5", "16x5", "64x16"), ("sync", "async")
SEED = 0
SPEEDS = {"environment": ",.0f", "training": ",.0f"}
COLUMNS = {"env": "", "size": "", "way": "", **SPEEDS, "share": ".0%", "open": ".1f"}


@dataclasses.dataclass(frozen=True)
class Ways:
    ways: tuple[Literal[WAYS], ...] = WAYS
    """Environments one after another in this process, or each in a process of its own."""


def measure(how, ways, where):
    with platform.computing_on(where.device, in_place=True) as device:
        rows = how.rows(Config(), partial(speeds, how, ways.ways))
        return device, {"seed": SEED, "steps_per_second": benchmark.table(COLUMNS, rows)}


def speeds(how, ways, config):
    if a2c.in_one_program(config):
        raise ValueError(f"env = {config.env!r}: is written in JAX: use benchmarks/a2c.py")
    for way in ways:
        config = dataclasses.replace(config, vectorization=way)
        env, _ = rollout.make_env_and_network(config)
        begun = perf_counter()
        with env.open() as envs, contextlib.closing(training(config)) as trained:
            opened = perf_counter() - begun
            steps = {"environment": stepping(envs, env.spec, config.num_envs), "training": trained}
            for each in steps.values():
                next(each)  # resets or compiles
            found = benchmark.speeds(steps, how.repeats, how.seconds)
        share = found["training"] / found["environment"]
        yield {"way": way, **found, "share": share, "open": opened}


def training(config):
    """Yields the environment steps so far, for ever."""
    for _, metrics in a2c.chunks(config, jax.random.key(SEED)[None]):
        yield int(metrics.updates[0]) * config.batch_size


def stepping(envs, spec, num_envs):
    """Yields the environment steps so far, for ever."""
    key, shape = jax.random.key(SEED), (64, num_envs)
    actions = np.array(benchmark.random_actions(spec.action_space, key, shape))
    envs.reset(range(num_envs))
    for done in itertools.count(step=64 * num_envs):
        yield done
        for action in actions:
            envs.step(action)


if __name__ == "__main__":
    how = benchmark.Speeds(ENVS, SIZES, repeats=5, seconds=2.0)
    sys.exit(benchmark.main(__doc__, measure, how, Ways(), benchmark.Device()))
