"""How fast sweeps are.

python experiments/benchmark.py sweep
python experiments/benchmark.py sweep --no-batches --rounds 1

One after another: a population of learning rates and seeds as `sweep.chunks` trains it, in turn
with `jax.jit(a2c.train)` on each agent by itself, both with what they need compiled before; and one
large run, whose steps per second are compared with those of the whole population.

Files: the share of a sweep's time that its table and its display take, of the whole script.

Batches: steps per second of a population by the number of agents at once, which shows what
`sweep.population.CPU_ENVS` should be.
"""

import contextlib
import dataclasses
import io
import os
import statistics
import tempfile
import unittest.mock
from pathlib import Path
from time import perf_counter
from typing import Literal

import benchmark
import flags

SHAPES = ("CartPole-v1,4x5", "CartPole-v1,16x5", "CartPole-v1,64x16", "Breakout-MinAtar,16x8")


@dataclasses.dataclass(frozen=True)
class Options:
    rates: int = 32
    """Learning rates of the population."""
    seeds: int = 8
    """Seeds of each."""
    timesteps: int = 100_000
    """Environment steps of each agent, on CartPole 16x5."""
    rounds: int = 3
    """Times that the population and the single agents are trained, in turn."""
    batches: bool = True
    """Also measure by the number of agents at once."""
    shapes: tuple[str, ...] = SHAPES
    """For that: environment, and environments x steps of a rollout."""
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Agents at once, on each device."""
    seconds: float = 5.0
    """Length of each of those, about."""
    device: Literal[flags.DEVICES] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    json: Path | None = None
    """Also write the figures to this file."""


def main(argv: list[str]) -> int:
    try:
        options = flags.parse_options(Options, __doc__, argv)
        cores = len(os.sched_getaffinity(0))
        device = flags.set_device(options.device, cpu_devices=cores)
        figures = {"cores": cores, **in_turn(options)}
        figures["files"] = files(options)
        if options.batches:
            shapes = [shape.split(",") for shape in options.shapes]
            figures["batches"] = [by_batch(env, size, options) for env, size in shapes]
    except (ValueError, TypeError) as error:
        return flags.fail(error)
    if options.json:
        benchmark.write_json(options.json, device, figures)
    return 0


def in_turn(options) -> dict:
    """A population, its agents one after another, and one large run."""
    import jax

    from rljax import a2c, sweep
    from rljax.config import Config

    base = Config(total_timesteps=options.timesteps)
    axes = {"learning_rate": sweep.log(1e-4, 1e-2, options.rates)}
    groups = sweep.plan(base, sweep.grid(axes), range(options.seeds))
    agents = groups[0].agents
    total = len(agents) * base.num_updates * base.batch_size
    train = jax.jit(a2c.train)

    def by_itself(config, seed):
        jax.block_until_ready(train(config, jax.random.key(seed)))

    with contextlib.closing(started(groups)) as chunks:
        next(chunks)  # compiles
    large = Config(num_envs=2048, num_steps=16, total_timesteps=2048 * 16 * 150)
    by_itself(agents[0].config, 0)
    by_itself(large, 0)
    print(f"{len(agents)} agents of {options.timesteps:,} steps, CartPole-v1 16x5")
    print(f"{'population':>12}{'in turn':>12}{'ratio':>8}{'2048x16':>12}{'ratio':>8}   steps/s")
    rounds = []
    for _ in range(options.rounds):
        population = total / at_once(groups)
        begun = perf_counter()
        for agent in agents:
            by_itself(agent.config, agent.seed)
        alone = total / (perf_counter() - begun)
        begun = perf_counter()
        by_itself(large, 1)
        one = large.total_timesteps / (perf_counter() - begun)
        rounds.append({"population": population, "in_turn": alone, "large": one})
        print(
            f"{population:12,.0f}{alone:12,.0f}{population / alone:8.2f}"
            f"{one:12,.0f}{population / one:8.2f}"
        )
    return {"agents": len(agents), "timesteps": options.timesteps, "rounds": rounds}


def started(groups, parallel=None):
    """`sweep.chunks`, without evaluations."""
    from rljax import sweep

    return sweep.chunks(groups, sweep.Execution(parallel, eval_episodes=0))


def at_once(groups):
    """Seconds that all of it takes."""
    begun = perf_counter()
    for _ in started(groups):
        pass
    return perf_counter() - begun


def files(options) -> dict:
    """The share of a sweep that goes to its files and its display: the script, with the figures
    at its end counted apart."""
    import sweep as script

    spent = {"take": 0.0, "follow": 0.0, "finish": 0.0}

    def timed(name, function):
        def run(*arguments):
            begun = perf_counter()
            result = function(*arguments)
            spent[name] += perf_counter() - begun
            return result

        return run

    patched = [
        unittest.mock.patch.object(owner, name, timed(name, getattr(owner, name)))
        for owner, name in (
            *((script.Follower, name) for name in ("take", "follow")),
            (script, "finish"),
        )
    ]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for patch in patched:
            stack.enter_context(patch)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        axis = f"--axis learning_rate=log:1e-4:1e-2:{options.rates}"
        size = f"--num-seeds {options.seeds} --total-timesteps {options.timesteps}"
        run_dir = f"--run-dir {folder}/sweep --device {options.device}"
        command = f"--env CartPole-v1 --preset none {axis} {size} {run_dir}"
        if script.main(command.split()):
            raise ValueError("the sweep failed")
    share = spent["take"] / spent["follow"]
    print(f"table and display: {share:.2%} of {spent['follow']:.1f} s;", end=" ")
    print(f"ranking and figures at the end: {spent['finish']:.1f} s")
    return {"share": share, "seconds": spent["follow"], "finish_seconds": spent["finish"]}


def by_batch(env, size, options) -> dict:
    """Steps per second by the number of agents at once."""
    import jax

    from rljax import sweep

    devices = jax.local_device_count()
    config = benchmark.config_for(env, *benchmark.parse_size(size))
    speeds = {}
    for each in options.sizes:
        (group,) = sweep.plan(config, [{"gamma": 0.99}], range(each * devices))
        with contextlib.closing(started([group], each * devices)) as chunks:
            next(chunks)
            found, begun = [], perf_counter()
            while perf_counter() < begun + options.seconds:
                step = next(chunks)
                found.append(step.env_steps / step.seconds)
        speeds[each * devices] = statistics.median(found[1:] or found)
    best = max(speeds.values())
    text = "  ".join(f"{agents}: {speed / best:.0%}" for agents, speed in speeds.items())
    print(f"{env} {size}: {text} of {best:,.0f} steps/s")
    return {"env": env, "size": size, "steps_per_second": speeds}
