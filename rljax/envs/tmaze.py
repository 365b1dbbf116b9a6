"""A T-maze: the way to turn at the end of a corridor is shown at its beginning alone.

After Bakker 2001, "Reinforcement learning with long short-term memory", whose corridor's end also
asks for what the first observation said.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState

FORWARD, UP, DOWN = range(3)
WASTED = -0.1  # reward of an action that has no effect


@struct.dataclass
class TMazeState(EnvState):
    position: jax.Array  # from 0 to `corridor`, where the junction is
    hint: jax.Array  # 1 if the way is up, -1 if it is down


@struct.dataclass
class TMazeParams(EnvParams):
    corridor: int = 20  # steps to the junction, at least 1
    max_steps_in_episode: int = 200


class TMaze(Environment):
    """`corridor` steps forward to a junction, and there a turn.

    Observation, float32 [2]: the hint, in the first one of an episode alone (1 for up, -1 for down,
    with equal chance; 0 later), and whether this is the junction (1, else 0). Actions: 0 forward, 1
    up, 2 down. Forward in the corridor, reward 0, is a step. At the junction a turn ends the
    episode: reward 1 if it is the one of the hint, else -1. Any other action, a turn in the
    corridor or forward at the junction, has no effect and reward -0.1. An episode is truncated
    after `max_steps_in_episode` steps, 200. The best return is 1.

    The best return without a memory, of policies that are functions of the observation, stochastic
    or not, is 0 if `max_steps_in_episode` is at least `corridor` + 10. At the junction all of them
    get one observation: if they turn, it is up with one probability q, whatever the hint was. With
    f(h) the probability that an episode with hint h ends by a turn, it ends by the right one with
    probability (f(up) q + f(down) (1 - q)) / 2 <= 1/2. Its return is then at most 1, and otherwise
    at most -1: for the wrong turn, or since an episode that is truncated has wasted 10 steps. The
    mean is at most 1/2 - 1/2 = 0, and going forward to any turn reaches it. With a smaller limit
    time is a memory: after a first step that was wasted, the limit can come before a wrong turn,
    and costs less.
    """

    @property
    def default_params(self) -> TMazeParams:
        return TMazeParams()

    def reset_env(self, key: jax.Array, params: TMazeParams) -> tuple[jax.Array, TMazeState]:
        """Raises a ValueError if `corridor`, unless it is traced, is no whole number above 0, or an
        episode is too short for it."""
        corridor = params.corridor
        if not isinstance(corridor, jax.Array) and (corridor < 1 or corridor != int(corridor)):
            raise ValueError(f"corridor = {corridor}: must be a whole number of at least 1")
        limit = params.max_steps_in_episode
        if not isinstance(corridor + limit, jax.Array) and corridor >= limit:
            what = f"must be below max_steps_in_episode = {limit}, or no episode reaches its end"
            raise ValueError(f"corridor = {corridor}: {what}")
        hint = jnp.where(jax.random.bernoulli(key), 1, -1)
        state = TMazeState(time=jnp.int32(0), position=jnp.int32(0), hint=hint)
        return self.get_obs(state, params), state

    def step_env(
        self, key: jax.Array, state: TMazeState, action: jax.Array, params: TMazeParams
    ) -> tuple[jax.Array, TMazeState, jax.Array, jax.Array, dict[Any, Any]]:
        at_junction, is_forward = state.position >= params.corridor, action == FORWARD
        is_step = is_forward & ~at_junction
        is_turn = ~is_forward & at_junction
        is_right = action == jnp.where(state.hint == 1, UP, DOWN)
        reward = jnp.where(is_turn, jnp.where(is_right, 1.0, -1.0), jnp.where(is_step, 0, WASTED))
        state = TMazeState(time=state.time + 1, position=state.position + is_step, hint=state.hint)
        return self.get_obs(state, params), state, reward, is_turn, {}

    def get_obs(self, state: TMazeState, params: TMazeParams, key: Any = None) -> jax.Array:
        hint = jnp.where(state.time == 0, state.hint, 0)
        return jnp.stack([hint, state.position >= params.corridor]).astype(jnp.float32)

    def action_space(self, params: TMazeParams | None = None) -> spaces.Discrete:
        return spaces.Discrete(3)

    def observation_space(self, params: TMazeParams) -> spaces.Box:
        return spaces.Box(-1, 1, (2,))
