"""What processes send each other: plain NumPy, of a layout that both ends know.

A worker's message is one record of a NumPy structured type, and parameters are one vector: no
message is pickled, so that a damaged one can be told by its size and executes nothing. What
carries them is `transport`'s.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import learner, rollout
from rljax.config import Config
from rljax.host import HostEnv
from rljax.types import ActorState, EpisodeStats, Figures, Increments, LearnerState

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
    env, network = rollout.make_agent(config)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def shapes(key):
        state = learner.init(config, network, env.spec, key)
        return published(state), plain(init_actor(config, env, key))

    vectors, actor = jax.eval_shape(shapes, key)
    record = np.dtype(
        [
            ("worker", np.int64),
            ("version", np.int64),
            ("gradient", np.float32, (size(vectors.params),)),
            ("figures", np.float32, (len(Figures._fields),)),
            ("increments", _fields(Increments(*vectors[1:]))),
            ("seconds", np.float32, (len(PHASES),)),
            ("actor", _fields(actor)),
        ],
        align=True,
    )
    return Layout(vectors, actor, record)


def init_actor(config: Config, env: Any, key: jax.Array) -> ActorState:
    """Fresh episodes of one worker. Of environments that Python steps the key is all that there is:
    they begin when the worker does."""
    if not isinstance(env, HostEnv):
        return rollout.init(env, config.num_envs, key)
    return ActorState((), (), key, EpisodeStats((), (), ()))


def published(state: LearnerState) -> Published:
    """What is published of a learner."""
    return Published(state.params, state.obs_moments, state.return_moments)


def learner_of(vector: jax.Array, shapes: Published) -> LearnerState:
    """The learner that was published as a vector; only good for `learner.contribute`."""
    parts = unravel(vector, shapes)
    return LearnerState(parts.params, (), 0, parts.obs_moments, parts.return_moments)


def settings(config: Config) -> tuple[np.ndarray, Callable[[jax.Array], Config]]:
    """(a vector of the config's floats, what makes the config of it again, also in jitted code).

    Taking a config apart and handing over ten arguments takes as long as the holder's arithmetic.
    """
    floats, kind = jax.tree.flatten(config)
    return np.array(floats, np.float32), lambda vector: kind.unflatten(list(vector))


def size(shapes: Any) -> int:
    """Numbers in a pytree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def ravel(tree: Any) -> jax.Array:
    """All leaves as one float32 vector."""
    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves).astype(jnp.float32)


def unravel(vector: Any, shapes: Any) -> Any:
    """The pytree that `ravel` made a vector of, JAX or NumPy."""
    leaves, start = [], 0
    for leaf in jax.tree.leaves(shapes):
        stop = start + math.prod(leaf.shape)
        leaves.append(vector[start:stop].reshape(leaf.shape))
        start = stop
    return jax.tree.structure(shapes).unflatten(leaves)


def plain(tree: Any) -> Any:
    """Random keys as their raw data, which NumPy can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def typed(tree: Any, like: Any) -> Any:
    """Raw data as random keys again, where `like` has them."""
    return jax.tree.map(
        lambda x, kind: jax.random.wrap_key_data(x) if _is_key(kind) else x, tree, like
    )


def write(record: np.void, tree: Any) -> None:
    """Puts the leaves of a pytree into a record of `_fields`."""
    for name, leaf in zip(record.dtype.names or (), jax.tree.leaves(tree)):
        record[name] = np.asarray(leaf)


def read(record: np.void, shapes: Any) -> Any:
    """The pytree that was put into a record; copied."""
    names = record.dtype.names or ()
    return jax.tree.structure(shapes).unflatten([np.array(record[name]) for name in names])


def _fields(tree):
    leaves = enumerate(jax.tree.leaves(tree))
    return np.dtype([(str(i), leaf.dtype, leaf.shape) for i, leaf in leaves], align=True)


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
