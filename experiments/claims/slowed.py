"""Gymnasium's CartPole with steps that take time but no core, as those of a remote or a real
machine."""

import time

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv


class Slowed(gymnasium.Wrapper):
    """Sleeps in every step.

    Args:
        milliseconds: of each step.
    """

    def __init__(self, milliseconds: float):
        super().__init__(gymnasium.wrappers.TimeLimit(CartPoleEnv(), 500))
        self.seconds = milliseconds / 1000

    def step(self, action):
        time.sleep(self.seconds)
        return super().step(action)
