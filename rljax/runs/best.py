"""The policies that did best in the evaluations during training."""

from typing import NamedTuple

import jax
import numpy as np

from rljax.types import TrainState


class Best(NamedTuple):
    """The learner of each seed with the best evaluation so far, in NumPy."""

    learner: TrainState  # [S, ...] what a policy needs: parameters and moments of observations
    returns: np.ndarray  # [S] its mean return
    env_steps: np.ndarray  # [S] environment steps at that evaluation


def updated(before: Best | None, learners: TrainState, which, returns, env_steps) -> Best:
    """The best so far, after an evaluation. Among equals the first stays; NaN is never better.

    Args:
        learners: the leaves are [S, ...].
        which: [K] indices of the seeds that were evaluated; the others' returns start as NaN.
        returns, env_steps: [K] mean returns, and environment steps at the evaluation.
    """
    learners = jax.device_get(learners._replace(opt_state=(), return_moments=None))
    num_seeds = len(learners.updates)
    now = Best(learners, np.full(num_seeds, np.nan), np.zeros(num_seeds, int))
    now.returns[which], now.env_steps[which] = returns, env_steps
    if before is None:
        return now
    better = np.zeros(num_seeds, bool)
    better[which] = np.isnan(before.returns[which]) | (returns > before.returns[which])

    def choose(new, old):
        return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, now, before)
