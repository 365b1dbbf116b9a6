"""Pytrees as vectors, and back.

A jitted call passes one array in a fraction of the time of dozens of small ones; so does a pipe.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def total(tree: Any) -> jax.Array:
    """The sum of all numbers. On a GPU, of one vector: each leaf would be a launch or two; on a CPU
    XLA computes what is raveled once more for the sum."""
    whole = lambda tree: jnp.sum(ravel(tree))  # noqa: E731
    return jax.lax.platform_dependent(tree, cpu=optax.tree.sum, default=whole)


def host_vector(tree: Any) -> np.ndarray:
    """`ravel` in NumPy; a single vector is not copied."""
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]
    return leaves[0] if len(leaves) == 1 else np.concatenate(leaves)


def is_finite(x: np.ndarray) -> bool:
    """Whether all numbers of an array are finite. Whole numbers are, and so is what has a finite
    sum of squares, which takes a third of the time of looking at each number."""
    return x.dtype.kind != "f" or math.isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())


def unravel(vector: Any, shapes: Any) -> Any:
    """The pytree of a vector from `ravel`, in JAX or NumPy."""
    leaves, kind = jax.tree.flatten(shapes)
    ends = itertools.accumulate(math.prod(leaf.shape) for leaf in leaves)
    slices = itertools.starmap(slice, itertools.pairwise((0, *ends)))
    return kind.unflatten([vector[at].reshape(leaf.shape) for at, leaf in zip(slices, leaves)])


def by_kind(tree: Any) -> tuple[jax.Array, jax.Array]:
    """(the float32 leaves, the bits of the others as `pack` makes them), as two vectors. Parameters
    are float32, and are then used without a conversion."""
    floats, others = _kinds(tree)
    return jnp.concatenate([jnp.ravel(leaf) for leaf in floats]), pack(others)


def of_kinds(vectors: tuple[jax.Array, jax.Array], shapes: Any) -> Any:
    """The pytree of vectors from `by_kind`."""
    floats, others = _kinds(shapes)
    floats, others = iter(unravel(vectors[0], floats)), iter(unpack(vectors[1], others))
    return jax.tree.map(lambda x: next(floats if x.dtype == jnp.float32 else others), shapes)


def where(condition: Any, x: Any, otherwise: Any) -> Any:
    """One of two pytrees alike, in JAX, by a bool that broadcasts with their leaves."""
    return jax.tree.map(partial(jnp.where, condition), x, otherwise)


def plain(tree: Any) -> Any:
    """Random keys as their raw data, which NumPy can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def typed(tree: Any, like: Any) -> Any:
    """The inverse of `plain`, for a pytree with random keys where `like` has them."""
    return jax.tree.map(lambda x, y: jax.random.wrap_key_data(x) if is_key(y) else x, tree, like)


def without_keys(tree: Any) -> tuple[Any, tuple[int, ...]]:
    """(the pytree in NumPy, with random keys as raw data; which of its leaves these are)."""
    keys = tuple(i for i, leaf in enumerate(jax.tree.leaves(tree)) if is_key(leaf))
    return jax.device_get(plain(tree)), keys


def with_keys(tree: Any, keys: Sequence[int]) -> Any:
    """The inverse of `without_keys`."""
    leaves, kind = jax.tree.flatten(tree)
    typed = {i: jax.random.wrap_key_data(leaves[i]) for i in keys}
    return kind.unflatten([typed.get(i, leaf) for i, leaf in enumerate(leaves)])


def pack(tree: Any) -> jax.Array:
    """The bits of all leaves, of at most 32 bits a number, as one uint32 vector."""
    return jnp.concatenate([_bits(jnp.ravel(leaf)) for leaf in jax.tree.leaves(tree)])


def unpack(vector: Any, shapes: Any) -> Any:
    """The pytree of a vector from `pack`, in JAX or NumPy."""
    return jax.tree.map(
        lambda bits, kind: _from_bits(bits, kind.dtype), unravel(vector, shapes), shapes
    )


@flax.struct.dataclass
class Stacked:
    """A pytree as few arrays, by `stack_alike`."""

    arrays: list
    layout: tuple = flax.struct.field(pytree_node=False)


def stack_alike(tree: Any, axis: int = 0) -> Stacked:
    """Stacks the leaves that have the same shape along a new axis, as their bits where their types
    differ. A loop on a GPU launches a kernel for each array that it writes. Random keys, and
    numbers of more than 32 bits, stay alone."""
    leaves, structure = jax.tree.flatten(tree)
    places: dict = {}
    for index, leaf in enumerate(leaves):
        alone = is_key(leaf) or leaf.dtype.itemsize > 4
        places.setdefault((leaf.shape, index if alone else None), []).append(index)
    groups = tuple(map(tuple, places.values()))
    arrays = [_stack([leaves[index] for index in group], axis) for group in groups]
    return Stacked(arrays, (structure, groups, tuple(leaf.dtype for leaf in leaves)))


def unstack(stacked: Stacked, axis: int = 0) -> Any:
    """The pytree of `stack_alike`, stacked along what is now the arrays' `axis`, where a scan has
    put axes before it."""
    structure, groups, dtypes = stacked.layout
    leaves = [None] * len(dtypes)
    for array, group in zip(stacked.arrays, groups):
        for place, index in enumerate(group):
            leaf = array if len(group) == 1 else jax.lax.index_in_dim(array, place, axis, False)
            leaves[index] = leaf if leaf.dtype == dtypes[index] else _from_bits(leaf, dtypes[index])
    return structure.unflatten(leaves)


def _stack(leaves, axis):
    if len({leaf.dtype for leaf in leaves}) > 1:
        leaves = map(_bits, leaves)
    first, *others = leaves
    return jnp.stack([first, *others], axis) if others else first


def _kinds(tree):
    """(float32 leaves, others)."""
    leaves = jax.tree.leaves(tree)
    is_float = [leaf.dtype == jnp.float32 for leaf in leaves]
    floats = [leaf for leaf, one in zip(leaves, is_float) if one]
    return floats, [leaf for leaf, one in zip(leaves, is_float) if not one]


def _bits(leaf):
    whole = leaf if leaf.dtype == bool else leaf.view(f"uint{8 * leaf.dtype.itemsize}")
    return whole.astype(jnp.uint32)


def _from_bits(bits, dtype):
    if dtype == jnp.bool_:
        return bits.astype(bool)
    return bits.astype(f"uint{8 * dtype.itemsize}").view(dtype)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of random keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@jax.custom_batching.custom_vmap
def anywhere(wanted: jax.Array) -> jax.Array:
    """Whether any is wanted; under `vmap`, by any agent: a condition that differs between agents
    would have both branches run for all of them."""
    return jnp.any(wanted)


@anywhere.def_vmap
def _anywhere_in_batch(axis_size, is_batched, wanted):
    del axis_size, is_batched
    return anywhere(wanted), False
