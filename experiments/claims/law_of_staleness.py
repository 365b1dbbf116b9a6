"""How stale gradients may be depends on the learning rate alone: the critical staleness times the
rate is constant.

python experiments/claims/law_of_staleness.py

Every gradient of simulated A3C is the same number of versions old, S (the law: arXiv 2607.01083). A
score is 1 at the IQM without staleness at the same rate, of ten seeds, and 0 where learning began;
S is critical where it falls below 0.95 for good, or other levels. Rates whose return without
staleness is below 0.8 of the best are left out. Cosine and effective sample size in the first
quarter (arXiv 2602.17616) foretell an end below 0.5, and (1 + S) x rate does: areas under ROC
curves. Time to 0.8 of the best return, where as many of the seeds reach it, on a modelled machine:
S + 1 workers apply as many gradients, 50 at most, in the time in which one applies one; half of the
seeds choose S and rate.
"""

import dataclasses
import sys

import numpy as np
import staleness

from rljax import analysis, presets
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.5
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
RATES = (1.25e-3, 1.77e-3, 2.5e-3, 3.54e-3, 5e-3, 7.07e-3, 1e-2, 1.41e-2)


def measure(lab):
    ages, rates = lab.of(AGES, (0, 4)), np.array(lab.of(RATES, RATES[4:6]))
    envs = lab.of(staleness.ENVS, {"CartPole-v1": 10_000})
    found = {env: _of_env(lab, env, steps, ages, rates) for env, steps in envs.items()}
    answer = "; ".join(f"{env}: {_verdict(x['slopes'])}" for env, x in found.items())
    sentences = [line for env, x in found.items() for line in _sentences(env, ages, rates, x)]
    return claims.Found(answer, sentences, {"ages": ages, "rates": rates, "envs": found})


def _of_env(lab, env, steps, ages, rates):
    config = dataclasses.replace(presets.base("a3c"), env=env, total_timesteps=steps)
    axes = {"staleness": [f"constant:{age}" for age in ages], "learning_rate": rates.tolist()}
    how = dict(algorithm="a3c_simulated", own=SimulationConfig(num_workers=8))
    table = lab.sweep(env, config, axes, num_seeds=lab.seeds(), **how)
    return staleness.law(table, ages, rates, lab.seeds())


def _verdict(slopes):
    levels = {True: [], False: []}
    for level, (_, low, high) in slopes.items():
        levels[not low <= -1 <= high].append(f"{level:g}")
    refuted, others = (" and ".join(found) or "no level" for found in levels.values())
    return f"refuted at {refuted}, not at {others}"


def _sentences(env, ages, rates, x):
    pairs = zip(x["critical"][x["works"]].tolist(), rates[x["works"]])
    critical = ", ".join(f"{'at least ' * (c > 0.99 * ages[-1])}{c:.1f} at {r:g}" for c, r in pairs)
    slopes = ["{:.2f} [{:.2f}, {:.2f}] at {:g}".format(*y, z) for z, y in x["slopes"].items()]
    signs = ", ".join(f"{name} {y:.2f}" for name, y in x["foretold"].items())
    (age, rate), gain = x["best"], "{:.1f} [{:.1f}, {:.1f}]".format(*x["gain"])
    yield f"{env}: critical staleness {critical}."
    law = "slope of log(1 + S) by log rate, by level, -1 for a constant product"
    yield f"{env}: {law}: {', '.join(slopes)}."
    yield f"{env}: collapse is foretold (0.5 is chance) by {signs}."
    how = f"with S = {ages[age]} at {rates[rate]:g}"
    yield f"{env}: {x['target']:.3g} is reached {gain} times as soon as by one worker, {how}."


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(12.6, 7.6, 2, len(numbers["envs"]))
    places = 1 + np.array(numbers["ages"])
    for (above, below), (env, x) in zip(np.reshape(panels, (2, -1)).T, numbers["envs"].items()):
        scores, gains = np.array(x["scores"], float), np.array(x["gains"], float)
        for i, rate in enumerate(numbers["rates"]):
            if x["works"][i]:
                analysis.style.draw_line(above, i, places * rate, scores[:, i], label=f"{rate:g}")
            analysis.style.draw_line(below, i, places, gains[:, i], label=f"{rate:g}")
        for axes in (above, below):
            analysis.style.dress(axes, env)
            axes.set_xscale("log")
        above.set(xlabel="(1 + staleness) x rate", ylabel="score (IQM)", ylim=(-0.1, 1.2))
        below.set(xlabel="1 + staleness", yscale="log")
        below.set_ylabel(f"times as soon at {x['target']:.3g} as one worker")
        above.legend(frameon=False, title="learning rate", loc="lower left")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
