"""The critical staleness, how it falls with the learning rate, and what staleness is for."""

from functools import partial

import numpy as np

from rljax import analysis
from rljax.cli import claims

ENVS = {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "Catch-bsuite": 50_000}  # steps of each
LEVELS = (0.95, 0.8, 0.5)  # of scores, below which staleness is critical
WORKS = 0.8  # of the best return without staleness, and of seeds: less is left out
COLLAPSED = 0.5  # the score below which a run ends that collapsed
SIGNS = ("cosine", "effective_sample_size")
SERVICE = 0.02  # of the time in which a worker makes a gradient: what its holder takes to apply it


def scored(begun, returns):
    """[A, R, S] of returns by age, rate and seed: 1 is the IQM at age 0 with the same rate."""
    return (returns - begun) / (analysis.iqm(returns[0]) - begun)[:, None]


def critical(ages, scores, level):
    """[R] the staleness where the IQM of scores [A, R, S] falls below a level for good; at most the
    last of the ages [A]."""
    found, places = analysis.iqm(scores), np.log1p(ages)
    return np.expm1([claims.crossing(places, of_rate, level) for of_rate in found.T])


def slope_at(level, ages, rates, begun, returns):
    """Of log(1 + critical staleness) by the logarithm of the rate."""
    if len(rates) < 2:
        return np.nan
    found = critical(ages, scored(begun, returns), level)
    return np.polyfit(np.log(rates), np.log1p(found), 1)[0]


def speed_up(ages):
    """[A] gradients that a machine applies in the time of one worker's: those of S + 1 workers, who
    make staleness S, or all that its holder can."""
    return np.minimum(1 + np.asarray(ages), 1 / SERVICE)


def soonest(times, reach):
    """(age, rate) of the shortest time [A, R, S], and of the shortest without staleness, by half of
    the seeds, where `reach`; and how many times as soon the first is by the others, with the
    interval."""
    chosen, others = np.split(times, 2, axis=-1)
    means = np.where(reach, analysis.iqm(chosen), np.inf)
    best, alone = np.unravel_index(means.argmin(), means.shape), (0, means[0].argmin())
    return best, alone, times_as_soon(others[alone], others[best])


def times_as_soon(slow, fast):
    """The ratio of the IQMs of times of seeds [S], and the ends of its interval."""
    ratio = lambda x: analysis.iqm(x[0]) / analysis.iqm(x[1])  # noqa: E731
    return claims.resampled(ratio, np.array([slow, fast], float))


def law(table, ages, rates, seeds):
    """All that is told of one environment, from a sweep over ages [A], rates [R] and seeds."""
    rows, shape = table.groupby("trial"), (len(ages), len(rates), seeds)
    returns, begun = claims.finals(table).reshape(shape), rows["episodic_return"].first().median()
    none, scores = analysis.iqm(returns[0]), scored(begun, returns)
    works = none - begun > WORKS * (none - begun).max()
    slopes = {
        level: claims.resampled(
            partial(slope_at, level, ages, rates[works], begun), returns[:, works]
        )
        for level in LEVELS
    }
    early = rows.head(rows.size().iloc[0] // 4).groupby("trial")[list(SIGNS)].mean()
    signs = dict(zip(SIGNS, np.moveaxis(early.to_numpy().reshape(*shape, len(SIGNS)), -1, 0)))
    products = np.multiply.outer(1 + np.array(ages), rates)[..., None]
    signs["(1 + S) x rate"] = np.broadcast_to(-products, shape)
    is_bad, win = scores[1:, works] < COLLAPSED, analysis.probability_of_improvement
    signs = {name: x[1:, works] for name, x in signs.items() if 0 < is_bad.sum() < is_bad.size}
    foretold = {name: win(x[~is_bad], x[is_bad]).value for name, x in signs.items()}
    target = begun + WORKS * (none.max() - begun)
    steps = claims.steps_to(table, target).reshape(shape)
    times = steps / speed_up(ages)[:, None, None]
    reach = np.mean(steps <= table["env_steps"].max(), axis=-1) >= WORKS
    best, alone, gain = soonest(times, reach)
    gains = np.where(reach, analysis.iqm(times[alone]) / analysis.iqm(times), np.nan)
    found = dict(scores=analysis.iqm(scores), none=none, begun=begun, works=works, slopes=slopes)
    found |= dict(foretold=foretold, target=target, gains=gains, best=best, gain=gain)
    return found | dict(critical=critical(ages, scores, LEVELS[0]))
