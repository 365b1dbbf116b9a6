"""The short corridor with switched actions (Sutton and Barto 2018, example 13.1), in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState


@struct.dataclass
class CorridorState(EnvState):
    position: jax.Array  # 0 to 2; the goal is at 3


@struct.dataclass
class CorridorParams(EnvParams):
    max_steps_in_episode: int = 500


class Corridor(Environment):
    """Four states in a row: three that look the same, and the goal at the right end.

    Actions: 0 left, 1 right, but the other way round in the second state. Reward -1 a step. An
    episode starts in the leftmost state, and is truncated after `max_steps_in_episode` steps, 500.
    The best stochastic policy goes right with probability 0.59, for a return of -11.6; a
    deterministic one never arrives.
    """

    @property
    def default_params(self):
        return CorridorParams()

    def reset_env(self, key, params):
        return jnp.ones(1), CorridorState(time=jnp.int32(0), position=jnp.int32(0))

    def step_env(self, key, state, action, params):
        right = jnp.where(state.position == 1, 1 - action, action)
        position = jnp.maximum(state.position + 2 * right - 1, 0)
        state = CorridorState(time=state.time + 1, position=position)
        return jnp.ones(1), state, jnp.float32(-1), position == 3, {}

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(1, 1, (1,))


def expected_return(right: float) -> float:
    """That of a policy which goes right with this probability, between 0 and 1, without a limit of
    time: from the leftmost state, by the three equations of the states' values."""
    left = 1 - right
    stays = np.array([[left, right, 0], [right, 0, left], [0, left, 0]])
    return float(np.linalg.solve(np.eye(3) - stays, -np.ones(3))[0])
