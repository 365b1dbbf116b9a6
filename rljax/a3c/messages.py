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
from rljax.types import (
    ActorState,
    Contribution,
    Figures,
    Increments,
    LearnerState,
)

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
    contribution: Contribution
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
    env, network = rollout.make_agent(config)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def shapes(key):
        state = learner.init(config, network, env.spec, key)
        return published(state), plain(rollout.init(env, config.num_envs, key))

    vectors, actor = jax.eval_shape(shapes, key)
    numbers = (size(vectors.params), len(Figures._fields))
    gradients, figures = (jax.ShapeDtypeStruct((n,), np.float32) for n in numbers)
    contribution = Contribution(gradients, Increments(*vectors[1:]), figures)
    record = np.dtype(
        [
            ("worker", np.int64),
            ("version", np.int64),
            ("contribution", np.float32, (size(contribution),)),
            ("seconds", np.float32, (len(PHASES),)),
            ("actor", np.uint32, (size(actor),)),
        ],
        align=True,
    )
    return Layout(vectors, contribution, actor, record)


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


def host_vector(tree: Any) -> np.ndarray:
    """What `ravel` gives, in NumPy; of a single vector the vector itself, without a copy."""
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]
    return leaves[0] if len(leaves) == 1 else np.concatenate(leaves)


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


def pack(tree: Any) -> jax.Array:
    """The bits of all leaves, of at most 32 each, as one uint32 vector: one array is handed over in
    a fraction of the time that a dozen take."""

    def bits(leaf):
        leaf = jnp.ravel(leaf)
        whole = leaf if leaf.dtype == bool else leaf.view(f"uint{8 * leaf.dtype.itemsize}")
        return whole.astype(jnp.uint32)

    return jnp.concatenate([bits(leaf) for leaf in jax.tree.leaves(tree)])


def unpack(vector: Any, shapes: Any) -> Any:
    """The pytree that `pack` made a vector of, JAX or NumPy."""

    def leaf(bits, kind):
        if kind.dtype == bool:
            return bits.astype(bool)
        return bits.astype(f"uint{8 * kind.dtype.itemsize}").view(kind.dtype)

    return jax.tree.map(leaf, unravel(vector, shapes), shapes)


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
