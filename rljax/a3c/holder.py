"""The parameter holder: applies the gradients that workers push."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner
from rljax.a3c import corrections, messages
from rljax.a3c.counts import STALENESS_BINS, Counts, Row, as_numbers, empty_row
from rljax.a3c.messages import Layout
from rljax.config import Config, WorkerConfig
from rljax.types import ActorState, BatchMoments, TrainState
from rljax.utils import platform, pytrees

MOST_KEPT = 1024  # versions of the parameters, for a correction


class State(NamedTuple):
    """The whole state of a run, in NumPy."""

    learner: TrainState  # the optimiser's state is of the gradients' vector
    actors: ActorState  # [W, ...] of each worker at its last push, `pytrees.plain`
    counts: Counts
    row: Row
    timing: Any = ()  # `timing.Timing`, if it is logged
    squares: Any = ()  # running mean of the squared gradients' vector, for dc_asgd_a


class ParameterHolder:
    """Parameters, moments and the optimiser's state, and the one place where they change.
    Parameters and gradients are vectors here, which are pytrees of one leaf."""

    def __init__(self, config: Config, workers: WorkerConfig, layout: Layout, state: State):
        self.config, self.workers, self.layout = config, workers, layout
        self.counts, self.row = as_numbers(state.counts), as_numbers(state.row)
        cpu = platform.first_device("cpu")
        vector = pytrees.host_vector(state.learner.params)
        self.learner = jax.device_put(state.learner._replace(params=vector), cpu)
        self.squares = jax.device_put(state.squares, cpu)
        self._apply = _applier(config, workers, cpu)
        # For a correction: the newest versions, from the oldest that a worker may have.
        self._keeps = workers.delay_compensation != "none"
        self._kept = {self.version: self.learner.params}
        self._pulled = [self.version] * workers.num_workers
        self._learned = pytrees.size(layout.metrics._replace(info=None))  # of the metrics

    @property
    def version(self) -> int:
        """Gradients applied so far."""
        return self.counts.applied

    @property
    def updates(self) -> int:
        """Gradients applied or rejected so far, each of `config.batch_size` environment steps."""
        return self.counts.applied + self.counts.stale + self.counts.not_finite

    def push(self, message: memoryview | bytes, worker: int) -> tuple[np.void, np.ndarray] | None:
        """Applies or rejects a worker's gradient; (record, metrics vector), None if malformed."""
        kind = self.layout.record
        record = np.frombuffer(message, kind)[0] if len(message) == kind.itemsize else None
        if record is None or record["worker"] != worker or record["version"] > self.version:
            self.counts = self.counts._replace(malformed=self.counts.malformed + 1)
            return None
        metrics, staleness = record["metrics"], self.version - int(record["version"])
        moments = pytrees.unravel(record["moments"], self.layout.gradients.moments)
        of = self._known(worker, int(record["version"])) if self._keeps else None
        applied = self.apply(record["gradients"], moments, staleness, of)
        row, finite = self.row, math.isfinite(metrics[: self._learned].sum())
        self.row = Row(
            gradients=row.gradients + 1,
            applied=row.applied + applied,
            metrics=row.metrics + metrics if finite else row.metrics,
            finite=row.finite + finite,
            staleness=row.staleness + applied * staleness,
            staleness_max=max(row.staleness_max, applied * staleness),
        )
        return record, metrics

    def _known(self, worker, version):
        """The parameters of a version; None if it is too old. Forgets those that no worker has."""
        self._pulled[worker] = version
        oldest = max(min(self._pulled), self.version - MOST_KEPT)
        while self._kept and (old := next(iter(self._kept))) < oldest:  # in their order
            del self._kept[old]
        return self._kept.get(version)

    def apply(
        self, gradients: Any, moments: BatchMoments, staleness: int = 0, of: Any = None
    ) -> bool:
        """Applies a gradient unless it is too old or not finite; says whether it did.

        Args:
            gradients: a pytree like the parameters, or the vector of its raveled leaves.
            moments: what the same experience adds to the running moments.
            staleness: versions applied since the one that it is of.
            of: the vector of those parameters, by which it is corrected if the options say so; None
                if they are not known.
        """
        vector, params = pytrees.host_vector(gradients), self.learner.params
        if vector.shape != params.shape:
            raise ValueError(f"a gradient of shape {vector.shape}: must have {params.size} numbers")
        counts, allowed = self.counts, self.workers.max_staleness
        if allowed is not None and staleness > allowed:
            return self._reject(stale=counts.stale + 1)
        if not all(map(pytrees.is_finite, (vector, *jax.tree.leaves(moments)))):
            return self._reject(not_finite=counts.not_finite + 1)
        others = staleness, params if of is None else of, self.squares
        self.learner, self.squares = self._apply(self.learner, vector, moments, *others)
        counts.staleness[min(staleness, STALENESS_BINS - 1)] += 1
        self.counts = counts._replace(
            applied=counts.applied + 1,
            staleness_sum=counts.staleness_sum + staleness,
            staleness_max=max(counts.staleness_max, staleness),
        )
        if self._keeps:
            self._kept[self.version] = self.learner.params
        return True

    def _reject(self, **counted):
        """Advances the learning rate's schedule: environment steps were taken."""
        self.counts = self.counts._replace(**counted)
        self.learner = learner.reject_gradients(self.learner)
        return False

    def published(self) -> np.ndarray:
        """The vector that workers get."""
        return pytrees.host_vector(messages.published(self.learner))

    def state(self) -> TrainState:
        """The learner in NumPy: its parameters as a pytree, the optimiser's state of the vector."""
        state = jax.device_get(self.learner)
        return state._replace(params=pytrees.unravel(state.params, self.layout.published.params))

    def begin_row(self) -> None:
        self.row = as_numbers(empty_row(self.layout.metrics))


def _applier(config, workers, device):
    """(state, gradient, moments, staleness, parameters of the gradient, squares) -> (state,
    squares), jitted; what the options do not need is not passed to it."""
    floats, config_of = pytrees.settings(config)
    floats = jax.device_put(floats, device)
    correction = workers.delay_compensation

    @jax.jit
    def apply(floats, state, gradient, moments, staleness=None, of=None, squares=()):
        config = config_of(floats)
        if staleness is not None:
            config = corrections.scaled(config, 1 / jnp.maximum(staleness, 1))
        pair = state.params, of
        gradient, squares = corrections.delay_compensated(
            correction, workers, gradient, *pair, squares
        )
        return learner.apply_gradients(config, state, gradient, moments), squares

    def call(state, gradient, moments, staleness, of, squares):
        more = {"staleness": staleness} if workers.staleness_scaling else {}
        more |= {"of": of, "squares": squares} if correction != "none" else {}
        return apply(floats, state, gradient, moments, **more)

    return call
