"""Pytrees as vectors, and back.

A jitted call passes one array in a fraction of the time of dozens of small ones; so does a pipe.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import Config


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a pytree, each with its path, such as "learner/updates"."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def settings(config: Config) -> tuple[np.ndarray, Callable[[jax.Array], Config]]:
    """(a vector of the config's floats, a function from it to the config, also for jitted code).
    Passing the floats one by one takes as long as the holder's arithmetic."""
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
    """`ravel` in NumPy; a single vector is not copied."""
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]
    return leaves[0] if len(leaves) == 1 else np.concatenate(leaves)


def unravel(vector: Any, shapes: Any) -> Any:
    """The pytree of a vector from `ravel`, in JAX or NumPy."""
    leaves, kind = jax.tree.flatten(shapes)
    ends = itertools.accumulate(math.prod(leaf.shape) for leaf in leaves)
    slices = itertools.starmap(slice, itertools.pairwise((0, *ends)))
    return kind.unflatten([vector[at].reshape(leaf.shape) for at, leaf in zip(slices, leaves)])


def plain(tree: Any) -> Any:
    """Random keys as their raw data, which NumPy can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def typed(tree: Any, like: Any) -> Any:
    """The inverse of `plain`, for a pytree with random keys where `like` has them."""
    return jax.tree.map(lambda x, y: jax.random.wrap_key_data(x) if _is_key(y) else x, tree, like)


def pack(tree: Any) -> jax.Array:
    """The bits of all leaves, of at most 32 bits a number, as one uint32 vector."""

    def bits(leaf):
        leaf = jnp.ravel(leaf)
        whole = leaf if leaf.dtype == bool else leaf.view(f"uint{8 * leaf.dtype.itemsize}")
        return whole.astype(jnp.uint32)

    return jnp.concatenate([bits(leaf) for leaf in jax.tree.leaves(tree)])


def unpack(vector: Any, shapes: Any) -> Any:
    """The pytree of a vector from `pack`, in JAX or NumPy."""

    def leaf(bits, kind):
        if kind.dtype == bool:
            return bits.astype(bool)
        return bits.astype(f"uint{8 * kind.dtype.itemsize}").view(kind.dtype)

    return jax.tree.map(leaf, unravel(vector, shapes), shapes)


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
