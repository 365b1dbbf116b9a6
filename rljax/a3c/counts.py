"""What a run of A3C has come to: counts of its gradients, and rows of metrics."""

from typing import Any, NamedTuple

import numpy as np

from rljax import optimizers
from rljax.config import Config
from rljax.types import BatchMetrics, Metrics

STALENESS_BINS = 256
"""Of the histogram; the last one takes all that is older."""

DIVERGED = 20
"""A row of so many gradients or more, none of them finite, ends a run."""


class Counts(NamedTuple):
    """What became of the gradients of a run so far, in NumPy."""

    applied: Any
    """int64; also the version of the parameters."""
    stale: Any
    """int64, rejected for `max_staleness`."""
    not_finite: Any
    """int64, rejected for a NaN or an infinity."""
    malformed: Any
    """int64, messages that are none; of these the environment steps are not known."""
    restarts: Any
    """int64, workers started again."""
    staleness_sum: Any
    """int64, of the applied ones."""
    staleness_max: Any
    staleness: Any
    """int64 [STALENESS_BINS], of the applied ones."""


class Row(NamedTuple):
    """Sums since the last row of metrics, in NumPy."""

    gradients: Any
    """int64, applied or not."""
    applied: Any
    figures: Any
    """float64, `types.Figures` as a vector, of those that are finite."""
    finite: Any
    staleness: Any
    """Sum and, below, maximum, of those that were applied."""
    staleness_max: Any


def row_metrics(config: Config, updates: int, row: Row) -> Metrics:
    """Metrics of a row from its sums, after so many gradients of the run."""
    figures = BatchMetrics(*row.figures)
    rate = optimizers.learning_rate(config, updates - (row.gradients + 1) / 2)  # the mean: linear
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN that says none
        means = BatchMetrics(*(row.figures / row.finite))
        returns, lengths = row.figures[1:3] / figures.episodes
        mean = Metrics(
            updates=np.int32(updates),
            **means._asdict(),
            learning_rate=float(rate) if row.gradients else np.nan,
            diverged_at=np.int32(updates if _has_diverged(config, updates, row) else 0),
            staleness_mean=row.staleness / row.applied,
            staleness_max=row.staleness_max,
        )
    return mean._replace(
        episodes=figures.episodes, episodic_return=returns, episodic_length=lengths
    )


def _has_diverged(config, updates, row):
    """Single gradients that are not finite are rejected, and workers pull finite parameters; where
    a whole row has no other, these parameters give no other."""
    return config.ends_row(updates) and row.gradients >= DIVERGED and row.finite == 0


def no_counts() -> Counts:
    """Of a run that has not begun."""
    return whole(Counts(0, 0, 0, 0, 0, 0, 0, np.zeros(STALENESS_BINS, np.int64)))


def empty_row() -> Row:
    return whole(Row(0, 0, np.zeros(len(BatchMetrics._fields)), 0, 0, 0))


def whole(sums: Any) -> Any:
    """Counts or a row as arrays, for a state."""
    return type(sums)(*(np.array(x) for x in sums))


def light(sums):
    """The same with Python's numbers, which are faster to add to."""
    return type(sums)(*(x.copy() if x.ndim else x.item() for x in sums))
