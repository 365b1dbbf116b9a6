"""What has become of the gradients of a run: counts, and rows of metrics."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax import optimizers
from rljax.config import Config, at_row_end
from rljax.types import BatchMetrics, Metrics
from rljax.utils import pytrees

STALENESS_BINS = 256  # of the histogram; the last one counts all older gradients
DIVERGED = 20  # a row of at least this number of gradients, none of them finite, ends a run


class Counts(NamedTuple):
    """The gradients of a run so far, in NumPy; int64."""

    applied: Any  # also the version of the parameters
    stale: Any  # rejected for `max_staleness`
    not_finite: Any  # rejected for a NaN or an infinity
    malformed: Any  # messages that are no gradient; their environment steps are not known
    restarts: Any  # of workers
    staleness_sum: Any  # of the applied ones, as below
    staleness_max: Any
    staleness: Any  # [STALENESS_BINS] histogram


class Row(NamedTuple):
    """Sums since the last row of metrics, in NumPy."""

    gradients: Any  # applied or not
    applied: Any
    metrics: Any  # float64, `types.BatchMetrics` as a vector, of the finite gradients
    finite: Any  # number of finite gradients
    staleness: Any  # sum over the applied ones
    staleness_max: Any


def row_metrics(
    config: Config, updates: int, row: Row, shapes: BatchMetrics, log_interval: int
) -> Metrics:
    """Metrics of a row of `log_interval` gradients, from its sums after `updates` gradients of the
    run; `shapes` are those of the vector of metrics."""
    sums: BatchMetrics = pytrees.unravel(row.metrics, shapes)
    rate = optimizers.learning_rate(config, updates - (row.gradients + 1) / 2)  # the mean: linear
    # Single gradients that are not finite are rejected, and workers pull finite parameters; where a
    # whole row has no other, these parameters give no other.
    has_diverged = row.gradients >= DIVERGED and row.finite == 0
    has_ended = at_row_end(config, updates, log_interval)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN that says none
        return Metrics(
            updates=np.int32(updates),
            episodes=sums.episodes,
            episodic_return=sums.episodic_return / sums.episodes,
            episodic_length=sums.episodic_length / sums.episodes,
            losses={name: x / row.finite for name, x in sums.losses.items()},
            grad_norm=sums.grad_norm / row.finite,
            learning_rate=float(rate) if row.gradients else np.nan,
            diverged_at=np.int32(updates if has_diverged and has_ended else 0),
            extra=dict(staleness_mean=row.staleness / row.applied, staleness_max=row.staleness_max),
            info=None if sums.info is None else sums.info / sums.episodes,
        )


def counted(counts: Counts, staleness: Any, is_finite: Any, is_applied: Any) -> Counts:
    """The counts of simulated A3C, in JAX, with a gradient more."""
    number = is_applied.astype(jnp.int32)
    place = jnp.minimum(staleness, STALENESS_BINS - 1)
    is_stale = jnp.logical_and(is_finite, jnp.logical_not(is_applied))
    return counts._replace(
        applied=counts.applied + number,
        stale=counts.stale + is_stale,
        not_finite=counts.not_finite + jnp.logical_not(is_finite),
        staleness_sum=counts.staleness_sum + number * staleness,
        staleness_max=jnp.maximum(counts.staleness_max, number * staleness),
        staleness=counts.staleness.at[place].add(number),
    )


def as_summary(counts: Counts) -> dict:
    """What counts [S] of a run's seeds add to its summary, of all together."""
    histogram = counts.staleness.sum(axis=0)
    applied, at_95 = histogram.sum(), np.searchsorted(histogram.cumsum(), 0.95 * histogram.sum())
    rejected = {x: int(getattr(counts, x).sum()) for x in ("stale", "not_finite", "malformed")}
    return {
        "gradients_applied": int(counts.applied.sum()),
        "gradients_rejected": sum(rejected.values()),
        "rejected": rejected,
        "worker_restarts": int(counts.restarts.sum()),
        "staleness": {
            "mean": float(counts.staleness_sum.sum() / applied) if applied else None,
            "p95": int(at_95) if applied else None,
            "max": int(counts.staleness_max.max()) if applied else None,
            "histogram": np.trim_zeros(histogram, "b").tolist(),
        },
    }


def no_counts() -> Counts:
    return as_arrays(Counts(0, 0, 0, 0, 0, 0, 0, np.zeros(STALENESS_BINS, np.int64)))


def empty_row(shapes: BatchMetrics) -> Row:
    return as_arrays(Row(0, 0, np.zeros(pytrees.size(shapes)), 0, 0, 0))


def as_arrays(sums: Any) -> Any:
    """Counts or a row as arrays, for a state."""
    return type(sums)(*(np.array(x) for x in sums))


def as_numbers(sums):
    """`as_arrays` with Python's numbers, which are faster to add to."""
    return type(sums)(*(np.array(x) if x.ndim else x.item() for x in sums))
