"""The parameter holder: applies the gradients that workers push."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, optimizers
from rljax.a3c import messages
from rljax.a3c.counts import STALENESS_BINS, Counts, Row, empty_row, light
from rljax.config import Config, WorkerConfig
from rljax.types import BatchMoments, TrainState
from rljax.utils import pytrees


class ParameterHolder:
    """Parameters, moments and the optimiser's state, and the one place where they change.

    Parameters and gradients are vectors here, pytrees of one leaf, for `learner.apply_gradients`.
    """

    def __init__(
        self,
        config: Config,
        workers: WorkerConfig,
        layout: messages.Layout,
        state: TrainState,
        counts: Counts,
        row: Row,
    ):
        self.config, self.workers, self.layout = config, workers, layout
        self.counts, self.row = light(counts), light(row)
        cpu = jax.devices("cpu")[0]
        vector = pytrees.host_vector(state.params)
        self.learner = jax.device_put(state._replace(params=vector), cpu)
        self._apply = _applier(config, workers, cpu)

    @property
    def version(self) -> int:
        """Gradients applied so far."""
        return self.counts.applied

    @property
    def updates(self) -> int:
        """Gradients that arrived so far, applied or rejected: the clock of the run, for each of
        them is `config.batch_size` environment steps."""
        counts = self.counts
        return counts.applied + counts.stale + counts.not_finite

    @property
    def done(self) -> bool:
        """Whether the run is at its end."""
        return self.updates >= self.config.num_updates

    def push(self, message: memoryview | bytes, worker: int) -> tuple[np.void, np.ndarray] | None:
        """Takes a worker's message: applies its gradient, or rejects it.

        Returns:
            (the record, its metrics as a vector), or None if it is malformed.
        """
        kind = self.layout.record
        record = np.frombuffer(message, kind)[0] if len(message) == kind.itemsize else None
        if record is None or record["worker"] != worker or record["version"] > self.version:
            self.counts = self.counts._replace(malformed=self.counts.malformed + 1)
            return None
        given = pytrees.unravel(record["gradients"], self.layout.gradients)
        staleness = self.version - int(record["version"])
        applied = self.apply(given.gradients, given.moments, staleness)
        self._count(given.metrics, applied, staleness)
        return record, given.metrics

    def apply(self, gradients: Any, moments: BatchMoments, staleness: int = 0) -> bool:
        """Applies a gradient, unless it is too old or not finite.

        Args:
            gradients: a pytree like the parameters, or the vector of its raveled leaves.
            moments: what the same experience adds to the running moments.
            staleness: versions applied since the one that it is of.

        Returns:
            Whether it was applied.
        """
        vector, params = pytrees.host_vector(gradients), self.learner.params
        if vector.shape != params.shape:
            raise ValueError(f"a gradient of shape {vector.shape}: must have {params.size} numbers")
        counts, allowed = self.counts, self.workers.max_staleness
        if allowed is not None and staleness > allowed:
            self.counts = counts._replace(stale=counts.stale + 1)
            self._reject()
            return False
        if not all(np.isfinite(leaf).all() for leaf in (vector, *jax.tree.leaves(moments))):
            self.counts = counts._replace(not_finite=counts.not_finite + 1)
            self._reject()
            return False
        self.learner = self._apply(self.learner, vector, moments, staleness)
        counts.staleness[min(staleness, STALENESS_BINS - 1)] += 1
        self.counts = counts._replace(
            applied=counts.applied + 1,
            staleness_sum=counts.staleness_sum + staleness,
            staleness_max=max(counts.staleness_max, staleness),
        )
        return True

    def published(self) -> np.ndarray:
        """The vector that workers get."""
        return pytrees.host_vector(messages.published(self.learner))

    def state(self) -> TrainState:
        """The learner, in NumPy; its parameters as a pytree, the optimiser's state as it is."""
        state = jax.device_get(self.learner)
        params = pytrees.unravel(state.params, self.layout.published.params)
        return state._replace(params=params)

    def _reject(self):
        """Advances the learning rate's schedule: environment steps were taken."""
        state = self.learner
        opt_state = optimizers.skip(state.opt_state)
        self.learner = state._replace(updates=state.updates + 1, opt_state=opt_state)

    def begin_row(self) -> None:
        """Empties the row of metrics."""
        self.row = light(empty_row(self.layout.metrics))

    def _count(self, metrics, applied, staleness):
        row = self.row
        finite = math.isfinite(metrics.sum())
        self.row = Row(
            gradients=row.gradients + 1,
            applied=row.applied + applied,
            metrics=row.metrics + metrics if finite else row.metrics,
            finite=row.finite + finite,
            staleness=row.staleness + applied * staleness,
            staleness_max=max(row.staleness_max, applied * staleness),
        )


def _applier(config, workers, device):
    """The jitted (state, gradient, moments, staleness) -> state."""
    floats, config_of = pytrees.settings(config)
    floats = jax.device_put(floats, device)

    @jax.jit
    def apply(floats, state, gradient, moments, *staleness):
        config = config_of(floats)
        for versions in staleness:
            rate = config.learning_rate / jnp.maximum(versions, 1)
            config = dataclasses.replace(config, learning_rate=rate)
        return learner.apply_gradients(config, state, gradient, moments)

    if workers.staleness_scaling:
        return partial(apply, floats)
    return lambda state, gradient, moments, _: apply(floats, state, gradient, moments)
