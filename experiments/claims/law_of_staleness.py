"""How stale gradients may be depends on the learning rate alone: the critical staleness times the
rate is constant.

python experiments/claims/law_of_staleness.py

Every gradient of simulated A3C is the same number of versions old (the law: arXiv 2607.01083). A
score is 1 at the IQM without staleness at the same rate, of ten seeds, and 0 where learning began;
the critical staleness is where it falls below 0.95 for good. Cosine and effective sample size
(arXiv 2602.17616) foretell collapse as often as runs that end below 0.5 began with less of them.
Return per second, by a model of the machine: staleness S is that of S + 1 workers, who apply as
many gradients, 50 at most, in the time in which one applies one.
"""

import dataclasses
import sys
from functools import partial

import numpy as np
import staleness

from rljax import analysis, presets
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.6
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
RATES = (1.25e-3, 1.77e-3, 2.5e-3, 3.54e-3, 5e-3, 7.07e-3, 1e-2, 1.41e-2)
WORKS, COLLAPSED = 0.8, 0.5
SIGNS = ("cosine", "effective_sample_size")


def measure(lab):
    ages, rates = lab.of(AGES, (0, 4)), np.array(lab.of(RATES, RATES[4:6]))
    envs = lab.of(staleness.ENVS, {"CartPole-v1": 10_000})
    found = {env: _of_env(lab, env, steps, ages, rates) for env, steps in envs.items()}
    holds = [x["slope"][1] <= -1 <= x["slope"][2] for x in found.values()]
    answer = {0: "false", len(holds): "not refuted"}.get(sum(holds), "refuted in some environments")
    sentences = [_sentence(env, ages, rates, x) for env, x in found.items()]
    return claims.Found(answer, sentences, {"ages": ages, "rates": rates, "envs": found})


def _of_env(lab, env, steps, ages, rates):
    config = dataclasses.replace(presets.base("a3c"), env=env, total_timesteps=steps)
    axes = {"staleness": [f"constant:{age}" for age in ages], "learning_rate": rates.tolist()}
    how = dict(algorithm="a3c_simulated", own=SimulationConfig(num_workers=8))
    number = lab.seeds()
    table = lab.sweep(env, config, axes, num_seeds=number, **how)
    rows, shape = table.groupby("trial"), (len(ages), len(rates), number)
    returns = claims.finals(table).reshape(shape)
    begun, none = rows["episodic_return"].first().median(), analysis.iqm(returns[0])
    scores = (returns - begun) / (none - begun)[:, None]
    works = none - begun > WORKS * (none - begun).max()
    early = rows.head(rows.size().iloc[0] // 4).groupby("trial")[list(SIGNS)].mean()
    signs = early.to_numpy().reshape(*shape, len(SIGNS))[1:, works].reshape(-1, len(SIGNS))
    is_bad = (scores[1:, works] < COLLAPSED).ravel()
    by_sign = zip(SIGNS, signs.T) if is_bad.any() and not is_bad.all() else ()
    win = analysis.probability_of_improvement
    foretold = {name: win(x[~is_bad], x[is_bad]) for name, x in by_sign}
    slope = claims.resampled(partial(staleness.slope, ages, rates[works]), scores[:, works])
    gains = analysis.iqm((returns - begun) / (none.max() - begun))
    gains = (gains.T * staleness.speed_up(ages)).T
    found = dict(scores=analysis.iqm(scores), none=none, begun=begun, works=works, gains=gains)
    return found | dict(critical=staleness.critical(ages, scores), slope=slope, foretold=foretold)


def _sentence(env, ages, rates, x):
    pairs = zip(x["critical"][x["works"]].tolist(), rates[x["works"]])
    critical = ", ".join(f"{'at least ' * (c > 0.99 * ages[-1])}{c:.1f} at {r:g}" for c, r in pairs)
    slope = "{:.2f} [{:.2f}, {:.2f}]".format(*x["slope"])
    signs = x["foretold"].items()
    signs = [f"{name} {y.value:.2f} [{y.low:.2f}, {y.high:.2f}]" for name, y in signs]
    fit = f"slope {slope}, and -1 is a constant product"
    age, rate = np.unravel_index(x["gains"].argmax(), x["gains"].shape)
    gain = f"{x['gains'].max():.1f} times one worker's, at {ages[age]} and {rates[rate]:g}"
    told = f"critical staleness {critical}; {fit}; foretold by {' and '.join(signs)}"
    return f"{env}: {told}; most return per second {gain}."


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
        below.set(xlabel="1 + staleness", ylabel="return per second, of one worker's best")
        below.set_ylim(bottom=-5)
        above.legend(frameon=False, title="learning rate", loc="lower left")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
