"""What processes send each other: plain NumPy, of a layout that both ends know.

A worker's message is one record of a NumPy structured type, and parameters are one vector: no
message is pickled, so that a damaged one can be told by its size and executes nothing. What
carries them is `transport`'s.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rljax import learner, rollout
from rljax.config import Config
from rljax.types import ActorState, BatchGradients, BatchMetrics, BatchMoments, Moments, TrainState
from rljax.utils import pytrees

GRADIENT, FAILED, REFUSED = range(3)
"""Kinds of messages: a record, and a text: of an exception, or of an environment or network that
cannot be made."""

PHASES = ("pull", "environment", "policy", "gradient", "push", "wait")
"""What a worker's time goes to. Environments in JAX, policy and gradient are one program: all of it
is counted as the gradient's."""


LONGEST_TEXT = 100_000
"""Bytes of a text."""


class Published(NamedTuple):
    """What a worker needs to act and learn."""

    params: Any
    obs_moments: Any
    return_moments: Any


class Layout(NamedTuple):
    """Shapes of all that is sent; picklable."""

    published: Published
    """A pytree of `jax.ShapeDtypeStruct`."""
    contribution: BatchGradients
    """Of one rollout; gradients and figures as vectors."""
    actor: ActorState
    """Of one worker, plain."""
    record: np.dtype
    """Of a worker's message about one rollout."""


class Job(NamedTuple):
    """What a worker is given."""

    config: Config
    """Its `num_envs` are the worker's."""
    layout: Layout
    actor: ActorState
    """Plain: where it goes on."""
    lockstep: bool
    settings: Mapping[str, Any]
    """Of JAX, as in the process that started the run."""


def layout(config: Config) -> Layout:
    """The layout for a config, whose `num_envs` are those of one worker."""
    env, network = rollout.make_env_and_network(config)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def shapes(key):
        state = learner.init(config, network, env.spec, key)
        return published(state), pytrees.plain(rollout.init(env, config.num_envs, key))

    parts, actor = jax.eval_shape(shapes, key)
    numbers = (pytrees.size(parts.params), len(BatchMetrics._fields))
    gradients, figures = (jax.ShapeDtypeStruct((n,), np.float32) for n in numbers)
    contribution = BatchGradients(gradients, BatchMoments(*parts[1:]), figures)
    record = np.dtype(
        [
            ("worker", np.int64),
            ("version", np.int64),
            ("contribution", np.float32, (pytrees.size(contribution),)),
            ("seconds", np.float32, (len(PHASES),)),
            ("actor", np.uint32, (pytrees.size(actor),)),
        ],
        align=True,
    )
    return Layout(parts, contribution, actor, record)


def published(state: TrainState) -> Published:
    """What is published of a learner."""
    return Published(state.params, _plain(state.obs_moments), _plain(state.return_moments))


def _plain(moments):
    """Without what only the holder needs."""
    return moments and Moments(moments.count, moments.mean, moments.var)


def learner_of(vector: jax.Array, shapes: Published) -> TrainState:
    """The learner that was published as a vector; only good for `learner.contribute`."""
    parts = pytrees.unravel(vector, shapes)
    return TrainState(parts.params, (), 0, parts.obs_moments, parts.return_moments)
