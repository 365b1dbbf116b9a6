"""Steps per second on CartPole: measured, and by a model of the machine.

A shape is (environments, processes): of A2C the processes that the environments are spread over,
none for this one; of A3C the environments of each worker, and the workers; of DQN the environments.
A kind is "JAX", or the milliseconds by which each step of Python's CartPole is slowed.
"""

import contextlib
import dataclasses
import time

import jax
import numpy as np

from rljax import algorithms, envs
from rljax.cli import benchmark
from rljax.config import WorkerConfig
from rljax.runs.settings import start_from
from rljax.utils import platform


def settings(algorithm, kind, shape, steps):
    """(the preset of CartPole in this shape, own options or None) for a run of these steps."""
    preset = start_from(algorithm, "CartPole-v1", None)
    config = dataclasses.replace(preset.config, total_timesteps=steps)
    num_envs, processes = shape
    if kind != "JAX":
        slowed = dict(env="slowed:Slowed", env_kwargs={"milliseconds": kind})
        config = dataclasses.replace(config, **slowed)
    if algorithm == "a3c":
        config = dataclasses.replace(config, num_envs=num_envs)  # of a gradient
        return config, WorkerConfig(processes, envs_per_worker=num_envs)
    if algorithm == "a2c":  # with batches as large as the preset's
        config = dataclasses.replace(config, num_steps=config.batch_size // num_envs)
    config = dataclasses.replace(config, num_envs=num_envs)
    if algorithm == "dqn":
        return config, preset.own[0]
    if processes:
        config = dataclasses.replace(config, vectorization="async", env_processes=processes)
    return config, None


def measured(algorithm, config, own, seconds):
    """Environment steps per second of training, once all workers work."""
    own, statuses = () if own is None else (own,), []
    key = jax.random.key(0)[None]
    chunks = algorithms.module(algorithm).chunks(config, *own, key, watch=statuses.append)

    def steps():
        for _, metrics in chunks:
            if not statuses or all(x.state == "working" for x in statuses[-1].workers):
                yield int(metrics.updates[0]) * config.batch_size

    with contextlib.closing(chunks):
        return benchmark.speed(steps(), seconds)


def env_seconds(number=5_000):
    """Seconds of a step of Python's CartPole that is not slowed."""
    env = envs.make("slowed:Slowed", (("milliseconds", 0),))
    actions = np.random.default_rng(0).integers(2, size=(number, 1))
    with env.open([0]) as running:
        running.reset([0])
        begun = time.perf_counter()
        for action in actions:
            running.step(action)
        return (time.perf_counter() - begun) / number


def predicted(algorithm, config, shape, sleep, env, rest):
    """Environment steps per second, from the seconds of an environment's step, sleeping and
    computing, and the seconds of policy and update in a rollout.

    A2C waits in each step for its slowest process, which sleeps for its environments one after
    another; as many compute at once as there are cores. An A3C worker waits for its own
    environments alone, and all workers for the cores.
    """
    (num_envs, processes), num_steps, cores = shape, config.num_steps, platform.cores()
    at_once = max(processes, 1)
    if algorithm == "a2c":
        step = num_envs / at_once * sleep + num_envs / min(at_once, cores) * env
        return num_envs * num_steps / (num_steps * step + rest)
    computing = num_steps * num_envs * env + rest
    rollouts = min(at_once / (computing + num_steps * num_envs * sleep), cores / computing)
    return num_envs * num_steps * rollouts
