"""How many steps a search takes to a setting as good as the best of random points trained to the
end, and what it finds with as many steps.

python experiments/benchmarks/search.py --repetitions 1 --envs Catch-bsuite

Each search chooses one point; what counts is the mean return of that point on ten seeds that no
search has seen. Every repetition of a search has points of its own.

random      64 random points x 4 seeds, all trained to the end: the budget that others are parts of
halving     random points, in brackets of successive halving
tpe         Optuna's TPE in batches of 16, all trained to the end; an extra
tpe halving, evolution
            brackets of 16 points that depend on what was found, with successive halving
"""

import dataclasses
import sys
import time

import numpy as np

from rljax import sweep
from rljax.cli import benchmark
from rljax.config import Config
from rljax.search.objectives import with_lowest
from rljax.utils import platform

AXES = {
    "learning_rate": sweep.log(1e-4, 1e-1),
    "ent_coef": sweep.log(1e-4, 1e-1),
    "gae_lambda": [0.8, 0.9, 0.95, 1.0],
    "num_steps": [5, 16, 32],
}
STEPS = {"CartPole-v1": 50_000, "Acrobot-v1": 200_000, "Catch-bsuite": 50_000}
COLUMNS = {"search": "", "share": ".2f", "fresh": ",.2f", "in search": ",.2f"}
COLUMNS |= {"points": ",d", "seconds": ".0f", "not training": ".1%"}
SEARCHES = {
    "random": dict(scheduler="none"),
    "halving": dict(scheduler="halving"),
    "tpe": dict(scheduler="none", sampler="tpe"),
    "tpe halving": dict(scheduler="halving", sampler="tpe"),
    "evolution": dict(scheduler="halving", sampler="evolution"),
}


@dataclasses.dataclass(frozen=True)
class Options:
    envs: tuple[str, ...] = tuple(STEPS)
    searches: tuple[str, ...] = ("random:1", "halving:0.25", "halving:0.5", "tpe:1")
    """Each with the share of the budget that it has."""
    repetitions: int = 5  # Of each search.
    points: int = 64  # Of the random search.
    seeds: int = 4  # Of each point.
    first: int = 0  # Repetition.


def measure(options, where):
    with platform.computing_on(where.device, platform.cpu_devices()) as device:
        rows = benchmark.table(COLUMNS, _rows(options), 28)
    for env in options.envs:
        _compare(env, [row for row in rows if row["env"] == env], options.searches)
    return device, rows


def _rows(options):
    for repetition in range(options.first, options.first + options.repetitions):
        for env in options.envs:
            for i, told in enumerate(options.searches):
                name, _, share = told.partition(":")
                row = _search(env, name, float(share), options, 100 * repetition + i)
                title = f"{env} {told} #{repetition}"
                yield {"search": title, "env": env, "told": told, "repetition": repetition, **row}


def _search(env, name, share, options, sampling_seed):
    base, begun = Config(env=env, total_timesteps=STEPS[env]), time.perf_counter()
    budget = round(share * options.points * options.seeds * (STEPS[env] + 512))  # whole batches
    how = dict(SEARCHES[name], sampling_seed=sampling_seed, eval_episodes=0)
    found = sweep.search(base, AXES, budget, seeds=range(options.seeds), **how)
    winner = found.summary["points_judged"]["winner"]
    return {
        "share": share,
        "fresh": winner["fresh"]["mean"],
        "in search": winner["search"]["mean"],
        "points": found.summary["points"],
        "seconds": time.perf_counter() - begun,
        "not training": found.summary["share_not_training"],
        "env_steps": found.summary["env_steps"],
        "settings": found.best,
    }


def _compare(env, rows, searches):
    """The mean over repetitions of what each found, and its difference to the first search's."""
    from scipy.special import stdtrit

    found = {told: np.array([x["fresh"] for x in rows if x["told"] == told]) for told in searches}
    first = with_lowest(found[searches[0]])
    for told, values in found.items():
        apart, text = with_lowest(values) - first, ""
        if told != searches[0] and len(apart) > 1:
            half = stdtrit(len(apart) - 1, 0.975) * apart.std(ddof=1) / np.sqrt(len(apart))
            mean = apart.mean()
            text = f"; {mean:+,.2f} to {searches[0]} ({mean - half:,.2f} ... {mean + half:,.2f})"
        each = " ".join(f"{x:,.2f}" for x in values)
        print(f"{env} {told}: mean {values.mean():,.2f} ({each}){text}")


if __name__ == "__main__":
    sys.exit(benchmark.main(__doc__, measure, Options(), benchmark.Device()))
