"""Observations as arrays, and actions as the environment takes them."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np

from rljax.envs.spaces import Numbers, Observation, OneHot, Parts


def encode(kind: Observation, obs: Any, xp: Any = np) -> Any:
    """An observation as one array [*kind.shape], in NumPy or `jax.numpy`: float32, or unscaled in
    the dtype that its kind keeps, for `as_float32`.

    Raises:
        ValueError, TypeError, KeyError: it is of another kind or, in NumPy, outside of its space.
    """
    if isinstance(kind, Parts):
        _check_parts(kind, obs)
        keys = kind.names or range(len(kind.parts))
        pieces = [encode(part, obs[key], xp).reshape(-1) for key, part in zip(keys, kind.parts)]
        return xp.concatenate(pieces)
    if isinstance(kind, OneHot):
        return _one_hot(kind, xp.asarray(obs).reshape(-1), xp)
    array = _numbers(kind, obs) if xp is np else xp.asarray(obs, kind.dtype)
    if array.shape != kind.shape:
        raise ValueError(f"observation has shape {array.shape}, not {kind.shape}")
    is_whole = kind.scale == 1.0 or kind.dtype != "float32"
    return array if is_whole else array * xp.float32(kind.scale)


def as_float32(scale: float, obs: jax.Array) -> jax.Array:
    """Encoded observations as float32: those that are kept in another dtype are scaled."""
    if obs.dtype == np.float32:
        return obs
    obs = obs.astype(np.float32)
    return obs if scale == 1.0 else obs * np.float32(scale)


def _one_hot(kind, whole, xp):
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


def _check_parts(kind, obs):
    if kind.names is None:
        came = len(obs) if isinstance(obs, tuple | list) else type(obs).__name__
        if came != len(kind.parts):
            raise ValueError(f"observation must be a tuple of {len(kind.parts)}, not {came}")
    elif not isinstance(obs, Mapping):
        raise ValueError(f"observation must be a dict, not {type(obs).__name__}")
    elif set(obs) != set(kind.names):
        raise ValueError(f"observation has the keys {list(obs)}, not {list(kind.names)}")


def _numbers(kind, obs):
    """In the dtype that its kind keeps; what is too large for float32 becomes infinite, which is
    refused later."""
    array = np.asarray(obs)
    if array.dtype == kind.dtype:
        return array
    if array.dtype.kind not in "biufO":
        raise TypeError(f"observation is of {array.dtype}: must be of numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        kept = array.astype(kind.dtype)
        if kind.dtype != "float32" and not np.array_equal(kept, array):
            raise ValueError(f"observation of {array.dtype} is not of {kind.dtype}, as its space")
    return kept


def encoder(kind: Observation) -> Callable[[Any], np.ndarray]:
    """`encode` for one kind, in NumPy; fast if there is nothing to do."""
    if not isinstance(kind, Numbers) or (kind.scale != 1.0 and kind.dtype == "float32"):
        return partial(encode, kind)

    shape, dtype = kind.shape, np.dtype(kind.dtype)  # which compares faster than its name

    def encode_array(obs):
        is_right = type(obs) is np.ndarray and obs.shape == shape and obs.dtype == dtype
        return obs if is_right else encode(kind, obs)

    return encode_array


def decoder(space: gymnasium.Space) -> Callable[[np.ndarray], Any]:
    """A function from an action numbered from 0 to one of a declared space."""
    dtype = space.dtype
    if isinstance(space, gymnasium.spaces.Discrete):
        start = int(space.start)
        return lambda action: int(action) + start
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return lambda action: (action + space.start).astype(dtype)
    if dtype == np.float32 or isinstance(space, gymnasium.spaces.MultiBinary):
        return lambda action: action.astype(dtype)  # a copy, for the environment to keep
    low, high = _within(space)
    if dtype.kind == "f":
        return lambda action: np.clip(action, low, high).astype(dtype)
    return lambda action: np.clip(np.rint(action), low, high).astype(dtype)


def _within(space):
    """The bounds of a Box in float64, moved inwards to numbers that its dtype holds."""
    low, high = np.float64(space.low), np.float64(space.high)
    if space.dtype.kind == "f":
        limits = np.finfo(space.dtype)
        return np.maximum(low, float(limits.min)), np.minimum(high, float(limits.max))
    if space.dtype.kind in "iu":  # the highest of 64 bits rounds up
        limit = int(np.iinfo(space.dtype).max)
        if float(limit) > limit:
            high = np.minimum(high, np.nextafter(float(limit), 0))
    return low, high


def split(kind: Observation, vector: jax.Array) -> Any:
    """The parts of encoded observations [..., F], each [..., *shape], nested as their space is."""
    if not isinstance(kind, Parts):
        return vector.reshape(*vector.shape[:-1], *kind.shape)
    pieces, start = [], 0
    for part in kind.parts:
        stop = start + math.prod(part.shape)
        pieces.append(split(part, vector[..., start:stop]))
        start = stop
    return tuple(pieces) if kind.names is None else dict(zip(kind.names, pieces))
