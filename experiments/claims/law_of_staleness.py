"""How stale gradients may be depends on the learning rate alone: the critical staleness times the
rate is constant.

python experiments/claims/law_of_staleness.py

Every gradient of simulated A3C is the same number of versions old (the law: arXiv 2607.01083). A
score is 1 at the IQM without staleness at the same rate, of ten seeds, and 0 where learning began;
the critical staleness is where it falls below 0.95 for good. Cosine and effective sample size
(arXiv 2602.17616) foretell collapse as often as runs that end below 0.5 began with less of them.
"""

import dataclasses
import sys
from functools import partial

import numpy as np

from rljax import analysis, presets
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.6
ENVS = {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "Catch-bsuite": 50_000}
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
GOOD, WORKS, COLLAPSED = 0.95, 0.8, 0.5
SIGNS = ("cosine", "effective_sample_size")


def measure(lab):
    ages, rates = lab.of(AGES, (0, 4)), np.array(lab.of(RATES, RATES[2:4]))
    envs = lab.of(ENVS, {"CartPole-v1": 10_000})
    found = {env: _of_env(lab, env, steps, ages, rates) for env, steps in envs.items()}
    holds = [x["slope"][1] <= -1 <= x["slope"][2] for x in found.values()]
    answer = {0: "false", len(holds): "not refuted"}.get(sum(holds), "refuted in some environments")
    sentences = [_sentence(env, rates, ages[-1], x) for env, x in found.items()]
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
    slope = claims.resampled(partial(_slope, ages, rates[works]), scores[:, works])
    found = dict(scores=analysis.iqm(scores), none=none, begun=begun, works=works)
    return found | dict(critical=_critical(ages, scores), slope=slope, foretold=foretold)


def _critical(ages, scores):
    """[rates] the critical staleness, by scores [ages, rates, seeds]; at most the largest age."""
    found, places = analysis.iqm(scores), np.log1p(ages)
    return np.expm1([claims.crossing(places, of_rate, GOOD) for of_rate in found.T])


def _slope(ages, rates, scores):
    """Of the logarithm of the critical staleness, at least 0.5, by that of the rate."""
    critical = np.maximum(_critical(ages, scores), 0.5)
    return np.polyfit(np.log(rates), np.log(critical), 1)[0] if len(rates) > 1 else np.nan


def _sentence(env, rates, largest, x):
    pairs = zip(x["critical"][x["works"]].tolist(), rates[x["works"]])
    critical = ", ".join(f"{'at least ' * (c > 0.99 * largest)}{c:.1f} at {r:g}" for c, r in pairs)
    slope = "{:.2f} [{:.2f}, {:.2f}]".format(*x["slope"])
    signs = x["foretold"].items()
    signs = [f"{name} {y.value:.2f} [{y.low:.2f}, {y.high:.2f}]" for name, y in signs]
    fit = f"slope {slope}, and -1 is a constant product"
    return f"{env}: critical staleness {critical}; {fit}; foretold by {' and '.join(signs)}."


def draw(numbers, path):
    figure, panels = analysis.style.new_figure(12.6, 3.8, 1, len(numbers["envs"]))
    for axes, (env, x) in zip(np.atleast_1d(panels), numbers["envs"].items()):
        scores, places = np.array(x["scores"], float), 1 + np.array(numbers["ages"])
        for i, rate in enumerate(numbers["rates"]):
            if x["works"][i]:
                analysis.style.draw_line(axes, i, places * rate, scores[:, i], label=f"{rate:g}")
        analysis.style.dress(axes, env)
        axes.set(xlabel="(1 + staleness) x rate", ylabel="score (IQM)", ylim=(-0.1, 1.2))
        axes.set_xscale("log")
        axes.legend(frameon=False, title="learning rate", loc="lower left")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
