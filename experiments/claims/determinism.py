"""A2C is deterministic, A3C is not: runs of one seed end alike to the bit, or apart.

python experiments/claims/determinism.py

Each side trains several times with each seed, on CartPole, with its preset; no side is said to
learn better than another, so none is tuned; each of A2C's runs is a process of its own. Measured
over these repetitions: the largest difference of a final parameter, and of the final return (the
last tenth's mean); both are 0 where the bits are the same. A2C steps environments in JAX, and
Python's in processes; A3C works at its workers' own pace, in lockstep, and simulated. The spread of
returns within a seed, as a share of that of all runs of a side, is what the clock decides.
"""

import sys
from functools import partial

import numpy as np

from rljax import analysis
from rljax.cli import claims
from rljax.utils import pytrees

HOURS = 0.3
STEPS, REPETITIONS = 100_000, 3
PROCESSES = dict(env="gymnasium/CartPole-v1", vectorization="async", env_processes=2)
SIDES = {  # (algorithm, settings, seeds)
    "A2C": ("a2c", {}, 10),
    "A2C, envs in processes": ("a2c", PROCESSES, 5),
    "A3C, 1 worker": ("a3c", dict(num_workers=1), 3),
    "A3C, 2 workers": ("a3c", dict(num_workers=2), 3),
    "A3C in lockstep": ("a3c", dict(num_workers=2, lockstep=True), 3),
    "A3C, simulated": ("a3c_simulated", dict(num_workers=2), 10),
}
FREE = ("A3C, 1 worker", "A3C, 2 workers")  # which work at their own pace
FORMS = {"params": ".2g", "returns": ".1f"}


def measure(lab):
    numbers = {}
    for side, (algorithm, settings, num_seeds) in SIDES.items():
        runs = [
            [_run(lab, side, seed, i, algorithm, settings) for i in range(lab.of(REPETITIONS, 2))]
            for seed in range(claims.FRESH, claims.FRESH + lab.of(num_seeds, 1))
        ]
        params, returns = (np.array([[x[name] for x in each] for each in runs]) for name in FORMS)
        numbers[side] = {
            "params": claims.summary(np.ptp(params, axis=1).max(axis=-1)),
            "returns": claims.summary(np.ptp(returns, axis=1)),
            "share": float(np.sqrt(returns.var(axis=1).mean() / max(returns.var(), 1e-12))),
            "each": returns,
        }
    same = [side for side in SIDES if max(numbers[side]["params"]["seeds"]) == 0]
    is_true = {"A2C", "A2C, envs in processes"} <= {*same} and not {*FREE} & {*same}
    others = " or ".join(side for side in same if side.startswith("A3C"))
    pace = f"true where A3C's workers go at their own pace, not of {others}" if others else "true"
    told = [*map(_sentence, numbers, numbers.values())]
    return claims.Found(pace if is_true else "false", told, numbers)


def _run(lab, side, seed, i, algorithm, settings):
    how = dict(env="CartPole-v1", seed=seed, num_seeds=1, total_timesteps=lab.of(STEPS, 4_000))
    make = partial(_trained, algorithm, **how | settings)
    make = partial(claims.in_new_process, make) if algorithm == "a2c" else make
    return lab.kept(f"{side}/{seed}_{i}", make)


def _trained(algorithm, **how):
    """The final parameters and return of a run."""
    run = claims.trained(algorithm, **how)
    rows = run.metrics.dropna(subset="episodic_return")
    late = rows[rows["env_steps"] > 0.9 * rows["env_steps"].max()]
    final = np.average(late["episodic_return"], weights=late["episodes"])
    return {"params": np.array(pytrees.ravel(run.state["learner"]["params"])), "returns": final}


def _sentence(side, found):
    seeds, runs = np.shape(found["each"])
    params, returns = (claims.told(found[name], form) for name, form in FORMS.items())
    what = f"of {runs} runs of a seed (seeds: {seeds}) final parameters differ by {params}"
    share = f"{found['share']:.0%} of the standard deviation of all runs is within seeds"
    return f"{side}: {what}, returns by {returns}; {share}."


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(10, 4, 1, 2)
    for i, found in enumerate(numbers.values()):
        each = np.array(found["each"], float)
        for axes, values in zip(panels, (found["params"]["seeds"], each - each[:, :1])):
            places = np.linspace(i - 0.3, i + 0.3, np.size(values))
            axes.scatter(places, np.ravel(values), 14, color=analysis.COLORS[i])
    panels[0].set_yscale("symlog", linthresh=1e-3)
    titles = "largest difference of a parameter, each seed", "final return less the first run's"
    for axes, title in zip(panels, titles):
        analysis.style.dress(axes, title)
        axes.set_xticks(range(len(numbers)), list(numbers), rotation=25, ha="right")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
