"""How fast A3C is simulated, and how like real worker processes it is.

python experiments/benchmarks/simulation.py
python experiments/benchmarks/simulation.py --what likeness --envs CartPole-v1 --num-workers 1 2

speed       gradients/s of a population, beside A2C's updates/s of the same shape, without delay
likeness    staleness and learning curves of real runs with --log-timing, beside simulations with
            the durations that these measured: the total variation distance of the two histograms,
            and at how many of 20 points of the curves the 95% intervals overlap
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

import rljax
from rljax import analysis, presets
from rljax.a3c.counts import STALENESS_BINS
from rljax.a3c.simulation import SimulationConfig
from rljax.a3c.timing import DURATIONS
from rljax.cli import benchmark
from rljax.sweep import SweepOptions, plan, population
from rljax.utils import platform

SHAPES = {
    "4 workers": dict(num_workers=4),
    "16 workers": dict(num_workers=16),
    "staleness 8": dict(staleness="constant:8"),
    "diagnostics": dict(num_workers=4, diagnostics=True),
}
POINTS = 20  # of learning curves


@dataclasses.dataclass(frozen=True)
class Options:
    what: Literal["speed", "likeness"] = "speed"
    envs: tuple[str, ...] = ("CartPole-v1", "Acrobot-v1")
    num_workers: tuple[int, ...] = (1, 2, 4)
    num_steps: int = 20  # Of a gradient, in the comparison with real runs.
    gradients: int = 15_000  # Of each of these runs.
    seeds: int = 5  # Real runs; there are twice as many simulated ones.
    agents: int = 64  # Trained at once, for the speed.
    updates: int = 8_000  # Of each of them.
    rounds: int = 3  # Of measuring the speed, in turn.


def measure(options, where):
    if options.what == "likeness":  # as A3C's holder computes: on one device
        columns = {"likeness": "", "real": ".2f", "simulated": ".2f", "distance": ".3f"}
        return "cpu", benchmark.table(columns | {"overlap": ".2f"}, _likeness(options))
    with platform.computing_on(where.device, platform.cpu_devices()) as device:
        columns = {"speed": "", "gradients/s": ",.0f", "ratio": ".2f"}
        return device, benchmark.table(columns, _speeds(options), 16)


def _speeds(options):
    base = presets.preset("a3c", options.envs[0])
    base = dataclasses.replace(base, total_timesteps=options.updates * base.num_steps)
    cases = {"A2C": ("a2c", ())}
    for name, own in SHAPES.items():
        cases[name] = "a3c_simulated", (SimulationConfig(**{"diagnostics": False, **own}),)
    found = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, (algorithm, own) in cases.items():
            (group,) = plan(base, [{}], range(options.agents), algorithm, own)
            steps = [*population.train(group.trials, SweepOptions(algorithm, eval_episodes=0))]
            done = sum(step.env_steps for step in steps) / base.num_steps
            found[name].append(done / sum(step.seconds for step in steps))
    for name, each in found.items():
        ratios = np.array(each) / found["A2C"]
        yield {"speed": name, "gradients/s": np.median(each), "ratio": np.median(ratios)}


def _likeness(options):
    for env in options.envs:
        for number in options.num_workers:
            yield {"likeness": f"{env} {number}", **_compare(env, number, options)}


def _compare(env, number, options):
    """Each real run is beside two simulated ones, with the durations of that run."""
    own = dict(num_steps=options.num_steps, num_workers=number, eval_episodes=0, quiet=True)
    own |= dict(total_timesteps=options.gradients * options.num_steps)
    own |= dict(log_interval=options.gradients // 100)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            path = Path(folder) / f"{seed}"
            logged = dict(seed=seed, num_seeds=1, run_dir=path, log_timing=True)
            real = rljax.train("a3c", env, **logged, **own)
            durations = dict.fromkeys(DURATIONS, f"measured:{path}")
            how = dict(own, seed=2 * seed, num_seeds=2, diagnostics=False, **durations)
            pairs.append((real, rljax.train("a3c_simulated", env, **how)))
    # Of real runs from where all workers had started: what the durations are of.
    logged = [np.array(real.summary["timing"]["staleness"]) for real, _ in pairs]
    found = [simulated.summary["staleness"] for _, simulated in pairs]
    last = STALENESS_BINS - 1  # counts all older ones
    apart = [
        [_shares(np.bincount(np.minimum(x, last))), _shares(y["histogram"])]
        for x, y in zip(logged, found)
    ]
    of_runs = (pd.concat([run.metrics for run in runs]) for runs in zip(*pairs))
    (low, high), (low_too, high_too) = map(_curve, of_runs)
    return {
        "real": np.mean([x.mean() for x in logged]),
        "simulated": np.mean([simulated["mean"] for simulated in found]),
        "distance": np.mean([0.5 * np.abs(real - simulated).sum() for real, simulated in apart]),
        "overlap": np.mean((low <= high_too) & (low_too <= high)),
        "curves": np.stack([low, high, low_too, high_too]).tolist(),
    }


def _shares(histogram):
    found = np.zeros(STALENESS_BINS)
    found[: len(histogram)] = histogram
    return found / found.sum()


def _curve(metrics):
    """The 95% intervals (lower [POINTS], upper [POINTS]) of mean returns in parts of the run."""
    _, returns = analysis.learning_curve(metrics)
    parts = np.array_split(returns, POINTS, axis=1)
    return analysis.interval(np.stack([part.mean(axis=1) for part in parts], axis=1))


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, Options(), benchmark.Device()))
