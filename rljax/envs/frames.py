"""The last N observations as one, which is what a policy without a memory can be given.

They are joined along the axis of an image's channels, [H, W, C] -> [H, W, N*C], and the ends of
vectors are joined, [F] -> [N*F]; the oldest comes first. An episode begins with N times its first
observation (Mnih et al. 2015, DQN).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rljax.envs.spaces import Numbers, Observation


class Frames(NamedTuple):
    """How N encoded observations become one."""

    number: int  # N
    one: Observation

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an observation before it is joined to others: of a grey image [H, W, 1], of a single
        number [1], else its own."""
        shape = self.one.shape
        is_grey = len(shape) == 2 and getattr(self.one, "scale", 1.0) != 1.0
        return (*shape, 1) if is_grey or not shape else shape

    @property
    def axis(self) -> int:
        """That grows: the last, or the first of images [C, H, W]."""
        shape = self.shape
        is_first = len(shape) == 3 and shape[0] < min(shape[1:])
        return 0 if is_first else len(shape) - 1

    @property
    def joined(self) -> Numbers:
        """What N of them are."""
        shape = list(self.shape)
        shape[self.axis] *= self.number
        return numbers_like(self.one, tuple(shape))


def numbers_like(one: Observation, shape: tuple[int, ...]) -> Numbers:
    """Encoded observations in another shape, with their scale and dtype."""
    kept = {name: getattr(one, name, default) for name, default in _KEPT.items()}
    return Numbers(shape, **kept)


_KEPT = {name: Numbers._field_defaults[name] for name in ("scale", "dtype")}


def join(frames: Frames, observations: Sequence[Any], xp: Any = np) -> Any:
    """N encoded observations, the oldest first, as one [*frames.joined.shape].

    Raises:
        ValueError: they are not N.
    """
    if len(observations) != frames.number:
        what = f"frame_stack = {frames.number}: must be given as many observations"
        raise ValueError(f"{what}, not {len(observations)}")
    return xp.concatenate([x.reshape(frames.shape) for x in observations], frames.axis)


def first(frames: Frames, obs: Any, xp: Any = np) -> Any:
    """The stack at the first observation of an episode, in NumPy or `jax.numpy`."""
    repeats = [1] * len(frames.shape)
    repeats[frames.axis] = frames.number
    return xp.tile(obs.reshape(frames.shape), repeats)


def push(frames: Frames, stack: Any, obs: Any, xp: Any = np) -> Any:
    """The stack after a further observation: a new array, without the oldest."""
    newer = (slice(None),) * frames.axis + (slice(frames.shape[frames.axis], None),)
    return xp.concatenate([stack[newer], obs.reshape(frames.shape)], frames.axis)
