"""How fast A2C is in environments that Python steps.

python experiments/benchmark.py host
python experiments/benchmark.py host --envs gymnasium/LunarLander-v3 --sizes 16x8

For every environment, size (environments x steps of a rollout) and way to step them, one seed:

environment   steps per second with random actions, auto-reset, nothing else
training      steps per second of `a2c.chunks`
share         of the training's time that the environments take
open          seconds until all environments are there

Each figure of steps is the median of several runs, taken in turn.
"""

import contextlib
import dataclasses
import os
import statistics
from pathlib import Path
from time import perf_counter
from typing import Literal

import benchmark
import flags
import numpy as np

WAYS = ("sync", "async")


@dataclasses.dataclass(frozen=True)
class Options:
    envs: tuple[str, ...] = ("gymnasium/CartPole-v1",)
    """Environment ids."""
    sizes: tuple[str, ...] = ("4x5", "16x5", "64x16")
    """Environments x steps of a rollout."""
    ways: tuple[Literal[WAYS], ...] = WAYS
    """One after another in this process, or each in a process of its own."""
    repeats: int = 5
    """Runs of each figure."""
    seconds: float = 2.0
    """Length of a run, about."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    json: Path | None = None
    """Also write the figures to this file."""


def main(argv: list[str]) -> int:
    try:
        options = flags.parse_options(Options, __doc__, argv)
        sizes = [benchmark.parse_size(size) for size in benchmark.split(options.sizes)]
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)  # as `a2c.py` does
        device = flags.set_device(options.device)
        configs = [
            dataclasses.replace(benchmark.config_for(env, *size), vectorization=way).validate()
            for env in benchmark.split(options.envs)
            for size in sizes
            for way in options.ways
        ]
        print(
            f"{'':28}{'size':>8}{'':>8}{'environment':>13}{'training':>10}{'share':>7}{'open':>8}"
        )
        figures = [measure(config, options) for config in configs]
    except (ValueError, TypeError) as error:
        return flags.fail(error)
    if options.json:
        cores = len(os.sched_getaffinity(0))
        benchmark.write_json(options.json, device, {"cores": cores, "figures": figures})
    return 0


def measure(config, options) -> dict:
    from rljax import rollout
    from rljax.envs.host_envs import HostEnv

    env, _ = rollout.make_env_and_network(config)
    if not isinstance(env, HostEnv):
        raise ValueError(f"env = {config.env!r}: it is written in JAX: benchmark.py without 'host'")
    begun = perf_counter()
    with env.open() as running, contextlib.closing(training(config)) as chunks:
        seconds = perf_counter() - begun
        running.reset(range(config.num_envs))
        next(chunks)  # compiles
        actions = random_actions(env.spec.action_space, config.num_envs)
        alone, together = [], []
        for _ in range(options.repeats):
            alone.append(stepping(running, actions, options.seconds))
            together.append(following(chunks, options.seconds))
    environment, both = statistics.median(alone), statistics.median(together)
    size = f"{config.num_envs}x{config.num_steps}"
    print(
        f"{config.env:28}{size:>8}{config.vectorization:>8}{environment:13,.0f}{both:10,.0f}"
        f"{both / environment:7.0%}{seconds:6.1f} s"
    )
    return {
        "env": config.env,
        "size": size,
        "vectorization": config.vectorization,
        "environment_steps_per_second": round(environment),
        "training_steps_per_second": round(both),
        "environment_share": round(both / environment, 3),
        "open_seconds": round(seconds, 2),
    }


def random_actions(space, num_envs):
    """[64, B, ...]"""
    from rljax.envs.spaces import Box, Discrete

    rng, shape = np.random.default_rng(0), (64, num_envs, *space.shape)
    if isinstance(space, Box):
        return rng.uniform(-1, 1, shape).astype(np.float32)
    most = space.n if isinstance(space, Discrete) else np.reshape(space.nvec, space.shape)
    return rng.integers(most, size=shape, dtype=np.int32)


def training(config):
    """Steps so far, for ever."""
    import jax

    from rljax import a2c

    for _, metrics in a2c.chunks(config, jax.random.key(0)[None]):
        yield int(metrics.updates[0]) * config.batch_size


def stepping(running, actions, seconds):
    begun, steps = perf_counter(), 0
    while perf_counter() < begun + seconds:
        for action in actions:
            running.step(action)
        steps += actions.shape[0] * actions.shape[1]
    return steps / (perf_counter() - begun)


def following(chunks, seconds):
    first, begun = next(chunks), perf_counter()
    while perf_counter() < begun + seconds:
        last = next(chunks)
    return (last - first) / (perf_counter() - begun)
