"""Action and observation spaces, whatever an environment declares; masks of valid actions.

Actions are numbered from 0. Observations become one float32 array: an observation of a single array
keeps its shape; all others become one vector, discrete values one-hot, and the parts of a Dict or
Tuple concatenated in the order of the space. Numbers from 0 to 255, bytes or others, are divided by
255. `encoding` does it; for images and the like of few bits, where the network takes them.
"""

import math
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np


class Discrete(NamedTuple):
    """Actions 0, ..., n - 1."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def mask_shape(self) -> tuple[int, ...]:
        return (self.n,)


class MultiDiscrete(NamedTuple):
    """An array of discrete actions; the i-th (flattened) is one of 0, ..., nvec[i] - 1."""

    shape: tuple[int, ...]
    nvec: tuple[int, ...]

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """A row for each action, of max(nvec)."""
        return len(self.nvec), max(self.nvec)


class Box(NamedTuple):
    """An array of continuous actions, with bounds for each component (flattened)."""

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


ActionSpace = Discrete | MultiDiscrete | Box


def width(space: ActionSpace) -> int:
    """The outputs of a policy head for it, and the numbers of an encoded action: of a Box one for
    each component, else one for each action that a mask tells of."""
    return space.size if isinstance(space, Box) else math.prod(space.mask_shape)


class Numbers(NamedTuple):
    """An observed array."""

    shape: tuple[int, ...]
    scale: float = 1.0
    dtype: str = "float32"
    """In which rollouts keep it; another than float32 is scaled only for the network."""


class OneHot(NamedTuple):
    """Observed integers, each one-hot; the i-th is from start[i] to start[i] + n[i] - 1."""

    n: tuple[int, ...]
    start: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.n),)


class Parts(NamedTuple):
    """The observations of a Dict, which have names, or of a Tuple."""

    parts: tuple
    names: tuple[str, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(math.prod(part.shape) for part in self.parts),)


Observation = Numbers | OneHot | Parts


def action_space(space: Any) -> ActionSpace:
    """Converts a declared action space: gymnasium's, gymnax's, or any with the same attributes; a
    ValueError refuses other kinds."""
    shape = tuple(getattr(space, "shape", None) or ())
    if hasattr(space, "nvec"):
        return MultiDiscrete(shape, _integers(space.nvec))
    if hasattr(space, "n"):
        return MultiDiscrete(shape, (2,) * math.prod(shape)) if shape else Discrete(int(space.n))
    if hasattr(space, "low") and hasattr(space, "high"):
        with np.errstate(over="ignore"):  # beyond float32 there is no bound
            bounds = [np.broadcast_to(np.float32(x), shape) for x in (space.low, space.high)]
        return Box(shape, *(tuple(bound.ravel().tolist()) for bound in bounds))
    kinds = "Discrete, MultiDiscrete, MultiBinary or Box"
    raise ValueError(f"unsupported action space {space}: must be {kinds}")


def observation(space: Any) -> Observation:
    """Converts a declared observation space; a ValueError refuses other kinds."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return Parts(tuple(map(observation, parts.values())), tuple(parts))
    if isinstance(parts, tuple | list) and not isinstance(space, gymnasium.spaces.OneOf):
        return Parts(tuple(map(observation, parts)), None)
    if hasattr(space, "nvec"):
        return OneHot(_integers(space.nvec), _integers(space.start))
    if hasattr(space, "n") and tuple(space.shape) == ():
        return OneHot((int(space.n),), (int(getattr(space, "start", 0)),))
    if hasattr(space, "low") or hasattr(space, "n"):
        return Numbers(tuple(space.shape), _scale(space))
    kinds = "Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
    raise ValueError(f"unsupported observation space {space}: must be {kinds}")


def observed(space: Any, like: Any) -> Observation:
    """As `observation`, where the declared space can be wrong or None: the shapes are those of
    `like`, a pytree of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: its leaves are not arrays of real numbers.
    """
    if isinstance(like, Mapping | tuple | list):
        names = tuple(like) if isinstance(like, Mapping) else None
        declared = getattr(space, "spaces", None)
        keys = names or range(len(like))
        parts = (observed(declared[key] if declared else None, like[key]) for key in keys)
        return Parts(tuple(parts), names)
    if not hasattr(like, "shape"):
        raise ValueError(f"observations must be arrays, or dicts and tuples of them, not {like!r}")
    others = np.complexfloating, jax.dtypes.extended
    if any(jax.dtypes.issubdtype(like.dtype, kind) for kind in others):
        raise ValueError(f"observations must be real numbers, not {like.dtype}")
    if hasattr(space, "n") and like.shape == () and np.issubdtype(like.dtype, np.integer):
        return observation(space)
    return Numbers(tuple(like.shape), _scale(space))


def _scale(space):
    if not hasattr(space, "low"):
        return 1.0
    low, high = np.asarray(space.low), np.asarray(space.high)  # JAX would compile comparisons
    return 1 / 255 if np.all(low == 0) and np.all(high == 255) else 1.0


def is_kept(dtype: np.dtype) -> bool:
    """Whether rollouts keep observations of a dtype as they are: bools and whole numbers of 8 or 16
    bits."""
    return dtype.kind in "biu" and dtype.itemsize < 4


def is_scaled_anew(space: Any) -> bool:
    """Whether the space has numbers from 0 to 255 that are not bytes: earlier versions did not
    divide them by 255."""
    parts = getattr(space, "spaces", ())
    if parts:
        return any(map(is_scaled_anew, parts.values() if isinstance(parts, Mapping) else parts))
    return _scale(space) != 1.0 and space.dtype != np.uint8


def mask(space: Discrete | MultiDiscrete, given: Any, xp: Any = np) -> Any:
    """A mask of valid actions as bool [*space.mask_shape], in NumPy or `jax.numpy`.

    Args:
        given: [n] for a Discrete space; for others those of all actions (two for each of a
            MultiBinary), concatenated or as a nested sequence.

    Raises:
        ValueError: it has another length or, in NumPy, is not of numbers or allows no action.
    """
    if isinstance(given, tuple | list):
        rows = jax.tree.leaves(given, is_leaf=lambda row: row is None)
        given = xp.concatenate([xp.ravel(xp.asarray(row)) for row in rows])
    if xp is np and np.asarray(given).dtype.kind not in "biuf":
        raise ValueError(f"action_mask is {reprlib.repr(given)}: must be of numbers")
    flat = xp.asarray(given).reshape(-1) != 0
    nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
    if flat.shape != (sum(nvec),):
        raise ValueError(f"action_mask has {flat.size} numbers, not {sum(nvec)}")
    if not isinstance(space, Discrete):
        exists = is_action(space)
        flat = xp.where(exists, flat[exists.cumsum().reshape(exists.shape) - 1], False)
    if xp is np and not flat.any(axis=-1).all():
        raise ValueError("action_mask allows no action")
    return flat


def is_action(space: MultiDiscrete) -> np.ndarray:
    """bool [*space.mask_shape]: False where a row of a mask is longer than its action's nvec."""
    rows, longest = space.mask_shape
    return np.arange(longest)[None] < np.reshape(space.nvec, (rows, 1))


def _integers(x):
    return tuple(np.ravel(x).tolist())
