"""Pendulum with a few torques to choose from, for algorithms whose actions must be discrete."""

import jax.numpy as jnp
from gymnax.environments import spaces
from gymnax.environments.classic_control.pendulum import Pendulum


class Torques(Pendulum):
    """The actions 0 to `number` - 1 are torques at equal distances, from the lowest to the highest;
    all else is Pendulum-v1's."""

    def __init__(self, number: int = 5):
        super().__init__()
        self.number = number

    def step_env(self, key, state, action, params):
        torque = params.max_torque * (2 * action / (self.number - 1) - 1)
        return super().step_env(key, state, jnp.reshape(torque, (1,)), params)

    def action_space(self, params=None):
        return spaces.Discrete(self.number)
