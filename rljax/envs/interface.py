"""What an environment takes and gives."""

from typing import Any, NamedTuple

from rljax.envs import spaces


class Step(NamedTuple):
    """An environment's answer to an action, after its auto-reset."""

    obs: Any
    """[..., *obs_shape] what the policy sees next: of the new episode after an episode's end."""
    reward: Any
    """[...] float32."""
    terminated: Any
    """[...] bool: the episode ended by the environment's own rule; its value is 0 from here on."""
    truncated: Any
    """[...] bool: the episode was cut, by a time limit as a rule; its value goes on."""
    final_obs: Any
    """[..., *obs_shape] the true successor, from before the reset."""
    mask: Any = None
    """bool [..., *mask_shape] the actions that are valid at `obs`; None where all are."""


class EnvSpec(NamedTuple):
    """What an environment takes and gives; hashable, so static under `jax.jit`."""

    name: str
    observation: spaces.Observation
    action_space: spaces.ActionSpace
    has_mask: bool = False
    """It tells which actions are valid."""

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Of an encoded observation."""
        return self.observation.shape
