"""The critical staleness, how it falls with the learning rate, and what staleness is for."""

import numpy as np

from rljax import analysis
from rljax.cli import claims

ENVS = {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "Catch-bsuite": 50_000}  # steps of each
GOOD = 0.95  # the score below which staleness is critical
HOLDER = 50  # gradients applied in the time in which a worker makes one


def critical(ages, scores):
    """[R] where scores [A, R, S] of ages [A] fall below `GOOD` for good; at most the last age."""
    found, places = analysis.iqm(scores), np.log1p(ages)
    return np.expm1([claims.crossing(places, of_rate, GOOD) for of_rate in found.T])


def slope(ages, rates, scores):
    """Of the logarithm of the critical staleness, at least 0.5, by that of the rate."""
    if len(rates) < 2:
        return np.nan
    return np.polyfit(np.log(rates), np.log(np.maximum(critical(ages, scores), 0.5)), 1)[0]


def speed_up(ages):
    """[A] gradients that a machine applies in the time of one worker's: those of S + 1 workers, who
    make staleness S, or all that its holder can."""
    return np.minimum(1 + np.asarray(ages), HOLDER)
