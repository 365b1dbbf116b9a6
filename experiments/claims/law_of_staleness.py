"""How stale gradients may be depends on the learning rate alone: the product of the critical
staleness and the rate is constant, and beyond it learning collapses.

python experiments/claims/law_of_staleness.py

The law: staleness is harmless below a bound that falls as 1 / rate (arXiv 2607.01083). Here every
gradient of simulated A3C is the same number of versions old. A score is 1 at the IQM without
staleness at the same rate, and 0 where learning began. The critical staleness of a rate is where
the score first falls below 0.95, read off between two cells. Whether the cosine of stale and fresh
gradients, or the effective sample size (arXiv 2602.17616), foretells the collapse is asked of the
first quarter of each run: how often a run that ends below 0.5 had the lower one.
"""

import dataclasses
import sys

import numpy as np

from rljax import analysis, presets
from rljax.a3c.simulation import SimulationConfig
from rljax.cli import claims

HOURS = 0.6
ENVS = {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "Catch-bsuite": 50_000}
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
GOOD, COLLAPSED = 0.95, 0.5
SIGNS = ("cosine", "effective_sample_size")


def measure(lab):
    envs, ages = lab.of(ENVS, {"CartPole-v1": 10_000}), lab.of(AGES, (0, 4))
    rates = lab.of(RATES, RATES[2:4])
    numbers, sentences, slopes = {"ages": ages, "rates": rates, "envs": {}}, [], []
    for env, steps in envs.items():
        config = dataclasses.replace(presets.base("a3c"), env=env, total_timesteps=steps)
        axes = {"staleness": [f"constant:{age}" for age in ages], "learning_rate": rates}
        how = dict(algorithm="a3c_simulated", own=SimulationConfig(num_workers=8))
        table = lab.sweep(env, config, axes, num_seeds=lab.seeds(), **how)
        finals = claims.finals(table)
        shape = len(ages), len(rates), lab.seeds()
        returns = finals["final_return"].to_numpy().reshape(shape)
        begun = table.groupby("trial")["episodic_return"].first().median()
        none = analysis.iqm(returns[0])  # [rates]
        scores = (returns - begun) / (none - begun)[:, None]
        early = table.groupby("trial").head(int(table.groupby("trial").size().iloc[0]) // 4)
        signs = early.groupby("trial")[list(SIGNS)].mean().to_numpy().reshape(*shape, 2)
        works = none - begun > GOOD * (none - begun).max()
        critical = [_critical(ages, scores[:, i]) for i in range(len(rates))]
        slope, low, high = _slope(ages, np.array(rates)[works], scores[:, works])
        is_bad = (scores[1:] < COLLAPSED)[:, works].ravel()
        foretold = {}
        for i, name in enumerate(SIGNS):
            x = signs[1:, works, :, i].ravel()
            if is_bad.any() and not is_bad.all():
                foretold[name] = analysis.probability_of_improvement(
                    x[~is_bad], x[is_bad]
                )._asdict()
        numbers["envs"][env] = {
            "scores": analysis.iqm(scores), "none": none, "begun": begun, "works": works,
            "critical": critical, "slope": [slope, low, high], "foretold": foretold,
        }  # fmt: skip
        slopes.append((low, high))
        sentences.append(_sentence(env, rates, works, critical, (slope, low, high), foretold))
    holds = [low <= -1 <= high for low, high in slopes]
    answer = {0: "false", len(holds): "not refuted"}.get(sum(holds), "only in some environments")
    return claims.Found(answer, sentences, numbers)


def _critical(ages, scores):
    """Where the IQM of scores [ages, seeds] first falls below GOOD, between ages on a scale of
    log(1 + age); the largest age if it does not."""
    found, places = analysis.iqm(scores), np.log1p(ages)
    for i in range(1, len(ages)):
        if found[i] < GOOD:
            share = (found[i - 1] - GOOD) / max(found[i - 1] - found[i], 1e-9)
            return float(np.expm1(places[i - 1] + np.clip(share, 0, 1) * np.diff(places)[i - 1]))
    return float(ages[-1])


def _slope(ages, rates, scores):
    """(slope of the logarithm of the critical staleness by that of the rate, and its interval)."""
    generator, seeds = np.random.default_rng(0), scores.shape[-1]

    def fitted(scores):
        critical = [max(_critical(ages, scores[:, i]), 0.5) for i in range(len(rates))]
        return np.polyfit(np.log(rates), np.log(critical), 1)[0] if len(rates) > 1 else np.nan

    resampled = [fitted(scores[..., generator.integers(seeds, size=seeds)]) for _ in range(500)]
    return fitted(scores), *np.percentile(resampled, [2.5, 97.5])


def _sentence(env, rates, works, critical, slope, foretold):
    each = ", ".join(f"{c:.0f} at {r:g}" for c, r, ok in zip(critical, rates, works) if ok)
    signs = "; ".join(
        f"{name.replace('_', ' ')} foretells collapse with {x['value']:.2f}"
        f" [{x['low']:.2f}, {x['high']:.2f}]"
        for name, x in foretold.items()
    )
    fit = "{:.2f} [{:.2f}, {:.2f}]".format(*slope)
    return f"{env}: critical staleness {each}; slope {fit}, -1 is a constant product; {signs}."


def draw(numbers, path):
    envs = numbers["envs"]
    figure, panels = analysis.style.new_figure(4.2 * len(envs), 3.6, 1, len(envs))
    for axes, (env, found) in zip(np.atleast_1d(panels), envs.items()):
        scores, rates = np.array(found["scores"], float), numbers["rates"]
        for i, rate in enumerate(rates):
            if found["works"][i]:
                places = np.log2(1 + np.array(numbers["ages"], float)) + np.log2(rate / rates[0])
                analysis.style.draw_line(axes, i, places, scores[:, i], label=f"rate {rate:g}")
        axes.axhline(GOOD, color="0.6", linewidth=0.8)
        axes.set(xlabel="log2 of (1 + staleness) x rate / lowest rate", ylim=(-0.1, 1.15))
        analysis.style.dress(axes, env)
        axes.legend(frameon=False, fontsize="small")
    np.atleast_1d(panels)[0].set_ylabel("score (IQM)")
    return analysis.style.save(figure, [path])


if __name__ == "__main__":
    sys.exit(claims.main(__doc__, measure, draw, __file__))
