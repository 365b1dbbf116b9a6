"""What environments take and give, whatever they declare: actions numbered from 0 and observations
as one array of float32.

An observation of a single array keeps its shape. All others become one vector: discrete values
one-hot, and those of a Dict or Tuple end to end, in the order of the space; `split` takes the
vector apart again, for a network that wants the pieces. Numbers from 0 to 255, of bytes or of
another type, are divided by 255.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
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
        """Of a mask of valid actions."""
        return (self.n,)


class MultiDiscrete(NamedTuple):
    """Several discrete actions at once, in a shape; the i-th is one of 0, ..., nvec[i] - 1."""

    shape: tuple[int, ...]
    nvec: tuple[int, ...]

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Of a mask of valid actions: a row for each, as long as the longest needs."""
        return len(self.nvec), max(self.nvec)


class Box(NamedTuple):
    """Continuous actions of a shape, with bounds for each component (flattened)."""

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


ActionSpace = Discrete | MultiDiscrete | Box


class Numbers(NamedTuple):
    """An observed array."""

    shape: tuple[int, ...]
    scale: float = 1.0


class OneHot(NamedTuple):
    """Observed whole numbers, the i-th from start[i] to start[i] + n[i] - 1; each one-hot."""

    n: tuple[int, ...]
    start: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.n),)


class Parts(NamedTuple):
    """Several observations at once: of a Dict if they have names, else of a Tuple."""

    parts: tuple
    names: tuple[str, ...] | None

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(math.prod(part.shape) for part in self.parts),)


Observation = Numbers | OneHot | Parts


def action_space(space: Any) -> ActionSpace:
    """What a declared action space comes to, gymnasium's or gymnax's: told by its attributes, so
    that a user's own classes serve as well.

    Raises:
        ValueError: a space of another kind.
    """
    shape = tuple(getattr(space, "shape", None) or ())
    if hasattr(space, "nvec"):
        return MultiDiscrete(shape, _integers(space.nvec))
    if hasattr(space, "n"):
        return MultiDiscrete(shape, (2,) * math.prod(shape)) if shape else Discrete(int(space.n))
    if hasattr(space, "low") and hasattr(space, "high"):
        with np.errstate(over="ignore"):  # beyond float32 there is no bound
            bounds = [np.broadcast_to(np.float32(x), shape) for x in (space.low, space.high)]
        return Box(shape, *(tuple(bound.ravel().tolist()) for bound in bounds))
    raise ValueError(
        f"unsupported action space {space}; Discrete, MultiDiscrete, MultiBinary and Box are"
    )


def observation(space: Any) -> Observation:
    """What a declared observation space comes to.

    Raises:
        ValueError: a space of another kind.
    """
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
    raise ValueError(
        f"unsupported observation space {space}; Box, Discrete, MultiDiscrete, MultiBinary, Dict"
        " and Tuple are"
    )


_NO_NUMBERS = (np.complexfloating, jax.dtypes.extended)


def observed(space: Any, like: Any) -> Observation:
    """As `observation`, of an environment whose declared space can be wrong or absent: shapes are
    those of what it gives.

    Args:
        like: a pytree of arrays, or of their shapes.
    """
    if isinstance(like, Mapping | tuple | list):
        names = tuple(like) if isinstance(like, Mapping) else None
        declared = getattr(space, "spaces", None)
        keys = names or range(len(like))
        parts = (observed(declared[key] if declared else None, like[key]) for key in keys)
        return Parts(tuple(parts), names)
    if not hasattr(like, "shape"):
        raise ValueError(f"observations must be arrays, or dicts and tuples of them, not {like!r}")
    if any(jax.dtypes.issubdtype(like.dtype, kind) for kind in _NO_NUMBERS):
        raise ValueError(f"observations must be real numbers, not {like.dtype}")
    if hasattr(space, "n") and like.shape == () and np.issubdtype(like.dtype, np.integer):
        return observation(space)
    return Numbers(tuple(like.shape), _scale(space))


def _scale(space):
    if not hasattr(space, "low"):
        return 1.0
    return 1 / 255 if np.all(space.low == 0) and np.all(space.high == 255) else 1.0


def is_scaled_anew(space: Any) -> bool:
    """Whether numbers in a declared space are divided by 255 that earlier versions left alone:
    those from 0 to 255 that are no bytes."""
    parts = getattr(space, "spaces", ())
    if parts:
        return any(map(is_scaled_anew, parts.values() if isinstance(parts, Mapping) else parts))
    return _scale(space) != 1.0 and space.dtype != np.uint8


