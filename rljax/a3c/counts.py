"""What has become of the gradients of a run: counts, and rows of metrics."""

from typing import Any, NamedTuple

import numpy as np

from rljax import optimizers
from rljax.config import Config, at_row_end
from rljax.types import BatchMetrics, Metrics
from rljax.utils import pytrees

STALENESS_BINS = 256
"""Of the histogram; the last one takes all that is older."""

DIVERGED = 20
"""A row of at least this number of gradients, none of them finite, ends a run."""


class Counts(NamedTuple):
    """What has become of the gradients of a run so far, in NumPy."""

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
    metrics: Any
    """float64, `types.BatchMetrics` as a vector, of the gradients that are finite."""
    finite: Any
    """int64, how many these are."""
    staleness: Any
    """Sum and, below, maximum, of those that were applied."""
    staleness_max: Any


def row_metrics(
    config: Config, updates: int, row: Row, shapes: BatchMetrics, log_interval: int
) -> Metrics:
    """Metrics of a row from its sums, after this number of gradients of the run.

    Args:
        shapes: of the vectors of metrics.
        log_interval: gradients in a row.
    """
    sums: BatchMetrics = pytrees.unravel(row.metrics, shapes)
    rate = optimizers.learning_rate(config, updates - (row.gradients + 1) / 2)  # the mean: linear
    has_diverged = at_row_end(config, updates, log_interval) and _has_diverged(row)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN that says none
        return Metrics(
            updates=np.int32(updates),
            episodes=sums.episodes,
            episodic_return=sums.episodic_return / sums.episodes,
            episodic_length=sums.episodic_length / sums.episodes,
            losses={name: x / row.finite for name, x in sums.losses.items()},
            grad_norm=sums.grad_norm / row.finite,
            learning_rate=float(rate) if row.gradients else np.nan,
            diverged_at=np.int32(updates if has_diverged else 0),
            extra={
                "staleness_mean": row.staleness / row.applied,
                "staleness_max": row.staleness_max,
            },
        )


def _has_diverged(row):
    """Single gradients that are not finite are rejected, and workers pull finite parameters; where
    a whole row has no other, these parameters give no other."""
    return row.gradients >= DIVERGED and row.finite == 0


def no_counts() -> Counts:
    """Of a run that has not begun."""
    return whole(Counts(0, 0, 0, 0, 0, 0, 0, np.zeros(STALENESS_BINS, np.int64)))


def empty_row(shapes: BatchMetrics) -> Row:
    """Sums of no gradients."""
    return whole(Row(0, 0, np.zeros(pytrees.size(shapes)), 0, 0, 0))


def whole(sums: Any) -> Any:
    """Counts or a row as arrays, for a state."""
    return type(sums)(*(np.array(x) for x in sums))


def light(sums):
    """The same with Python's numbers, which are faster to add to."""
    return type(sums)(*(x.copy() if x.ndim else x.item() for x in sums))
