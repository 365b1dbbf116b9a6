"""What an environment takes and returns."""

from typing import Any, NamedTuple

from rljax.envs import spaces


class Step(NamedTuple):
    """What an environment returns for an action, after its auto-reset."""

    obs: Any  # [..., *obs_shape] to act on next; where an episode ended, the first of the new one;
    # in JAX in the dtype of the spec's observation, for `networks.blocks`
    reward: Any  # float32 [...]
    terminated: Any  # bool [...] ended by the environment's own rule; the value from here on is 0
    truncated: Any  # bool [...] cut, usually by a time limit; the value is bootstrapped
    final_obs: Any  # [..., *obs_shape] the true successor, from before the reset
    mask: Any = None  # bool [..., *mask_shape] the valid actions at `obs`; None if all are


class EnvSpec(NamedTuple):
    """The spaces of an environment; hashable, so static under `jax.jit`."""

    name: str
    observation: spaces.Observation
    action_space: spaces.ActionSpace
    has_mask: bool = False  # whether it gives a mask of valid actions

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Of an encoded observation."""
        return self.observation.shape