def encode(kind: Observation, obs: Any, xp: Any = np) -> Any:
    """An observation as one float32 array [*kind.shape].

    Args:
        xp: NumPy or `jax.numpy`.

    Raises:
        ValueError, TypeError, KeyError: it is not of its kind.
    """
    if isinstance(kind, Parts):
        _check_parts(kind, obs)
        pieces = (
            encode(part, obs[key], xp).reshape(-1)
            for key, part in zip(kind.names or range(len(kind.parts)), kind.parts)
        )
        return xp.concatenate(list(pieces))
    if isinstance(kind, OneHot):
        whole = xp.asarray(obs).reshape(-1)
        if xp is np and whole.dtype.kind not in "biuf":
            raise TypeError(f"observation is of {whole.dtype}: must be of numbers")
        if whole.dtype.kind in "iu" and whole.dtype.itemsize < 4:
            whole = whole.astype(xp.int32)  # to which `start` can be added
        if whole.shape != (len(kind.n),):
            raise ValueError(f"observation of {whole.size} whole numbers, not {len(kind.n)}")
        hot = [whole[i] - at == xp.arange(n) for i, (n, at) in enumerate(zip(kind.n, kind.start))]
        hot = xp.concatenate(hot).astype(xp.float32)
        if xp is np and hot.sum() != len(kind.n):
            raise ValueError(f"observation {whole.tolist()} is outside of its space")
        return hot
    array = _numbers(obs) if xp is np else xp.asarray(obs, xp.float32)
    if array.shape != kind.shape:
        raise ValueError(f"observation has shape {array.shape}, not {kind.shape}")
    return array if kind.scale == 1.0 else array * xp.float32(kind.scale)


def _check_parts(kind, obs):
    if kind.names is None:
        if not isinstance(obs, tuple | list) or len(obs) != len(kind.parts):
            what = f"{len(obs)}" if isinstance(obs, tuple | list) else f"{type(obs).__name__}"
            raise ValueError(f"observation must be a tuple of {len(kind.parts)}, not {what}")
    elif not isinstance(obs, Mapping):
        raise ValueError(f"observation must be a dict, not {type(obs).__name__}")
    elif set(obs) != set(kind.names):
        raise ValueError(f"observation has the keys {list(obs)}, not {list(kind.names)}")


def _numbers(obs):
    """As float32; what float32 does not hold becomes infinite, which is refused later."""
    array = np.asarray(obs)
    if array.dtype == np.float32:
        return array
    if array.dtype.kind not in "biufO":
        raise TypeError(f"observation is of {array.dtype}: must be of numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def encoder(kind: Observation) -> Callable[[Any], np.ndarray]:
    """`encode` of a kind in NumPy, quick where there is nothing to do."""
    shape = kind.shape
    if not isinstance(kind, Numbers) or kind.scale != 1.0:
        return partial(encode, kind)

    def encode_array(obs):
        is_right = type(obs) is np.ndarray and obs.shape == shape and obs.dtype == np.float32
        return obs if is_right else encode(kind, obs)

    return encode_array


def decoder(space: gymnasium.Space) -> Callable[[np.ndarray], Any]:
    """What makes of an action numbered from 0 one of a declared space."""
    dtype = space.dtype
    if isinstance(space, gymnasium.spaces.Discrete):
        start = int(space.start)
        return lambda action: int(action) + start
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return lambda action: (action + space.start).astype(dtype)
    if dtype == np.float32 or isinstance(space, gymnasium.spaces.MultiBinary):
        return lambda action: action.astype(dtype)  # a copy, which is the environment's
    low, high = _within(space)
    if dtype.kind == "f":
        return lambda action: np.clip(action, low, high).astype(dtype)
    return lambda action: np.clip(np.rint(action), low, high).astype(dtype)


def _within(space):
    """A Box's bounds in float64, moved inwards to what its type holds."""
    low, high = np.float64(space.low), np.float64(space.high)
    if space.dtype.kind == "f":
        limits = np.finfo(space.dtype)
        return np.maximum(low, float(limits.min)), np.minimum(high, float(limits.max))
    if space.dtype.kind in "iu":  # of 64 bits, the highest is rounded up
        limit = int(np.iinfo(space.dtype).max)
        if float(limit) > limit:
            high = np.minimum(high, np.nextafter(float(limit), 0))
    return low, high


def split(kind: Observation, vector: jax.Array) -> Any:
    """The pieces of encoded observations [..., F], nested as their space is: each [..., *shape]."""
    if not isinstance(kind, Parts):
        return vector.reshape(*vector.shape[:-1], *kind.shape)
    pieces, start = [], 0
    for part in kind.parts:
        stop = start + math.prod(part.shape)
        pieces.append(split(part, vector[..., start:stop]))
        start = stop
    return tuple(pieces) if kind.names is None else dict(zip(kind.names, pieces))


def mask(space: Discrete | MultiDiscrete, given: Any, xp: Any = np) -> Any:
    """A mask of valid actions as bool [*space.mask_shape].

    Args:
        given: [n] of a Discrete space; of others those of all components (two for each of a
            MultiBinary), end to end or as a nested sequence of them.
        xp: NumPy or `jax.numpy`.

    Raises:
        ValueError: it is of another length.
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
    """bool [*space.mask_shape]: which places of its rows stand for an action."""
    rows, longest = space.mask_shape
    return np.arange(longest)[None] < np.reshape(space.nvec, (rows, 1))


def _integers(x):
    return tuple(np.ravel(x).tolist())
