"""How fast A2C is in environments that Python steps: environment steps per second of one seed.

python experiments/benchmarks/host.py
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
from statistics import median
from time import perf_counter
from typing import Literal

import jax
import numpy as np

from rljax import a2c, rollout
from rljax.cli import benchmark
from rljax.config import Config
from rljax.envs.spaces import Box, Discrete
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
        configs = itertools.product(how.configs(Config()), ways.ways)
        rows = (speeds(dataclasses.replace(x, vectorization=way), how) for x, way in configs)
        return device, {"seed": SEED, "steps_per_second": benchmark.table(COLUMNS, rows)}


def speeds(config, how):
    if a2c.in_one_program(config):
        raise ValueError(f"env = {config.env!r}: is written in JAX: use benchmarks/a2c.py")
    env, _ = rollout.make_env_and_network(config)
    begun = perf_counter()
    with env.open() as envs, contextlib.closing(training(config)) as steps_trained:
        opened = perf_counter() - begun
        envs.reset(range(config.num_envs))
        next(steps_trained)  # compiles
        steps = stepping(envs, random_actions(env.spec.action_space, config.num_envs))
        runs = [
            (benchmark.speed(steps, how.seconds), benchmark.speed(steps_trained, how.seconds))
            for _ in range(how.repeats)
        ]
    alone, trained = map(median, zip(*runs))
    found = {"environment": alone, "training": trained, "share": trained / alone, "open": opened}
    return {**benchmark.labels(config), "way": config.vectorization, **found}


def training(config):
    """Yields the environment steps so far, for ever."""
    for _, metrics in a2c.chunks(config, jax.random.key(SEED)[None]):
        yield int(metrics.updates[0]) * config.batch_size


def stepping(envs, actions):
    """Yields the environment steps so far, for ever."""
    for done in itertools.count(step=actions.shape[0] * actions.shape[1]):
        yield done
        for action in actions:
            envs.step(action)


def random_actions(space, num_envs):
    """[64, B, ...]"""
    rng, shape = np.random.default_rng(SEED), (64, num_envs, *space.shape)
    if isinstance(space, Box):
        return rng.uniform(-1, 1, shape).astype(np.float32)
    most = space.n if isinstance(space, Discrete) else np.reshape(space.nvec, space.shape)
    return rng.integers(most, size=shape, dtype=np.int32)


if __name__ == "__main__":
    how = benchmark.Speeds(ENVS, SIZES, repeats=5, seconds=2.0)
    sys.exit(benchmark.main(__doc__, measure, how, Ways(), benchmark.Device()))
