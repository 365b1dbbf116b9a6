"""How fast sweeps are: environment steps per second of all trials.

python experiments/benchmarks/sweep.py --shapes --rounds 1

population  learning rates and seeds, as `sweep.chunks` trains them
in turn     the same trials one after another, by `jax.jit(a2c.train)`
2048x16     one large run

All are compiled before. Then the share of a sweep's time that its table and its display take; and
speed by the number of trials at once, which shows what `seeds.CPU_ENVS` should be.
"""

import contextlib
import dataclasses
import io
import itertools
import sys
import tempfile
from time import perf_counter

import jax

from rljax import a2c, sweep
from rljax.cli import benchmark
from rljax.config import Config
from rljax.sweep import directory, report
from rljax.utils import platform

SHAPES = ("CartPole-v1,4x5", "CartPole-v1,16x5", "CartPole-v1,64x16", "Breakout-MinAtar,16x8")
LARGE = Config(num_envs=2048, num_steps=16, total_timesteps=2048 * 16 * 150)
COLUMNS = {"steps/s": "", "population": ",.0f", "in turn": ",.0f", "ratio": ".2f"}
COLUMNS |= {"2048x16": ",.0f", "its ratio": ".2f"}


@dataclasses.dataclass(frozen=True)
class Options:
    rates: int = 32  # Learning rates of the population.
    seeds: int = 8  # Seeds of each.
    timesteps: int = 100_000  # Environment steps of each trial, on CartPole 16x5.
    rounds: int = 3  # Times that all are trained, in turn.
    shapes: tuple[str, ...] = SHAPES
    """Environment, and environments x steps of a rollout, for the speed by number of trials."""
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)  # Trials at once, on each device.
    seconds: float = 5.0  # Length of each of those, about.


def measure(options, where):
    axes = {"learning_rate": sweep.log(1e-4, 1e-2, options.rates)}
    base, seeds = Config(total_timesteps=options.timesteps), list(range(options.seeds))
    with platform.computing_on(where.device, platform.cpu_devices()) as device:
        (group,) = sweep.plan(base, sweep.grid(axes), seeds)
        rounds = benchmark.table(COLUMNS, in_turn(group, options.rounds))
        shares = files(base, axes, seeds, where.device)
        by_number = [by_trials(*shape.split(","), options) for shape in options.shapes]
    return device, {"seeds": seeds, "in_turn": rounds, "files": shares, "by_trials": by_number}


def in_turn(group, rounds):
    train, trials = jax.jit(a2c.train), [(trial.config, trial.seed) for trial in group.trials]

    def each(runs):
        for config, seed in runs:
            jax.block_until_ready(train(config, jax.random.key(seed)))
            yield config.num_updates * config.batch_size

    sum(population(group))  # compiles
    sum(each([trials[0], (LARGE, 0)]))
    for number in range(rounds):
        speed, alone = steps_per_second(population(group)), steps_per_second(each(trials))
        large = steps_per_second(each([(LARGE, 1)]))
        found = (f"round {number}", speed, alone, speed / alone, large, speed / large)
        yield dict(zip(COLUMNS, found))


def population(group, parallel=None):
    options = sweep.SweepOptions(max_parallel=parallel, eval_episodes=0)
    for step in sweep.chunks([group], options):
        yield step.env_steps


def steps_per_second(counts):
    begun = perf_counter()
    return sum(counts) / (perf_counter() - begun)


def files(base, axes, seeds, device):
    """A sweep that is written and displayed, with the time that this takes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        benchmark.timed(directory.Follower, "take") as takes,
        benchmark.timed(directory.Follower, "follow") as whole,
        benchmark.timed(report, "finish") as ends,
    ):
        sweep.run(base, axes, seeds, run_dir=f"{folder}/sweep", device=device, quiet=False)
    share, seconds, end = sum(takes) / sum(whole), sum(whole), sum(ends)
    print(f"table and display: {share:.2%} of {seconds:.1f} s;", end=" ")
    print(f"ranking and figures at the end: {end:.1f} s")
    return {"share": share, "seconds": seconds, "finish_seconds": end}


def by_trials(env, size, options):
    config, speeds = benchmark.config_for(Config(), env, size), {}
    for trials in (each * jax.local_device_count() for each in options.sizes):
        (group,) = sweep.plan(config, [{"gamma": 0.99}], range(trials))
        with contextlib.closing(population(group, trials)) as steps:
            speeds[trials] = benchmark.speed(itertools.accumulate(steps), options.seconds)
    best = max(speeds.values())
    text = "  ".join(f"{trials}: {speed / best:.0%}" for trials, speed in speeds.items())
    print(f"{env} {size}: {text} of {best:,.0f} steps/s", flush=True)
    return {"env": env, "size": size, "steps_per_second": speeds}


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, Options(), benchmark.Device()))
