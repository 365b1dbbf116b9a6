"""An environment of images that costs little to step, in gymnax's form: what takes time and memory
is all around it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState

SIDE, BLOCK = 64, 8  # pixels
MOVES = np.int32([(-4, 0), (4, 0), (0, -4), (0, 4)])


@struct.dataclass
class State(EnvState):
    block: jax.Array  # [2] the upper left pixel
    goal: jax.Array


@struct.dataclass
class Params(EnvParams):
    max_steps_in_episode: int = 100


class MovingBlock(Environment):
    """A green block moves up, down, left or right by 4 pixels; an episode ends with reward 1 where
    it touches the red one. Observations are uint8 [64, 64, 3]."""

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        block, goal = jax.random.randint(key, (2, 2), 0, SIDE - BLOCK + 1)
        state = State(time=jnp.int32(0), block=block, goal=goal)
        return image(state), state

    def step_env(self, key, state, action, params):
        block = jnp.clip(state.block + jnp.asarray(MOVES)[action], 0, SIDE - BLOCK)
        state = state.replace(time=state.time + 1, block=block)
        touches = (jnp.abs(block - state.goal) < BLOCK).all()
        return image(state), state, touches.astype(jnp.float32), touches, {}

    def action_space(self, params):
        return spaces.Discrete(len(MOVES))

    def observation_space(self, params):
        return spaces.Box(0, 255, (SIDE, SIDE, 3), jnp.uint8)


def image(state: State) -> jax.Array:
    """uint8 [64, 64, 3]"""
    pixels = jnp.arange(SIDE)

    def within(corner):
        rows, columns = (abs(2 * (pixels - start) - BLOCK + 1) < BLOCK for start in corner)
        return rows[:, None] & columns[None, :]

    red, green = within(state.goal), within(state.block)
    return 255 * jnp.stack([red, green, jnp.zeros_like(red)], axis=-1).astype(jnp.uint8)
