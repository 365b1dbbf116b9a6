"""What processes send each other: plain NumPy, of a layout that both ends know.

A worker's message is one record of a NumPy structured type, and parameters are one vector. No
message is pickled: a damaged one has another size, and executes nothing. `transport` carries them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax import learner, rollout
from rljax.config import Config
from rljax.envs.interface import EnvSpec
from rljax.networks import ActorCritic
from rljax.types import ActorState, BatchGradients, BatchMetrics, BatchMoments, Moments, TrainState
from rljax.utils import pytrees

GRADIENT, FAILED, REFUSED = range(3)
"""Kinds of messages: a record; an exception's text; why a worker cannot start."""
PHASES = ("pull", "environment", "policy", "gradient", "push", "wait")
"""Where a worker's time goes. An environment in JAX is part of one program, the "gradient"."""
LONGEST_TEXT = 100_000  # bytes


class Published(NamedTuple):
    """What a worker needs to act and learn."""

    params: Any
    obs_moments: Any
    return_moments: Any


class Layout(NamedTuple):
    """Shapes of all that is sent, as `jax.ShapeDtypeStruct`; picklable."""

    published: Published
    gradients: BatchGradients
    """Of one rollout; gradients and metrics as vectors, and so are all three fields in a record,
    where they follow each other."""
    metrics: BatchMetrics
    actor: ActorState  # of one worker, `pytrees.plain`
    record: np.dtype  # of a worker's message about one rollout


class Job(NamedTuple):
    """What a worker is given."""

    config: Config  # its `num_envs` are the worker's
    layout: Layout
    actor: ActorState  # where it starts, `pytrees.plain`
    lockstep: bool
    settings: Mapping[str, Any]  # JAX's, in the process that started the run


def layout(config: Config) -> Layout:
    """The layout for a config, whose `num_envs` are those of one worker."""
    env, network = rollout.make_env_and_network(config)

    def shapes(key):
        state = learner.init(config, network, env.spec, key)
        metrics = no_metrics(config, network, env.spec, state.params)
        actor = pytrees.plain(rollout.init(env, network, config.num_envs, key))
        return published(state), metrics, actor

    parts, metrics, actor = jax.eval_shape(lambda: shapes(jax.random.key(0)))
    vectors = (jax.ShapeDtypeStruct((pytrees.size(x),), "float32") for x in (parts.params, metrics))
    params, numbers = vectors
    gradients = BatchGradients(params, BatchMoments(*parts[1:]), numbers)
    fields = [
        ("worker", np.int64),
        ("version", np.int64),
        ("pushed", np.float64),  # when the one before was, in seconds on a clock of all processes
        ("pulled", np.float64),  # when these parameters were
        *((name, np.float32, (pytrees.size(part),)) for name, part in gradients._asdict().items()),
        ("seconds", np.float32, (len(PHASES),)),
        ("actor", np.uint32, (pytrees.size(actor),)),
    ]
    return Layout(parts, gradients, metrics, actor, np.dtype(fields, align=True))


def numbers(record: memoryview, layout: Layout) -> np.ndarray:
    """The gradients, moments and metrics in the bytes of a record, as one vector: `pytrees.ravel`
    of the `BatchGradients`."""
    size, (_, start) = sum(map(pytrees.size, layout.gradients)), layout.record.fields["gradients"]
    return np.frombuffer(record, np.float32, size, start)


def no_metrics(config: Config, network: ActorCritic, spec: EnvSpec, params: Any) -> BatchMetrics:
    """Metrics of no batch: zeros."""
    losses = learner.zero_losses(config, network, spec, params)
    zero, info = np.float32(0), rollout.no_info(config)
    return BatchMetrics(zero, zero, zero, losses, grad_norm=zero, info=info)


def published(state: TrainState) -> Published:
    """What is published: moments without their rounding errors, which only the holder needs."""
    moments = state.obs_moments, state.return_moments
    return Published(state.params, *(x and Moments(x.count, x.mean, x.var) for x in moments))


def learner_of(vector: jax.Array, shapes: Published) -> TrainState:
    """The learner that was published as a vector; only for `learner.compute_gradients`."""
    params, *moments = pytrees.unravel(vector, shapes)
    return TrainState(params, (), 0, *moments)
