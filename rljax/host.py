"""Environments that are stepped from Python: gymnasium's, behind one small interface."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

from rljax.types import Box, Discrete, EnvSpec, Step


class HostEnv(NamedTuple):
    """An environment that Python steps; `envs.Env` is its counterpart in JAX."""

    spec: EnvSpec
    open: Callable[[int], "Running"]
    """num_envs -> so many of them, to be stepped together and closed."""


def make(name: str, env: gymnasium.Env, build: Callable[[], gymnasium.Env]) -> HostEnv:
    """What `build` makes, described by one of them, which is closed.

    Raises:
        ValueError: a space that is not supported.
    """
    try:
        spec = EnvSpec(name, _obs_shape(name, env), _action_space(name, env.action_space))
    finally:
        env.close()
    return HostEnv(spec, lambda num_envs: Running(spec, [build() for _ in range(num_envs)]))


class Running:
    """Environments stepped one after another in this process, with auto-reset."""

    def __init__(self, spec: EnvSpec, envs: Sequence[gymnasium.Env]):
        self.spec, self.envs = spec, envs

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Fresh episodes, each environment's chance from a seed of its own.

        Returns:
            [B, *obs_shape] float32.
        """
        pairs = zip(self.envs, seeds, strict=True)
        return np.array([env.reset(seed=int(seed))[0] for env, seed in pairs], np.float32)

    def step(self, actions: np.ndarray) -> Step:
        """Acts in every environment; one whose episode ends begins another.

        Args:
            actions: [B, *action_shape].

        Returns:
            Step [B, ...], in NumPy.
        """
        num_envs = len(self.envs)
        obs = np.empty((num_envs, *self.spec.obs_shape), np.float32)
        final_obs = np.empty_like(obs)
        reward = np.empty(num_envs, np.float32)
        terminated, truncated = np.empty(num_envs, bool), np.empty(num_envs, bool)
        chosen = actions.tolist() if isinstance(self.spec.action_space, Discrete) else actions
        for i, env in enumerate(self.envs):
            final_obs[i], reward[i], terminated[i], truncated[i], _ = env.step(chosen[i])
            obs[i] = env.reset()[0] if terminated[i] or truncated[i] else final_obs[i]
        return Step(obs, reward, terminated, truncated, final_obs)

    def close(self) -> None:
        for env in self.envs:
            env.close()


def seeds(key: jax.Array, num_envs: int) -> np.ndarray:
    """[B] seeds for `Running.reset`, from a key."""
    return np.asarray(jax.random.bits(key, (num_envs,)) >> 1)


def _obs_shape(name, env) -> tuple[int, ...]:
    space: Any = env.observation_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"env = {name!r}: unsupported observation space {space}; Box is")
    return tuple(space.shape)


def _action_space(name, space) -> Discrete | Box:
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        bounds = (tuple(bound.ravel().tolist()) for bound in (space.low, space.high))
        return Box(tuple(space.shape), *bounds)
    raise ValueError(
        f"env = {name!r}: unsupported action space {space}; Discrete from 0 and Box of floats are"
    )
